"""Threads that score images, with a bounded queue."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TypeVar

from starlette.exceptions import HTTPException

from msc_edge.runtime.tools.serve.bodies import RETRY_AFTER
from msc_edge.runtime.tools.serve.request_metrics import RequestMetrics, Stage

Output = TypeVar("Output")


class ScoringPool:
    """Runs tasks on threads. Its methods are called on the event loop, except `close`."""

    def __init__(self, *, workers: int, queue: int, metrics: RequestMetrics) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="msc-edge scoring")
        self._most = workers + queue
        self._metrics = metrics
        self._tasks = 0

    @property
    def is_full(self) -> bool:
        """Whether another task would be refused."""
        return self._tasks >= self._most

    def refuse_if_full(self) -> None:
        """HTTPException 503 where another task would be refused."""
        if self.is_full:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._tasks} images are in work; try again later", RETRY_AFTER
            )

    async def run(self, task: Callable[[], Output]) -> tuple[Output, dict[Stage, float]]:
        """What a task returns, computed on a thread, and the seconds that its stages took.

        What it raises is raised; HTTPException 503 where it is full.
        """
        self.refuse_if_full()
        submitted = time.perf_counter()

        def timed() -> tuple[Output, dict[Stage, float]]:
            started = time.perf_counter()
            output = task()
            return output, {"queue": started - submitted, "score": time.perf_counter() - started}

        self._tasks += 1
        self._metrics.set_in_work(self._tasks)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, timed)
        finally:
            self._tasks -= 1
            self._metrics.set_in_work(self._tasks)

    def close(self) -> None:
        """Wait for the tasks that have started, and drop the others."""
        self._threads.shutdown(wait=True, cancel_futures=True)
