"""OPC UA: the values of a stream as variables that a machine reads or subscribes to. docs/machine.md lists them.

Names follow the companion specification for machine vision (OPC 40100) where it has one. `Result` has a whole decision
as JSON, so that a subscriber gets each decision in one piece, and none is mixed with the next. All variables are
read-only, but for `TriggerNumber` of each source where triggers come by OPC UA.
"""

import asyncio
import json
import logging
import math
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msc_edge import __version__
from msc_edge.runtime.stream.line.values import OUTCOMES, STATES, LineValues, SourceValues
from msc_edge.runtime.stream.triggers.machine_input import NumberedTriggers

NAMESPACE = "urn:msc-edge:vision"
_ROOT = "VisionSystem"
_MOST_WAITING = 20_000  # decisions that wait for the server; more cannot pile up at any rate that it keeps up with
_BEAT = 0.25  # seconds


class OpcUaServer:
    """The server and its variables. Use it on one event loop."""

    def __init__(self, values: LineValues, station: str, triggers: NumberedTriggers | None = None) -> None:
        """Create the server; nothing is opened yet. `triggers`: takes the numbers that a machine writes."""
        from asyncua.server.server import Server  # noqa: PLC0415

        logging.getLogger("asyncua").setLevel(logging.ERROR)
        self._server = Server()
        self._values, self._station, self._triggers = values, station, triggers
        self._variables: dict[str, dict[str, Any]] = {}
        self._trigger_nodes: dict[Any, str] = {}
        self._waiting: deque[tuple[str, SourceValues]] = deque(maxlen=_MOST_WAITING)
        self._arrived = asyncio.Event()
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Open the port and follow the values. OSError where it cannot be opened."""
        from asyncua import ua  # noqa: PLC0415
        from asyncua.common.callback import CallbackType  # noqa: PLC0415

        server = self._server
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/msc-edge")
        server.set_server_name(f"msc-edge {self._station}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self._space = await server.register_namespace(NAMESPACE)
        root = await self._object(server.nodes.objects, _ROOT, _ROOT)
        self._variables[""] = await self._variables_of(
            root, _ROOT, {"Station": self._station, "SoftwareVersion": __version__, "Heartbeat": 0, "Ready": False}
        )
        sources = await self._object(root, f"{_ROOT}.Sources", "Sources")
        for name, values in self._values.sources.items():
            place = f"{_ROOT}.Sources.{name}"
            source = await self._object(sources, place, name)
            self._variables[name] = await self._variables_of(source, place, _shown(values))
            if self._triggers and name in self._triggers.names:
                numbers = await self._variables_of(source, place, {"TriggerNumber": 0})
                await numbers["TriggerNumber"].set_writable()
                self._trigger_nodes[numbers["TriggerNumber"].nodeid] = name
        server.subscribe_server_callback(CallbackType.PostWrite, self._on_write)
        await server.start()
        self._values.listen(self._arrive)
        self._task = asyncio.create_task(self._follow(), name="msc-edge opc ua")

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._task:
            self._task.cancel()
        await self._server.stop()

    async def _on_write(self, event: Any, _service: object) -> None:
        """Take the numbers that a client has written. Its write ends when the answer before has disappeared."""
        if self._triggers is None or not event.is_external:
            return
        for written, status in zip(event.request_params.NodesToWrite, event.response_params, strict=True):
            name, number = self._trigger_nodes.get(written.NodeId), written.Value.Value.Value
            if name and status.is_good() and isinstance(number, int):  # it may be empty, or an array
                self._triggers.write(name, number)
                await self._write_arrived()

    async def _object(self, parent: Any, place: str, name: str) -> Any:
        from asyncua import ua  # noqa: PLC0415

        return await parent.add_object(self._id_of(place), ua.QualifiedName(name, self._space))

    async def _variables_of(self, parent: Any, place: str, shown: dict[str, Any]) -> dict[str, Any]:
        from asyncua import ua  # noqa: PLC0415

        found = {}
        for name, value in shown.items():
            node, own = self._id_of(f"{place}.{name}"), ua.QualifiedName(name, self._space)
            found[name] = await parent.add_variable(node, own, value, _type_of(value))
        return found

    def _id_of(self, place: str) -> Any:
        from asyncua import ua  # noqa: PLC0415

        return ua.NodeId.from_string(f"ns={self._space};s={place}")

    def _arrive(self, name: str, values: SourceValues) -> None:
        """From any thread, in order."""
        self._waiting.append((name, values))
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def _follow(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), _BEAT)
            self._arrived.clear()
            await self._write_arrived()
            beat = {"Heartbeat": self._values.heartbeat & 0xFFFFFFFF, "Ready": self._values.is_ready}
            await self._write(self._variables[""], beat)

    async def _write_arrived(self) -> None:
        """Write what has arrived, in order."""
        async with self._writing:
            while self._waiting:
                name, values = self._waiting.popleft()
                await self._write(self._variables[name], _shown(values))

    async def _write(self, variables: dict[str, Any], shown: dict[str, Any]) -> None:
        for name, value in shown.items():
            await variables[name].write_value(value, _type_of(value))


def _shown(values: SourceValues) -> dict[str, Any]:
    """The variables of a source, in the order of writing: whoever sees the last one finds the others of its decision.

    `AnswerNumber` is the last one, for a machine that waits for its answer.
    """
    captured = datetime.fromtimestamp(values.captured, UTC)
    fields = {
        "sequence": values.sequence,
        "id": values.id,
        "verdict": values.outcome,
        "score": _or_null(values.score),
        "limit": _or_null(values.limit),
        "captured": captured.isoformat(timespec="milliseconds"),
        "milliseconds": _or_null(values.milliseconds),
        "kit": values.kit,
        "state": values.state,
        "trigger": values.trigger or None,
        "answer": values.answer,
    }
    return {
        "State": values.state,
        "StateNumber": STATES.index(values.state),
        "Verdict": values.outcome,
        "VerdictNumber": OUTCOMES.index(values.outcome),
        "Sequence": values.sequence & 0xFFFFFFFF,
        "Score": float(values.score),
        "Limit": float(values.limit),
        "Captured": captured,
        "Milliseconds": float(values.milliseconds),
        "Kit": values.kit,
        "Normal": values.normal & 0xFFFFFFFF,
        "Warn": values.warn & 0xFFFFFFFF,
        "Reject": values.reject & 0xFFFFFFFF,
        "NotScored": values.not_scored & 0xFFFFFFFF,
        "Result": json.dumps(fields),
        "Trigger": values.trigger,
        "AnswerStatus": values.answer,
        "AnswerNumber": values.answer_number & 0xFFFFFFFF,
    }


def _or_null(number: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(number) else number


def _type_of(value: Any) -> Any:
    from asyncua import ua  # noqa: PLC0415

    kinds = ua.VariantType
    found = {bool: kinds.Boolean, int: kinds.UInt32, float: kinds.Double, str: kinds.String}
    return found.get(type(value), kinds.DateTime)
