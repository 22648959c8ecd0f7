"""Triggers of a PLC: real clients, a real stream, and a camera whose parts the test changes."""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.client.client import Client
from pymodbus.client import ModbusTcpClient

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.line.opcua import NAMESPACE

TRIGGER, ANSWER, STATUS = 160, 161, 162  # registers of the first source
SCORED, TIMEOUT, BUSY = 2, 4, 6
ANSWERED = (102 * 16) + 4  # the coil


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def plc(port: int) -> Iterator[ModbusTcpClient]:
    """Connected by the first request."""
    client = ModbusTcpClient("127.0.0.1", port=port, timeout=5)
    yield client
    client.close()


def read(plc: ModbusTcpClient, address: int, count: int = 1) -> list[int]:
    return list(plc.read_holding_registers(address, count=count).registers)


def ask(plc: ModbusTcpClient, number: int, until: Callable[..., Any]) -> list[int]:
    """Write a trigger number; the registers of the source, once they have the answer to it."""
    assert not plc.write_register(TRIGGER, number).isError()

    def answered() -> list[int] | None:
        found = read(plc, 100, 63)
        return found if found[61] == number else None

    return until(answered, f"the answer to {number}")


def test_modbus_the_answer_number_is_the_trigger_number_when_the_values_belong_to_it(
    triggered: Callable[..., Any],
    plc: ModbusTcpClient,
    port: int,
    part_camera: Any,
    good_part: np.ndarray,
    stained_part: np.ndarray,
    until: Callable[..., Any],
) -> None:
    running = triggered("modbus", options={"line": {"modbus_port": port}})
    until(lambda: read(plc, 100) == [1], "running, though nothing was asked for")
    assert read(plc, 100, 63)[1:3] == [4, 0b1000]
    for number in (1, 2, 3, 65_535, 1):  # it begins again
        stained = number % 2 == 0
        part_camera.show(stained_part if stained else good_part)
        found = ask(plc, number, until)
        assert found[60:63] == [number, number, SCORED]
        assert (found[1] == 2) is stained
        assert found[2] & 0b11000 == 0b11000
        assert plc.read_coils(ANSWERED, count=1).bits[0] is True
    assert read(plc, 105) == [5], "five frames were scored, and no others"
    assert running.wait_for("reject")["trigger"] == "2"


def test_modbus_the_old_verdict_disappears_with_the_trigger_and_a_missing_frame_is_an_error(
    triggered: Callable[..., Any], plc: ModbusTcpClient, port: int, part_camera: Any, until: Callable[..., Any]
) -> None:
    triggered("modbus", timeout=1.5, options={"line": {"modbus_port": port}})
    ask(plc, 1, until)
    part_camera.stop_sending()
    plc.write_register(TRIGGER, 2)
    waiting = read(plc, 100, 63)
    assert waiting[1:3] == [4, 0b1000], "no verdict, and no bit of one"
    assert waiting[60:63] == [2, 0, 1]
    plc.write_register(TRIGGER, 3)
    assert read(plc, 100, 63)[60:63] == [3, 3, BUSY], "the second one while the first waits"
    until(lambda: read(plc, ANSWER, 2) == [2, TIMEOUT], "the first one has its answer")
    found = ask(plc, 4, until)
    assert found[60:63] == [4, 4, TIMEOUT]
    assert found[1:3] == [4, 0b1000]
    assert plc.read_coils(ANSWERED, count=1).bits[0] is False
    part_camera.send_again()
    numbers = itertools.count(5)
    until(lambda: ask(plc, next(numbers), until)[62] == SCORED, "parts are scored again")


def test_modbus_a_number_that_is_written_again_is_no_trigger(
    triggered: Callable[..., Any], plc: ModbusTcpClient, port: int, until: Callable[..., Any]
) -> None:
    """Many PLCs write all their registers in each cycle."""
    running = triggered("modbus", options={"line": {"modbus_port": port}})
    ask(plc, 7, until)
    for _ in range(5):
        plc.write_registers(TRIGGER, [7])
    plc.write_register(TRIGGER, 0)
    assert read(plc, 100, 63)[60:63] == [0, 7, SCORED]
    ask(plc, 7, until)
    until(lambda: running.stream._parts.statistics.frames == 2, "scored")


@pytest.mark.parametrize("by", ["modbus", "http"])
def test_modbus_other_registers_cannot_be_written(
    triggered: Callable[..., Any], plc: ModbusTcpClient, port: int, free_port: Callable[[], int], by: str
) -> None:
    triggered(by, port=free_port(), options={"line": {"modbus_port": port}})
    for address in (100, ANSWER, STATUS, 260, 0):
        assert plc.write_register(address, 1).isError()
    assert plc.write_registers(TRIGGER, [1, 1]).isError()
    assert plc.write_coil(TRIGGER * 16, True).isError()
    assert plc.write_register(TRIGGER, 1).isError() is (by == "http")


def test_opcua_the_answer_number_is_written_last(
    triggered: Callable[..., Any],
    port: int,
    part_camera: Any,
    good_part: np.ndarray,
    stained_part: np.ndarray,
) -> None:
    triggered("opcua", timeout=1.5, options={"line": {"opcua_port": port}})

    async def run() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{port}/msc-edge", timeout=20) as client:
            space = await client.get_namespace_index(NAMESPACE)

            def node(name: str) -> Any:
                return client.get_node(f"ns={space};s=VisionSystem.Sources.cam.{name}")

            async def ask(number: int) -> dict[str, Any]:
                await node("TriggerNumber").write_value(ua.Variant(number, ua.VariantType.UInt32))
                while await node("AnswerNumber").read_value() != number:
                    await asyncio.sleep(0.005)
                names = ("AnswerStatus", "Trigger", "Verdict", "Sequence", "Result")
                return {name: await node(name).read_value() for name in names}

            for number in (1, 2, 100_000):
                part_camera.show(stained_part if number == 2 else good_part)
                found = await ask(number)
                assert (found["AnswerStatus"], found["Trigger"]) == ("scored", str(number))
                assert (found["Verdict"] == "reject") is (number == 2)
                result = json.loads(found["Result"])
                assert (result["trigger"], result["answer"]) == (str(number), "scored")
            await node("TriggerNumber").write_value(ua.Variant(0, ua.VariantType.UInt32))
            assert await node("AnswerNumber").read_value() == 100_000
            await node("TriggerNumber").write_value(ua.Variant(100_000, ua.VariantType.UInt32))
            assert await node("AnswerNumber").read_value() == 0, "the same number again, and not the answer before"
            assert await node("Verdict").read_value() == "none"
            while await node("AnswerNumber").read_value() != 100_000:
                await asyncio.sleep(0.005)
            assert await node("Sequence").read_value() == 4, "four frames were scored, and no others"
            part_camera.stop_sending()
            found = await ask(4)
            assert (found["AnswerStatus"], found["Verdict"]) == ("timeout", "none")
            for wrong in ("5", ua.Variant(-5, ua.VariantType.Int32), ua.Variant([5, 6], ua.VariantType.UInt32)):
                with suppress(ua.UaError):
                    await node("TriggerNumber").write_value(wrong)
            assert await node("AnswerNumber").read_value() == 4, "no trigger"
            with pytest.raises(ua.UaError):
                await node("AnswerNumber").write_value(ua.Variant(5, ua.VariantType.UInt32))

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("by", ["modbus", "opcua"])
def test_without_its_port_the_configuration_is_refused(triggered: Callable[..., Any], by: str) -> None:
    with pytest.raises(UsageError, match=rf"{by} needs `{by}_port` in \[line\]"):
        triggered(by)
