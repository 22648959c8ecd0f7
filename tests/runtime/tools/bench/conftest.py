"""Measurements that take a moment: small frames, one start of a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from msc_edge.kit.opening import Kit
from msc_edge.runtime.tools.bench import measure


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "FRAMES", ((64, 48), (128, 96)))
    monkeypatch.setattr(measure, "_STARTS", 1)
    monkeypatch.setattr(measure, "_REPEATS", 2)


@pytest.fixture(scope="session")
def opened(toy_kit: Path) -> Iterator[Kit]:
    with Kit.open(toy_kit) as kit:
        yield kit


@pytest.fixture(scope="session")
def images(photos: Path) -> list[Path]:
    """Six readable images."""
    return sorted(photos.glob("good_*.png"))


@pytest.fixture(scope="session")
def opened_with_patches(patch_kit: Path) -> Iterator[Kit]:
    with Kit.open(patch_kit) as kit:
        yield kit
