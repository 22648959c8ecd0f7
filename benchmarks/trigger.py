"""Time from a trigger to its answer, by HTTP, MQTT, Modbus TCP and OPC UA, with a real camera and a real stream.

    python benchmarks/trigger.py KIT ../shared/data/video/bottle-detection.mp4 [--triggers 500]

The camera is an RTSP server, 640 x 360 at 30 frames a second. For each way of asking, `msc-edge stream` runs in a
process of its own, as at a line. A client on the same PC sends a trigger, waits for its answer, and sends the next one
at a random moment 50 to 150 ms later. A trigger waits for the next frame of the camera, 0 to 33 ms; then the frame is
scored, and the answer travels. Printed for each way: all of it as the client sees it, and its parts: the wait for the
frame, capture to decision, and the rest, which is what the way of asking costs.
"""

import argparse
import asyncio
import itertools
import json
import random
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import tomli_w
from camera import Camera, Stream, free_port, wait_for
from common import parser_of

SOURCE, STATION = "cam", "benchmark"


@dataclass
class Asked:
    """Times of one trigger, `time.time()`."""

    id: str
    sent: float
    answered: float


Ask = Callable[[str], None]
"""Send a trigger with this id, and return when its answer is there. RuntimeError for an answer without a verdict."""


@contextmanager
def by_http(ports: dict[str, int]) -> Iterator[Ask]:
    """A program that sends a request for each part."""

    def ask(id: str) -> None:
        body = json.dumps({"id": id}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['http']}/trigger", body, timeout=20) as response:
            check(json.loads(response.read())["status"])

    yield ask


@contextmanager
def by_mqtt(ports: dict[str, int]) -> Iterator[Ask]:
    """A program with a connection to the broker."""
    from paho.mqtt.client import Client  # noqa: PLC0415
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

    client, arrived, last = Client(CallbackAPIVersion.VERSION2, client_id="asker"), threading.Event(), [""]

    def receive(*given: object) -> None:
        last[0] = json.loads(given[2].payload)["status"]  # pyright: ignore[reportAttributeAccessIssue]
        arrived.set()

    client.on_message = receive
    client.connect("127.0.0.1", ports["mqtt"])
    client.subscribe(f"msc-edge/{STATION}/answer", qos=1)
    client.loop_start()

    def ask(id: str) -> None:
        arrived.clear()
        client.publish(f"msc-edge/{STATION}/trigger", json.dumps({"id": id}), qos=1)
        assert arrived.wait(20)
        check(last[0])

    yield ask
    client.disconnect()
    client.loop_stop()


@contextmanager
def by_modbus(ports: dict[str, int]) -> Iterator[Ask]:
    """A PLC that reads the answer number every 2 ms."""
    from pymodbus.client import ModbusTcpClient  # noqa: PLC0415

    client = ModbusTcpClient("127.0.0.1", port=ports["modbus"])
    client.connect()

    def ask(id: str) -> None:
        client.write_register(160, int(id))
        while (found := client.read_holding_registers(100, count=63).registers)[61] != int(id):
            time.sleep(0.002)
        check("scored" if found[62] == 2 else f"status {found[62]}")

    yield ask
    client.close()


@contextmanager
def by_opcua(ports: dict[str, int]) -> Iterator[Ask]:
    """A client that subscribes to the answer number, every 2 ms."""
    from asyncua import ua  # noqa: PLC0415
    from asyncua.client.client import Client  # noqa: PLC0415

    loop, last = asyncio.new_event_loop(), [0]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    client = Client(f"opc.tcp://127.0.0.1:{ports['opcua']}/msc-edge", timeout=20)
    arrived: asyncio.Event | None = None

    class Handler:
        def datachange_notification(self, node: object, val: int, data: object) -> None:  # noqa: ARG002
            last[0] = val
            if arrived:
                arrived.set()

    async def connect() -> tuple[object, object]:
        nonlocal arrived
        arrived = asyncio.Event()
        await client.connect()
        space = await client.get_namespace_index("urn:msc-edge:vision")
        place = f"ns={space};s=VisionSystem.Sources.{SOURCE}"
        subscription = await client.create_subscription(2, Handler())  # pyright: ignore[reportArgumentType]
        await subscription.subscribe_data_change(client.get_node(f"{place}.AnswerNumber"))
        return client.get_node(f"{place}.TriggerNumber"), client.get_node(f"{place}.AnswerStatus")

    def wait(work: object) -> object:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)  # pyright: ignore[reportArgumentType]

    trigger, status = wait(connect())  # pyright: ignore[reportGeneralTypeIssues]

    async def send(id: str) -> None:
        assert arrived
        await trigger.write_value(ua.Variant(int(id), ua.VariantType.UInt32))
        while last[0] != int(id):
            arrived.clear()
            await asyncio.wait_for(arrived.wait(), 20)
        check(await status.read_value())

    yield lambda id: wait(send(id))  # pyright: ignore[reportReturnType]
    wait(client.disconnect())
    loop.call_soon_threadsafe(loop.stop)


WAYS = {"http": by_http, "mqtt": by_mqtt, "modbus": by_modbus, "opcua": by_opcua}
NODELAY = "mqtt, broker with set_tcp_nodelay"


def check(status: str) -> None:
    """RuntimeError for an answer that is not a verdict."""
    if status != "scored":
        raise RuntimeError(f"the answer to a trigger was {status}")


def config_of(way: str, kit: Path, camera: Camera, ports: dict[str, int], folder: Path) -> Path:
    """The configuration of the stream, as a file."""
    options = {
        "kit": str(kit.resolve()),
        "station": STATION,
        "source": [{"name": SOURCE, "address": camera.url("clip")}],
        "trigger": {"by": way, "port": ports["http"], "timeout": 20},
        "http": {"port": ports["status"]},
        "mqtt": {"host": "127.0.0.1", "port": ports["mqtt"]} if way == "mqtt" else {},
        "line": {f"{way}_port": ports[way]} if way in ("modbus", "opcua") else {},
    }
    path = folder / "line.toml"
    path.write_text(tomli_w.dumps(options))
    return path


def is_ready(port: int) -> bool:
    """Whether frames of the camera arrive, and triggers can."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def measure(name: str, kit: Path, camera: Camera, triggers: int) -> None:
    """Run a stream and a client, and print a row of the table."""
    way = name.partition(",")[0]
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-trigger-"))
    ports = {name: free_port() for name in ("http", "mqtt", "modbus", "opcua", "status")}
    conf = folder / "broker.conf"
    nodelay = str(name == NODELAY).lower()
    conf.write_text(f"listener {ports['mqtt']} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay {nodelay}\n")
    broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", conf], stderr=subprocess.DEVNULL)
    stream = Stream(kit, "--config", config_of(way, kit, camera, ports, folder), folder=folder)
    wait_for(lambda: is_ready(ports["status"]), "the stream is ready")
    asked, moments = [], random.Random(0)
    with WAYS[way](ports) as ask:
        for number in itertools.count(1):
            time.sleep(moments.uniform(0.05, 0.15))
            sent = time.time()
            ask(str(number))
            asked.append(Asked(str(number), sent, time.time()))
            if number == triggers:
                break
    wait_for(lambda: len(stream.rows()) >= triggers, "all rows")
    rows = {row["trigger"]: row for row in stream.rows()}
    assert len(stream.rows()) == triggers, "only what was asked for is scored"
    stream.stop()
    broker.kill()
    shutil.rmtree(folder)
    whole = [1000 * (each.answered - each.sent) for each in asked]
    waited = [1000 * (datetime.fromisoformat(rows[each.id]["time"]).timestamp() - each.sent) for each in asked]
    scored = [rows[each.id]["total_ms"] for each in asked]
    rest = [a - b - c for a, b, c in zip(whole, waited, scored, strict=True)]
    parts = (f"{np.percentile(each, 50):.1f} | {np.percentile(each, 99):.1f}" for each in (whole, waited, scored, rest))
    print(f"| {name} | {len(asked)} | {' | '.join(parts)} |", flush=True)


def main() -> None:
    """Measure each way of asking and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="the video of the camera")
    parser.add_argument("--triggers", type=int, default=500, help="for each way; default: %(default)s")
    options: argparse.Namespace = parser.parse_args()
    camera = Camera(options.clip)
    camera.start()
    columns = ["asked by", "triggers"]
    for name in ("trigger to answer", "wait for the frame", "capture to decision", "rest"):
        columns += [f"{name}, median, ms", "99 %"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    try:
        for name in ("http", "mqtt", NODELAY, "modbus", "opcua"):
            measure(name, options.kit, camera, options.triggers)
    finally:
        camera.kill()


if __name__ == "__main__":
    main()
