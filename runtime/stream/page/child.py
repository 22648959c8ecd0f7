"""The main function of the page's process."""

import os
import signal
import socket
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from msc_edge.runtime.stream.page.snapshot import PageSettings, Request, Snapshot, Stored

if TYPE_CHECKING:
    from msc_edge.runtime.stream.page.live import LiveState
    from msc_edge.runtime.stream.page.records import Records

_PRIORITY = 19  # the lowest: a frame is scored first


def run_page(connection: Connection, port: socket.socket, settings: PageSettings) -> None:
    """Answer requests on a listening port until the stream ends, or closes the connection.

    Ctrl-C and SIGTERM of a service manager reach this process too; the stream ends it when the last records are stored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform != "win32":
        os.nice(_PRIORITY)
    # Here: the stream itself imports this module, and needs none of these.
    from msc_edge.runtime.stream.page.app import create_app  # noqa: PLC0415
    from msc_edge.runtime.stream.page.live import LiveState  # noqa: PLC0415
    from msc_edge.runtime.stream.page.records import Records  # noqa: PLC0415
    from msc_edge.runtime.web.server import Port  # noqa: PLC0415

    live, records = LiveState(), Records(settings.folder)
    threading.Thread(target=_receive, args=(connection, live, records), name="msc-edge page", daemon=True).start()
    opened = Port(port, settings.web)
    opened.run(create_app(live, records, settings, hosts=opened.hosts), on_start=lambda _: None, signals=False)


def _receive(connection: Connection, live: "LiveState", records: "Records") -> None:
    """Ask the stream for its state again and again, and store what has happened."""
    try:
        while True:
            connection.send(Request(metrics=live.wants_metrics))
            snapshot: Snapshot = connection.recv()
            records.add(snapshot)
            connection.send(Stored())  # at once: a process that is killed before stores it twice
            if snapshot.is_last:
                break
            live.update(snapshot)
            live.pause(connection)
    except (OSError, EOFError):  # the stream has ended
        pass
    except BaseException:
        traceback.print_exc()
        records.close()
        os._exit(1)
    records.close()
    os._exit(0)  # requests that are answered now would keep the process
