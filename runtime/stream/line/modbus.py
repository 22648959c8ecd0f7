"""Modbus TCP: the values of a stream as registers that a machine polls. docs/machine.md has the table.

A request is answered from one snapshot, so the values of a source in one answer belong to one decision. Writing is
refused, but for the trigger register of each source where triggers come by Modbus.
"""

import struct
from typing import TYPE_CHECKING

from msc_edge.runtime.stream.line.values import OUTCOMES, RECENT, STATES, LineValues, SourceValues
from msc_edge.runtime.stream.triggers.answer import STATUSES
from msc_edge.runtime.stream.triggers.machine_input import NumberedTriggers

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer

LAYOUT = 1
"""Version of the table of registers."""
OF_A_SOURCE = 100
"""Source n, from 1, begins at register 100 n."""
MOST_SOURCES = 600
_OF_LAST = 28  # registers of the last decision
TRIGGER = _OF_LAST + 2 * RECENT
"""Place of the trigger number among the registers of a source."""
_USED = TRIGGER + 3
_HEADER = 4
_WRITE = (6, 16)  # functions: one register, several registers


def registers(values: LineValues, triggers: NumberedTriggers | None = None) -> list[int]:
    """All registers, uint16 each."""
    sources = values.sources
    found = [LAYOUT, values.heartbeat & 0xFFFF, len(sources), int(values.is_ready)]
    for name, source in sources.items():
        found += [0] * (OF_A_SOURCE - (len(found) % OF_A_SOURCE or OF_A_SOURCE))
        found += _of_source(source, triggers.number(name) if triggers else 0)
    return found


def size_of(sources: int) -> int:
    """Number of registers with so many sources."""
    return OF_A_SOURCE * sources + _USED if sources else _HEADER


def _of_source(values: SourceValues, trigger: int) -> list[int]:
    is_answered = values.answer == "scored" and 0 < trigger == values.answer_number
    bits = values.is_running * (1 << 3) | is_answered * (1 << 4)
    if values.is_running and values.outcome in ("normal", "warn", "reject"):
        bits |= 1 << OUTCOMES.index(values.outcome)
    packed = struct.pack(
        ">HHHHIfffQIIII8s",
        STATES.index(values.state),
        OUTCOMES.index(values.outcome),
        bits,
        0,
        values.sequence & 0xFFFFFFFF,
        values.score,
        values.limit,
        values.milliseconds,
        round(1000 * values.captured),
        *(count & 0xFFFFFFFF for count in (values.normal, values.warn, values.reject, values.not_scored)),
        bytes.fromhex(values.kit[:16]),
    )
    recent = [part for number, outcome in values.recent for part in (number & 0xFFFF, OUTCOMES.index(outcome))]
    missing = [0, OUTCOMES.index("none")] * (RECENT - len(values.recent))
    answer = values.answer_number if values.answer_number <= 0xFFFF else 0
    handshake = [trigger, answer, STATUSES.index(values.answer)]
    return [*struct.unpack(f">{_OF_LAST}H", packed), *recent, *missing, *handshake]


async def open_modbus(
    values: LineValues, host: str, port: int, triggers: NumberedTriggers | None = None
) -> "ModbusTcpServer":
    """Open the server, which answers on the running event loop. OSError where the port cannot be opened."""
    from pymodbus.constants import ExcCodes  # noqa: PLC0415
    from pymodbus.server import ModbusTcpServer  # noqa: PLC0415
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415

    places = {OF_A_SOURCE * number + TRIGGER: name for number, name in enumerate(values.sources, start=1)}

    async def answer(
        function: int,
        start: int,  # noqa: ARG001
        address: int,
        count: int,
        current: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if written is None:
            current[:] = registers(values, triggers)
            return None
        if triggers is None or function not in _WRITE:
            return ExcCodes.ILLEGAL_FUNCTION
        if count != 1 or (name := places.get(address)) not in triggers.names:
            return ExcCodes.ILLEGAL_ADDRESS
        triggers.write(name, int(written[0]))
        return None

    blocks = [SimData(0, count=size_of(len(values.sources)), values=0, datatype=DataType.REGISTERS)]
    device = SimDevice(id=0, simdata=blocks, use_bit_addressing=True, action=answer)
    server = ModbusTcpServer(device, address=(host, port))
    if not await server.listen():
        raise OSError("the port cannot be opened")
    return server
