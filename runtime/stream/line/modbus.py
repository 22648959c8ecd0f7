"""Modbus TCP: the values of a stream as registers that a machine polls. docs/machine.md has the table.

A request is answered from one snapshot, so the values of a source in one answer belong to one decision. Writing is
refused.
"""

import struct
from typing import TYPE_CHECKING

from msc_edge.runtime.stream.line.values import OUTCOMES, RECENT, STATES, LineValues, SourceValues

if TYPE_CHECKING:
    from pymodbus.server import ModbusTcpServer

LAYOUT = 1
"""Version of the table of registers."""
OF_A_SOURCE = 100
"""Source n, from 1, begins at register 100 n."""
MOST_SOURCES = 600
_OF_LAST = 28  # registers of the last decision
_USED = _OF_LAST + 2 * RECENT
_HEADER = 4


def registers(values: LineValues) -> list[int]:
    """All registers, uint16 each."""
    sources = list(values.sources.values())
    found = [LAYOUT, values.heartbeat & 0xFFFF, len(sources), int(values.is_ready)]
    for source in sources:
        found += [0] * (OF_A_SOURCE - (len(found) % OF_A_SOURCE or OF_A_SOURCE))
        found += _of_source(source)
    return found


def size_of(sources: int) -> int:
    """Number of registers with so many sources."""
    return OF_A_SOURCE * sources + _USED if sources else _HEADER


def _of_source(values: SourceValues) -> list[int]:
    bits = values.is_running * (1 << 3)
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
    return [*struct.unpack(f">{_OF_LAST}H", packed), *recent, *missing]


async def open_modbus(values: LineValues, host: str, port: int) -> "ModbusTcpServer":
    """Open the server, which answers on the running event loop. OSError where the port cannot be opened."""
    from pymodbus.constants import ExcCodes  # noqa: PLC0415
    from pymodbus.server import ModbusTcpServer  # noqa: PLC0415
    from pymodbus.simulator import DataType, SimData, SimDevice  # noqa: PLC0415

    async def answer(
        function: int,  # noqa: ARG001
        start: int,  # noqa: ARG001
        address: int,  # noqa: ARG001
        count: int,  # noqa: ARG001
        current: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if written is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        current[:] = registers(values)
        return None

    blocks = [SimData(0, count=size_of(len(values.sources)), values=0, datatype=DataType.REGISTERS)]
    device = SimDevice(id=0, simdata=blocks, use_bit_addressing=True, action=answer)
    server = ModbusTcpServer(device, address=(host, port))
    if not await server.listen():
        raise OSError("the port cannot be opened")
    return server
