"""The process of one job: `python -m msc_edge.studio.worker FOLDER`."""

import signal
import sys
import time
import traceback
from pathlib import Path

from msc_edge.errors import MscEdgeError, explain_missing_extra
from msc_edge.progress import TaskTimes
from msc_edge.studio.jobs import Job, TaskProgress
from msc_edge.studio.wording import in_words_of_pages

_EVERY = 0.3  # seconds between two writes of the progress


class ProgressFile:
    """A Report that writes the progress of a job into its file."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._times = TaskTimes()
        self._tasks: dict[str, TaskProgress] = {}
        self._written = 0.0

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """See `Report`."""
        now = time.monotonic()
        self._tasks[task] = TaskProgress(task, done, total, note, *self._times.at(now, task, done, total))
        if done >= total or now - self._written > _EVERY:
            self._job.write_progress(list(self._tasks.values()))
            self._written = now


def run(folder: Path) -> None:
    """Do the work of a job, and write its result, or why it failed."""
    job = Job(folder)
    with job.work() as ours:
        if not ours:
            return
        try:
            # Imported now: torch takes seconds, and the lock shows at once that the work runs.
            with explain_missing_extra():
                from msc_edge.studio.tasks import TASKS  # noqa: PLC0415
            request = job.request
            result = TASKS[request.pop("task")](**request, report=ProgressFile(job))
        except MscEdgeError as error:
            job.fail(in_words_of_pages(str(error)))
        except MemoryError:
            job.fail("not enough memory; close other programs, or use smaller images")
        except KeyboardInterrupt:
            return  # the server has stopped it
        except Exception as error:
            traceback.print_exc()
            job.fail(f"a defect of msc-edge: {type(error).__name__}: {error}; the log has the details")
        else:
            job.finish(result)


def _interrupt(signum: int, frame: object) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    run(Path(sys.argv[1]))
