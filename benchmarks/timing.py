"""Median milliseconds of named actions, measured in turns within one run.

Other work on the machine and changes of its clock speed then affect all actions alike. Report the ratio of two medians
of one call; absolute times differ between runs and machines.

This module pins no threads. Set the thread count of everything that is timed before the call: `threads=` of a
detector, `intra_op_num_threads` of an onnxruntime session, `cv2.setNumThreads`, `torch.set_num_threads`; `taskset`
limits a whole process.

`msc-edge bench` measures with `runtime/tools/bench/measure.py`, which shares no code with this module.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Action = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


def samples(
    actions: Mapping[Name, Action],
    *,
    rounds: int,
    in_a_row: int = 1,
    warm_up: int = 1,
    before: Action | None = None,
) -> dict[Name, list[float]]:
    """Milliseconds of each timed call, `rounds` times `in_a_row` of them for each name.

    In each round every action runs `in_a_row` times, one action after the other in the order of `actions`. The first
    `warm_up` rounds are extra and are not recorded. `before` runs ahead of every call and is not timed. Raises
    ValueError for no action, `rounds` or `in_a_row` below 1, and a negative `warm_up`.
    """
    if not actions or rounds < 1 or in_a_row < 1 or warm_up < 0:
        raise ValueError(
            f"{len(actions)} actions, rounds={rounds}, in_a_row={in_a_row}, warm_up={warm_up}: expected at least one "
            "action, one round and one call in a row, and no negative warm-up"
        )
    recorded: dict[Name, list[float]] = {name: [] for name in actions}
    for number in range(warm_up + rounds):
        for name, action in actions.items():
            for _ in range(in_a_row):
                if before is not None:
                    before()
                start = time.perf_counter()
                action()
                milliseconds = 1000 * (time.perf_counter() - start)
                if number >= warm_up:
                    recorded[name].append(milliseconds)
    return recorded


def medians(
    actions: Mapping[Name, Action],
    *,
    rounds: int,
    in_a_row: int = 1,
    warm_up: int = 1,
    before: Action | None = None,
) -> dict[Name, float]:
    """Median milliseconds of each action; the options and errors are those of `samples`."""
    recorded = samples(actions, rounds=rounds, in_a_row=in_a_row, warm_up=warm_up, before=before)
    return {name: statistics.median(each) for name, each in recorded.items()}


def median(action: Action, *, rounds: int, warm_up: int = 1, before: Action | None = None) -> float:
    """Median milliseconds of one action; the options and errors are those of `samples`."""
    return medians({"action": action}, rounds=rounds, warm_up=warm_up, before=before)["action"]


def as_text(milliseconds: Mapping[str, float]) -> str:
    """For print: `fp32 5.69 ms, int8 4.22 ms`."""
    return ", ".join(f"{name} {each:.2f} ms" for name, each in milliseconds.items())
