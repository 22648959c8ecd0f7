"""The registers, read by a real client from a real server."""

import asyncio
import struct
from collections.abc import Callable, Iterator

import pytest
from pymodbus.client import ModbusTcpClient

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import LineConfig
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.line.modbus import OF_A_SOURCE, registers
from msc_edge.runtime.stream.line.servers import LineServers
from msc_edge.runtime.stream.line.values import LineValues

TABLE = struct.Struct(">HHHHIfffQIIII8s")


@pytest.fixture
def values() -> LineValues:
    return LineValues(["cam", "other"])


@pytest.fixture
def port(values: LineValues, free_port: Callable[[], int]) -> Iterator[int]:
    """The port of an open server."""
    opened = LineServers(LineConfig(modbus_port=(port := free_port())), values, station="line-3")
    yield port
    opened.close()


@pytest.fixture
def client(port: int) -> Iterator[ModbusTcpClient]:
    connected = ModbusTcpClient("127.0.0.1", port=port, timeout=5)
    assert connected.connect()
    yield connected
    connected.close()


def table_of(client: ModbusTcpClient, source: int) -> tuple:
    found = client.read_holding_registers(OF_A_SOURCE * source, count=TABLE.size // 2)
    return TABLE.unpack(struct.pack(f">{TABLE.size // 2}H", *found.registers))


def test_the_registers_of_a_source_are_those_of_its_last_decision(
    client: ModbusTcpClient, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    assert table_of(client, 1)[:5] == (0, 4, 0, 0, 0), "waiting, no outcome, no bit"
    values.publish(decision_of("cam", "normal"))
    values.publish(decision_of("cam", "reject", score=1.75))
    state, outcome, bits, _, sequence, score, limit, milliseconds, captured, *counts, kit = table_of(client, 1)
    assert (state, outcome, bits, sequence) == (1, 2, 0b1100, 2)
    assert (score, limit, milliseconds) == (1.75, 1.0, 6.5)
    assert captured == 1_796_083_199_250
    assert counts == [1, 0, 1, 0]
    assert kit.hex() == "0123456789abcdef"
    assert table_of(client, 2)[4] == 0


def test_input_registers_and_bits_show_the_same(
    client: ModbusTcpClient, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    values.publish(decision_of("cam", "warn"))
    own = client.read_holding_registers(100, count=28).registers
    assert client.read_input_registers(100, count=28).registers == own
    for read in (client.read_coils, client.read_discrete_inputs):
        assert read((OF_A_SOURCE + 2) * 16, count=4).bits[:4] == [False, True, False, True]
    values.beat({"cam": "no_frames"}, ready=False)
    assert client.read_coils((OF_A_SOURCE + 2) * 16, count=4).bits[:4] == [False] * 4, "an old verdict is no verdict"


def test_the_header_has_the_heartbeat(client: ModbusTcpClient, values: LineValues) -> None:
    assert client.read_holding_registers(0, count=4).registers == [1, 0, 2, 0]
    for _ in range(3):
        values.beat({}, ready=True)
    assert client.read_holding_registers(0, count=4).registers == [1, 3, 2, 1]


def test_values_that_do_not_fit_wrap(values: LineValues) -> None:
    for _ in range(65_537):
        values.beat({}, ready=True)
    assert registers(values)[1] == 1


def test_writing_and_other_registers_are_refused(client: ModbusTcpClient) -> None:
    assert client.write_register(100, 1).isError()
    assert client.write_coil(1600, True).isError()
    assert client.read_holding_registers(263, count=1).isError()
    assert client.read_holding_registers(258, count=2).registers == [0, 4]


def test_a_client_that_polls_sees_every_decision_once_and_in_order(
    client: ModbusTcpClient, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    """Each number comes with the score of its own decision: no answer mixes two of them."""
    for number in range(1, 301):
        values.publish(decision_of("other", ("normal", "warn", "reject")[number % 3], score=float(number)))
        found = table_of(client, 2)
        assert (found[4], found[5], found[1]) == (number, float(number), number % 3)


def test_a_client_that_polls_late_finds_the_decisions_before(
    client: ModbusTcpClient, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    for number in range(1, 21):
        values.publish(decision_of("cam", ("normal", "warn", "reject")[number % 3]))
        found = client.read_holding_registers(128, count=32).registers
        pairs = list(zip(found[::2], found[1::2], strict=True))
        expected = [(each, each % 3) for each in range(number, max(0, number - 16), -1)]
        assert pairs == expected + [(0, 4)] * (16 - len(expected))


def test_broken_requests_do_not_stop_the_server(client: ModbusTcpClient, port: int) -> None:
    async def send(content: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(content)
        await writer.drain()
        writer.transport.abort()

    for content in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 3000, b"\0\1\0\0\0\6\1\x99\0\0\0\1", b""):
        asyncio.run(send(content))
    assert client.read_holding_registers(0, count=1).registers == [1]


def test_a_port_in_use_is_a_usage_error(port: int, values: LineValues) -> None:
    with pytest.raises(
        UsageError, match=r"port \d+ of 127\.0\.0\.1 cannot be opened: .*; choose another `modbus_port`"
    ):
        LineServers(LineConfig(modbus_port=port), values, station="line-3")
