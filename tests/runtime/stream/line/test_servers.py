"""A stream with a real camera, watched by a machine."""

from collections.abc import Callable
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from msc_edge.errors import UsageError


def test_a_machine_sees_frames_their_loss_and_their_return(
    own_camera: Any, in_process: Callable[..., Any], free_port: Callable[[], int], until: Callable[..., Any]
) -> None:
    port = free_port()
    options = {
        "line": {"modbus_port": port},
        "source": [{"address": own_camera.url(), "name": "cam", "lost_after": 1.5}],
    }
    running = in_process(**options)
    client = ModbusTcpClient("127.0.0.1", port=port, timeout=5)
    assert client.connect()

    def read(address: int, count: int = 1) -> list[int]:
        return list(client.read_holding_registers(address, count=count).registers)

    until(lambda: read(100) == [1], "the source runs")
    first = read(104, 2)
    until(lambda: read(104, 2) > first, "further decisions")
    assert any(client.read_coils(102 * 16, count=3).bits[:3])

    own_camera.kill()
    until(lambda: read(100) == [2], "no frames come")
    assert client.read_coils(102 * 16, count=4).bits[:4] == [False] * 4, "silence is not a good part"
    heartbeat, last = read(1), read(104, 2)
    until(lambda: read(1) != heartbeat, "the stream is alive")
    assert read(104, 2) == last

    own_camera.start()
    until(lambda: read(100) == [1] and read(104, 2) > last, "frames are scored again")
    client.close()
    running.stop()
    again = ModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0)
    assert not again.connect(), "a stream that has ended answers nothing"


def test_a_port_that_is_taken_ends_the_start(
    in_process: Callable[..., Any], tmp_path: Any, free_port: Callable[[], int]
) -> None:
    (tmp_path / "in").mkdir()
    port = free_port()
    in_process(tmp_path / "in", line={"modbus_port": port})
    with pytest.raises(UsageError, match="choose another `modbus_port`"):
        in_process(tmp_path / "in", line={"modbus_port": port}, state=str(tmp_path / "other"))
