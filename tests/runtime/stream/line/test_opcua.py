"""The variables, read by a real client from a real server."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client

from msc_edge.errors import UsageError
from msc_edge.runtime.stream.config_sections import LineConfig
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.line.opcua import NAMESPACE
from msc_edge.runtime.stream.line.servers import LineServers
from msc_edge.runtime.stream.line.values import LineValues

TIMEOUT = 20.0


@pytest.fixture(scope="module")
def values() -> LineValues:
    """Of a stream whose watch stands still; each test has a source of its own."""
    return LineValues(["cam", "second.one", "followed"])


@pytest.fixture(scope="module")
def port(values: LineValues, free_port: Callable[[], int]) -> Iterator[int]:
    """The port of an open server."""
    opened = LineServers(LineConfig(opcua_port=(port := free_port())), values, station="line-3")
    yield port
    opened.close()


class Heard:
    """Collects the values of a subscription."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def datachange_notification(self, node: object, value: Any, data: object) -> None:  # noqa: ARG002
        self.values.append(value)


def with_client(port: int, work: Callable[[Client, Callable[[str], Any]], Any]) -> None:
    async def run() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{port}/msc-edge", timeout=TIMEOUT) as client:
            space = await client.get_namespace_index(NAMESPACE)
            await work(client, lambda place: client.get_node(f"ns={space};s=VisionSystem.{place}"))

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(int(TIMEOUT / 0.01)):
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen")


def test_the_variables_are_those_of_the_last_decision(
    port: int, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    async def work(_: Client, node: Callable[[str], Any]) -> None:
        assert await node("Station").read_value() == "line-3"
        assert await node("Sources.cam.Verdict").read_value() == "none"
        values.publish(decision_of("cam", "reject", score=1.75))
        values.publish(decision_of("second.one", None))
        await until(lambda: is_at(node("Sources.second.one.Sequence"), 1))
        found = {
            name: await node(f"Sources.cam.{name}").read_value() for name in ("Verdict", "Score", "Limit", "Reject")
        }
        assert found == {"Verdict": "reject", "Score": 1.75, "Limit": 1.0, "Reject": 1}
        assert await node("Sources.cam.VerdictNumber").read_value() == 2
        assert (await node("Sources.cam.Captured").read_value()).isoformat() == "2026-11-30T23:59:59.250000+00:00"
        assert json.loads(await node("Sources.second.one.Result").read_value())["score"] is None
        names = [(await child.read_browse_name()).Name for child in await node("Sources").get_children()]
        assert names == ["cam", "second.one", "followed"]
        with pytest.raises(ua.UaError):
            await node("Sources.cam.Verdict").write_value("normal")

    with_client(port, work)


async def is_at(node: Any, value: object) -> bool:
    return await node.read_value() == value


def test_a_subscriber_gets_each_decision_once_and_in_order(
    port: int, values: LineValues, decision_of: Callable[..., Decision]
) -> None:
    async def work(client: Client, node: Callable[[str], Any]) -> None:
        heard = Heard()
        subscription = await client.create_subscription(20, heard)  # pyright: ignore[reportArgumentType]
        await subscription.subscribe_data_change(node("Sources.followed.Result"), queuesize=1000)
        await until(lambda: heard.values)
        for number in range(1, 301):
            values.publish(decision_of("followed", "warn", score=float(number)))
            if number % 10 == 0:
                await asyncio.sleep(0.005)
        await until(lambda: len(heard.values) == 301)
        found = [json.loads(value) for value in heard.values[1:]]
        assert [each["sequence"] for each in found] == list(range(1, 301))
        assert [each["score"] for each in found] == [float(number) for number in range(1, 301)]

    with_client(port, work)


def test_the_heartbeat_is_that_of_the_watch(port: int, values: LineValues) -> None:
    async def work(_: Client, node: Callable[[str], Any]) -> None:
        for number in (1, 2):
            values.beat({"cam": "no_frames"}, ready=number == 2)
            await until(lambda number=number: is_at(node("Heartbeat"), number))
        await until(lambda: is_at(node("Ready"), True))
        assert await node("Sources.cam.State").read_value() == "no_frames"
        await asyncio.sleep(0.6)
        assert await node("Heartbeat").read_value() == 2, "it stands still with the watch"

    with_client(port, work)


def test_a_port_in_use_is_a_usage_error(port: int, values: LineValues) -> None:
    with pytest.raises(UsageError, match="choose another `opcua_port`"):
        LineServers(LineConfig(opcua_port=port), values, station="line-3")
