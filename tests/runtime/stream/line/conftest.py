"""Decisions as a worker makes them."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from msc_edge.runtime.results.result import Result
from msc_edge.runtime.stream.frame import Decision, Frame, Stages

TIME = datetime(2026, 11, 30, 23, 59, 59, 250_000, tzinfo=UTC)


@pytest.fixture(scope="session")
def decision_of() -> Callable[..., Decision]:
    """A decision of a source; without a verdict for a frame that was not scored."""

    def make(source: str, verdict: str | None, *, score: float = 0.5) -> Decision:
        frame = Frame(source, 0, TIME, 0.0, None)
        if verdict is None:
            return Decision("id", frame, None, None)
        result = Result(
            score=score,
            image_score=score,
            patch_score=None,
            p_value=0.5,
            verdict=verdict,  # pyright: ignore[reportArgumentType]
            limit=1.0,
            regions=(),
            nearest_images=(),
            model="fp32",
            kit="0123456789abcdef" * 4,
        )
        return Decision(f"{source} {score}", frame, result, Stages(1.0, 2.0, 3.0, 6.5))

    return make
