"""The whole of `msc-edge studio`, for Python users."""

from collections.abc import Callable
from pathlib import Path

from msc_edge.runtime.web.server import open_port
from msc_edge.runtime.web.settings import WebSettings
from msc_edge.studio.app import create_app
from msc_edge.studio.removal import empty_trash
from msc_edge.studio.training_queue import TrainingQueue
from msc_edge.studio.workspace import Workspace


def studio(folder: str | Path, settings: WebSettings, *, on_start: Callable[[str], None] = lambda _: None) -> None:
    """Run the studio in a folder until SIGTERM or Ctrl-C.

    Work that was interrupted, by a killed server or a power cut, goes on. Work that runs at the end is stopped, and
    goes on at the next start. `on_start` receives the address as soon as requests are answered. Call this on the main
    thread. Raises UsageError when the port cannot be opened, when other PCs could use it without a token, and when
    another studio is running in the folder.
    """
    workspace = Workspace.at(Path(folder))
    with workspace.held(), open_port(settings) as port:
        empty_trash(workspace)
        try:
            with TrainingQueue(workspace).kept_moving():
                for job in workspace.jobs():
                    if job.state == "interrupted":
                        job.resume()
                port.run(create_app(workspace, settings, hosts=port.hosts), on_start=on_start)
        finally:
            for job in workspace.jobs():
                if job.state == "running":
                    job.stop()
