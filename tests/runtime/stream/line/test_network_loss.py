"""Clients that die, networks that go down and machines that are slow: decisions go on, and nothing piles up.

The clients are processes of their own, in the last tests in a network of their own, whose cable is pulled.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua

from msc_edge.runtime.stream.config_sections import LineConfig
from msc_edge.runtime.stream.frame import Decision
from msc_edge.runtime.stream.line.servers import LineServers
from msc_edge.runtime.stream.line.values import RECENT, LineValues, SourceValues

CLIENTS = Path(__file__).with_name("clients.py")
QUEUE = 50  # values that the OPC UA client lets the server keep for it, as in clients.py


class Client:
    """A process that prints what it sees, a JSON list a line: [sequence, heartbeat, outcome]."""

    def __init__(self, kind: str, host: str, port: int, *, pause: float = 0.01, inside: list[str] | None = None):
        command = [*(inside or []), sys.executable, str(CLIENTS), kind, host, str(port), str(pause)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.seen: list[tuple[int, int, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.seen.append(tuple(json.loads(line)))

    @property
    def sequences(self) -> list[int]:
        return [sequence for sequence, _, _ in list(self.seen)]

    @property
    def last(self) -> tuple[int, int, str]:
        return self.seen[-1] if self.seen else (0, 0, "")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_client() -> Iterator[Callable[..., Client]]:
    started: list[Client] = []

    def start(*given: Any, **options: Any) -> Client:
        started.append(Client(*given, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@dataclass
class Line:
    """An open server, and a worker that makes a decision every 5 ms, and a beat after each 20."""

    values: LineValues
    port: int
    decision_of: Callable[..., Decision]
    published: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        while not self._stopped.wait(0.005):
            self.published += 1
            self.values.publish(self.decision_of("cam", ("normal", "warn", "reject")[self.published % 3]))
            if self.published % 20 == 0:
                self.values.beat({"cam": "running"}, ready=True)

    def stop(self) -> None:
        self._stopped.set()


@pytest.fixture
def open_line(
    decision_of: Callable[..., Decision], free_port: Callable[[], int], request: pytest.FixtureRequest
) -> Callable[..., Line]:
    def start(kind: str, host: str = "127.0.0.1") -> Line:
        line = Line(LineValues(["cam"]), free_port(), decision_of)
        config = LineConfig.model_validate({"host": host, f"{kind}_port": line.port})
        servers = LineServers(config, line.values, station="line-3")
        request.addfinalizer(servers.close)
        worker = threading.Thread(target=line.work)
        worker.start()
        request.addfinalizer(worker.join)
        request.addfinalizer(line.stop)
        return line

    return start


def assert_in_order(client: Client) -> None:
    """A client may see a decision twice, never an earlier one after it; the outcome is that of its number."""
    sequences = client.sequences
    assert sequences == sorted(sequences)
    assert all(outcome == ("normal", "warn", "reject")[number % 3] for number, _, outcome in client.seen if number)


def objects_of(*kinds: type) -> int:
    gc.collect()
    return sum(isinstance(each, kinds) for each in gc.get_objects())


@pytest.mark.parametrize("kind", ["modbus", "opcua"])
def test_a_client_that_is_killed_stops_nothing_and_sees_the_latest_value_when_it_is_back(
    open_line: Callable[..., Line], start_client: Callable[..., Client], until: Callable[..., Any], kind: str
) -> None:
    line = open_line(kind)
    other, killed = (start_client(kind, "127.0.0.1", line.port) for _ in range(2))
    until(lambda: other.last[0] and killed.last[0], "both see decisions")
    before = killed.last
    killed.kill()
    until(lambda: line.published > before[0] + 200, "decisions go on")
    until(lambda: other.last[0] > before[0] + 200, "the other client sees them")
    published = line.published
    again = start_client(kind, "127.0.0.1", line.port)
    until(lambda: again.last[0] > published, "the latest values")
    assert again.sequences[0] >= published, "no old one before"
    assert again.last[1] > before[1], "the heartbeat went on"
    for client in (other, killed, again):
        assert_in_order(client)


@pytest.mark.parametrize("kind", ["modbus", "opcua"])
def test_a_machine_that_reads_one_value_a_second_sees_the_latest_decision(
    open_line: Callable[..., Line], start_client: Callable[..., Client], until: Callable[..., Any], kind: str
) -> None:
    line = open_line(kind)
    slow = start_client(kind, "127.0.0.1", line.port, pause=1.0)
    for _ in range(2):
        published, count = line.published, len(slow.seen)
        until(lambda count=count: len(slow.seen) > count + 1, "two more values")
        assert slow.last[0] > published
    assert_in_order(slow)
    assert_nothing_piles_up()


def assert_nothing_piles_up() -> None:
    """Of hundreds of decisions at most the last ones of a subscription, and what is being written, are kept."""
    assert objects_of(SourceValues) < QUEUE
    assert objects_of(ua.MonitoredItemNotification) < 10 * QUEUE


@dataclass
class Network:
    """A network namespace with one cable to this one."""

    name: str
    host: str
    """The address of this end."""

    @property
    def inside(self) -> list[str]:
        """Begins a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def cable(self, state: str) -> None:
        """Pull it, `down`, or plug it in, `up`."""
        run("ip", "-n", self.name, "link", "set", self.name, state)
        if state == "up":
            run("ip", "-n", self.name, "link", "set", "lo", "up")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[Network]:
    number = os.getpid()
    name, near = f"msc{number}", f"mscn{number}"
    # Of the addresses for benchmarks (RFC 2544): tests may run beside each other.
    net = f"198.18.{number % 251}.{number % 63 * 4}".rsplit(".", 1)
    first = int(net[1])
    host, there = (f"{net[0]}.{first + end}" for end in (1, 2))
    can = shutil.which("ip") and os.name == "posix" and os.geteuid() == 0
    if not can or subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here (root on Linux can, with iproute2)")
    try:
        run("ip", "link", "add", near, "type", "veth", "peer", "name", name, "netns", name)
        run("ip", "address", "add", f"{host}/30", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "address", "add", f"{there}/30", "dev", name)
        network = Network(name, host)
        network.cable("up")
        yield network
    finally:
        # With the namespace the cable would go some time later, and the next test could not make it again.
        subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
        run("ip", "netns", "delete", name)


@pytest.mark.parametrize("kind", ["modbus", "opcua"])
def test_a_network_that_goes_down_stops_nothing_and_the_client_sees_the_latest_value_afterwards(
    open_line: Callable[..., Line],
    network: Network,
    start_client: Callable[..., Client],
    until: Callable[..., Any],
    kind: str,
) -> None:
    line = open_line(kind, network.host)
    client = start_client(kind, network.host, line.port, inside=network.inside)
    until(lambda: client.last[0], "decisions arrive by the cable")
    network.cable("down")
    cut = line.published
    until(lambda: line.published > cut + 700, "decisions go on")
    assert client.last[0] <= cut, "nothing arrives"
    assert_nothing_piles_up()
    network.cable("up")
    published = line.published
    until(lambda: client.last[0] > published, "the latest values")
    assert client.last[1] >= published // 20, "and the heartbeat"
    assert_in_order(client)
    assert_nothing_piles_up()


def test_frames_are_scored_while_the_network_of_the_machine_is_down(
    camera: Any,
    in_process: Callable[..., Any],
    network: Network,
    start_client: Callable[..., Client],
    free_port: Callable[[], int],
    until: Callable[..., Any],
) -> None:
    ports = {"modbus": free_port(), "opcua": free_port()}
    line = {"host": network.host, **{f"{kind}_port": port for kind, port in ports.items()}}
    running = in_process(source=[{"address": camera.url(), "name": "cam"}], line=line)
    statistics = running.stream._parts.statistics
    clients = [start_client(kind, network.host, port, inside=network.inside) for kind, port in ports.items()]
    until(lambda: all(each.last[0] for each in clients), "both see decisions")
    network.cable("down")
    cut = statistics.frames
    until(lambda: statistics.frames > cut + 60, "frames are scored")
    assert running.stream.not_ready() == []
    network.cable("up")
    scored = statistics.frames
    until(lambda: all(each.last[0] > scored for each in clients), "both see the latest decisions")
    for each in clients:
        assert each.sequences == sorted(each.sequences)
    assert len(running.stream._parts.line.sources["cam"].recent) == RECENT
