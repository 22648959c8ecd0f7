"""The servers for machines, on a thread and an event loop of their own: a slow or broken client delays no frame."""

import asyncio
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from msc_edge.errors import UsageError, explain_missing_extra
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.config_sections import LineConfig
from msc_edge.runtime.stream.line.modbus import MOST_SOURCES, open_modbus
from msc_edge.runtime.stream.line.opcua import OpcUaServer
from msc_edge.runtime.stream.line.values import LineValues
from msc_edge.runtime.stream.triggers.machine_input import NumberedTriggers
from msc_edge.runtime.stream.triggers.pending import Triggers
from msc_edge.runtime.web.listening import why_not_opened

_TIMEOUT = 20.0  # seconds until all ports are open; the address space of OPC UA takes one or two


class LineServers:
    """The open servers. Close them."""

    def __init__(
        self,
        config: LineConfig,
        values: LineValues,
        *,
        station: str,
        modbus_triggers: NumberedTriggers | None = None,
        opcua_triggers: NumberedTriggers | None = None,
    ) -> None:
        """Open the ports of the configuration. UsageError where one cannot be opened, MissingExtraError."""
        self._config, self._values, self._station = config, values, station
        self._modbus_triggers, self._opcua_triggers = modbus_triggers, opcua_triggers
        if config.modbus_port is not None and len(values.sources) > MOST_SOURCES:
            raise UsageError(f"[line] modbus_port: the registers hold {MOST_SOURCES} sources; use several stations")
        self._loop = asyncio.new_event_loop()
        self._open: list[Any] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="msc-edge line", daemon=True)
        self._thread.start()
        try:
            with explain_missing_extra("machine"):
                asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all ports and connections."""
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT)

    async def _start(self) -> None:
        host = self._config.host
        if (port := self._config.modbus_port) is not None:
            logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it logs each wrong request
            _check(host, port, "modbus_port")
            server = await open_modbus(self._values, host, port, self._modbus_triggers)
            self._open.append(server.shutdown)
        if (port := self._config.opcua_port) is not None:
            _check(host, port, "opcua_port")
            machine = OpcUaServer(self._values, self._station, self._opcua_triggers)
            self._open.append(machine.close)
            await machine.open(host, port)

    async def _stop(self) -> None:
        for close in reversed(self._open):
            with suppress(Exception):  # a port that was not opened
                await close()
        self._open.clear()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # sessions of clients that have not closed them
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def open_line(config: StreamConfig, values: LineValues, triggers: Triggers | None) -> LineServers:
    """The servers of a stream; see `LineServers`. A machine may write triggers to that one of the configuration."""
    by = config.trigger.by
    numbered = NumberedTriggers(triggers, values) if triggers else None
    return LineServers(
        config.line,
        values,
        station=config.station,
        modbus_triggers=numbered if by == "modbus" else None,
        opcua_triggers=numbered if by == "opcua" else None,
    )


def _check(host: str, port: int, name: str) -> None:
    """UsageError where a port cannot be opened: the libraries do not say why."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, UnicodeError) as error:
        cause, wrong = why_not_opened(error)
        remedy = "correct `host`" if wrong == "host" else f"choose another `{name}`"
        raise UsageError(f"port {port} of {host} cannot be opened: {cause}; {remedy} in [line]") from error
