"""Independent tasks on threads, with results in order and bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")


def ordered_map(
    function: Callable[[Item], Output], items: Iterable[Item], *, workers: int
) -> Generator[Output, None, None]:
    """Yield function(item) in the order of `items`, computed on `workers` threads a few items ahead.

    At most 2 * workers results wait at any time. An exception of `function` is raised in place of its result. When the
    caller stops early, tasks that have not started are cancelled.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="msc-edge")
    waiting: deque[Future[Output]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
