"""The process of the page, as the stream sees it: started, handed the latest state, started again when it has ended.

The process asks, and a thread of the stream answers, so that any number of viewers costs the stream one answer at most
four times a second. Images are encoded, pages are made and records are stored in that process, at the lowest priority.
"""

import importlib.util
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from msc_edge.errors import UsageError, explain_missing_extra
from msc_edge.runtime.stream.config_sections import WebConfig
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.page.child import run_page
from msc_edge.runtime.stream.page.feed import PageFeed
from msc_edge.runtime.stream.page.snapshot import PageSettings, Request, Snapshot, StationStatus, Stored
from msc_edge.runtime.stream.page.store import Store
from msc_edge.runtime.web.listening import is_loopback, listening_socket
from msc_edge.runtime.web.settings import WebSettings
from msc_edge.runtime.web.users import read_users

_NEEDED = ("starlette", "uvicorn", "python_multipart", "pwdlib", "argon2")  # of the extra
_LONGEST_PAUSE = 30.0  # seconds until a process that has ended is started again
_LASTED = 60.0  # seconds after which a process that ends has worked
_END_TIMEOUT = 0.5  # seconds that the process has to store the last records


def require_web() -> None:
    """MissingExtraError when a package of the extra [web] is missing."""
    with explain_missing_extra("web"):
        for package in _NEEDED:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(name=package)


class PageProcess:
    """The page of a stream, until `close`."""

    def __init__(
        self,
        config: WebConfig,
        folder: Path,
        feed: PageFeed,
        *,
        station: str,
        status: Callable[[], StationStatus],
        metrics: Callable[[], bytes],
        hangs_after: float = 120.0,
    ) -> None:
        """Open the port and start the process. `folder`: of the state. `status` and `metrics` are called by a thread.

        `hangs_after`: seconds without a word of the process after which it is killed and started again; on a PC whose
        cores are all in use it needs a minute to start.
        UsageError when the port cannot be opened, or other PCs could use the page without a password or in plain text.
        """
        self._port = _opened(config)
        try:
            Store(folder).close()  # what is wrong with it is said at the start
            if config.users:
                read_users(config.users)
            is_local = is_loopback(self._port.getsockname()[0])
            self._settings = PageSettings(
                station=station,
                is_local=is_local,
                web=_web_settings(config, beyond_this_pc=not is_local),
                users=config.users and config.users.absolute(),
                session_hours=config.session_hours,
                folder=folder.absolute(),
            )
        except BaseException:
            self._port.close()
            raise
        self._feed, self._status, self._metrics = feed, status, metrics
        self._hangs_after = hangs_after
        self._heard = time.monotonic()
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._connection: Connection | None = None
        self._process: BaseProcess | None = None
        self._thread = threading.Thread(target=self._run, name="msc-edge page", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The open port."""
        return self._port.getsockname()[1]

    def _run(self) -> None:
        pause = 1.0
        while not self._closing.is_set():
            started = time.monotonic()
            reason = "it has ended"
            try:
                self._serve()
            except Exception as error:  # of the system, for example no memory for a process
                reason = str(error) or type(error).__name__
            if self._closing.is_set():
                return
            self._feed.put_back()
            pause = 1.0 if time.monotonic() - started > _LASTED else min(2 * pause, _LONGEST_PAUSE)
            LOG.error("the page does not run: %s; it is started again in %.0f s; frames are scored", reason, pause)
            self._closing.wait(pause)

    def _serve(self) -> None:
        """Start the process, and answer it until it ends."""
        context = multiprocessing.get_context("spawn")
        connection, of_child = context.Pipe()
        process = context.Process(
            target=run_page, args=(of_child, self._port, self._settings), daemon=True, name="msc-edge page"
        )
        process.start()
        of_child.close()
        self._heard = time.monotonic()
        self._process, self._connection = process, connection
        threading.Thread(target=self._watch, args=(process,), name="msc-edge page watch", daemon=True).start()
        try:
            with suppress(OSError, EOFError):
                while True:
                    message: Request | Stored = connection.recv()
                    self._heard = time.monotonic()
                    if isinstance(message, Stored):
                        self._feed.stored()
                    elif not self._closing.is_set():
                        self._send(metrics=message.metrics)
        finally:
            self._connection = None
            connection.close()
            process.join(_END_TIMEOUT)
            if process.is_alive():
                process.kill()
                process.join()

    def _send(self, *, metrics: bool = False, is_last: bool = False) -> None:
        status, text = self._status(), self._metrics() if metrics else None
        with self._sending:
            if connection := self._connection:
                connection.send(Snapshot(status, self._feed.take(), text, is_last))

    def _watch(self, process: BaseProcess) -> None:
        """Kill a process that hangs: `_serve` waits for it, perhaps within `send`."""
        while process.is_alive():
            process.join(min(1.0, self._hangs_after))
            if time.monotonic() - self._heard > self._hangs_after:
                process.kill()

    def _send_last(self) -> None:
        with suppress(OSError):
            self._send(is_last=True)

    def close(self) -> None:
        """Let the process store the last records, and end it."""
        self._closing.set()
        # A process that hangs blocks this thread only.
        threading.Thread(target=self._send_last, name="msc-edge page end", daemon=True).start()
        self._thread.join(_END_TIMEOUT)
        if self._process is not None and self._thread.is_alive():
            self._process.kill()
            self._thread.join(_END_TIMEOUT)
        self._port.close()


def _opened(config: WebConfig) -> socket.socket:
    require_web()
    assert config.port is not None
    return listening_socket(config.host, config.port, options=("`host` in [web]", "`port` in [web]"))


def _web_settings(config: WebConfig, *, beyond_this_pc: bool) -> WebSettings:
    if (config.tls_cert is None) != (config.tls_key is None):
        raise UsageError("[web]: TLS needs a certificate and its key; give both `tls_cert` and `tls_key`")
    if beyond_this_pc and not config.insecure:
        missing = [
            *([] if config.users else ["a users file (`msc-edge user add FILE NAME`, then `users` in [web])"]),
            *([] if config.tls_cert else ["a certificate and its key (`tls_cert` and `tls_key` in [web])"]),
        ]
        if missing:
            raise UsageError(
                f"other PCs reach {config.host}, so the page needs {' and '.join(missing)}; `insecure = true` in [web] "
                "does without: then everybody in the network may use it, or passwords cross it in plain text"
            )
    settings = WebSettings(
        host=config.host,
        port=config.port or 0,
        timeout=10,
        insecure=True,
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
    )
    settings.check_certificate()
    return settings
