"""Decisions that machines receive: 10,000 at 30 a second, by Modbus TCP and OPC UA, with clients that fail meanwhile.

    python benchmarks/machine.py [--decisions 10000] [--rate 30]

The decisions are shown as a stream shows them. One client polls Modbus TCP every 5 ms, one subscribes to OPC UA; both
count the decisions they miss, and the milliseconds from the decision to its arrival (one PC, one clock). After a
quarter of the time a further client of each kind is stopped in the middle of its work (SIGSTOP), after the half a third
one is killed. Printed: counts, delays, and how long showing a decision took, which is all that a frame ever waits for.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import os
import signal
import socket
import struct
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import numpy as np
from common import parser_of

from msc_edge.runtime.results.result import Result
from msc_edge.runtime.stream.config_sections import LineConfig
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.line.servers import LineServers
from msc_edge.runtime.stream.line.values import LineValues

SOURCE = "cam"
_PATIENCE = 5.0  # seconds without a decision after which a client gives up


def decision_of(number: int) -> Decision:
    """A decision that is captured now."""
    frame = Frame(SOURCE, number, datetime.now(UTC), time.monotonic(), None)
    score, verdict = float(number), ("normal", "warn", "reject")[number % 3]
    parts = {"image_score": score, "patch_score": None, "p_value": 0.5, "regions": (), "nearest_images": ()}
    result = Result(score=score, verdict=verdict, limit=1.0, model="fp32", kit="0" * 64, **parts)  # pyright: ignore[reportArgumentType]
    return Decision(str(number), frame, result, Stages(0.0, 0.0, 0.0, 0.0))


def poll(port: int, told: Connection) -> None:
    """A PLC: reads all registers of the source every 5 ms, and keeps number and delay of each new decision.

    A decision that another one has replaced meanwhile is found among the last 16, with the delay of that one.
    """
    from pymodbus.client import ModbusTcpClient  # noqa: PLC0415

    client, found, last = ModbusTcpClient("127.0.0.1", port=port), [], time.monotonic()
    client.connect()
    told.send("ready")
    while time.monotonic() - last < _PATIENCE:
        registers = client.read_holding_registers(100, count=60).registers
        packed = struct.pack(">28H", *registers[:28])
        (sequence,), (captured,) = struct.unpack_from(">I", packed, 8), struct.unpack_from(">Q", packed, 24)
        if sequence and (not found or found[-1][0] != sequence):
            delay, before = 1000 * time.time() - captured, found[-1][0] if found else 0
            held = {number for number in registers[28::2] if before < number <= sequence}  # below 65,536 here
            found += [(number, delay) for number in sorted(held)]
            last = time.monotonic()
        elif not found:
            last = time.monotonic()
        time.sleep(0.005)
    told.send(found)


def subscribe(port: int, told: Connection) -> None:
    """A SCADA system: subscribes to each decision."""
    import asyncio  # noqa: PLC0415

    from asyncua.client.client import Client  # noqa: PLC0415

    found: list[tuple[int, float]] = []
    last = [time.monotonic()]

    class Handler:
        def datachange_notification(self, node: object, val: str, data: object) -> None:  # noqa: ARG002
            result = json.loads(val)
            if result["sequence"]:
                delay = time.time() - datetime.fromisoformat(result["captured"]).timestamp()
                found.append((result["sequence"], 1000 * delay))
                last[0] = time.monotonic()

    logging.getLogger("asyncua").setLevel(logging.ERROR)

    async def run() -> None:
        async with Client(f"opc.tcp://127.0.0.1:{port}/msc-edge", timeout=20) as client:
            space = await client.get_namespace_index("urn:msc-edge:vision")
            subscription = await client.create_subscription(10, Handler())  # pyright: ignore[reportArgumentType]
            node = client.get_node(f"ns={space};s=VisionSystem.Sources.{SOURCE}.Result")
            await subscription.subscribe_data_change(node, queuesize=1000)
            told.send("ready")
            while not found or time.monotonic() - last[0] < _PATIENCE:
                await asyncio.sleep(0.1)

    asyncio.run(run())
    told.send(found)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def show(name: str, found: list[tuple[int, float]], decisions: int) -> None:
    """Print a row of the table."""
    numbers, delays = [number for number, _ in found], np.array([delay for _, delay in found])
    missed = decisions - len(set(numbers))
    disordered = sum(after <= before for before, after in itertools.pairwise(numbers))
    p50, p99, most = np.percentile(delays, [50, 99, 100])
    print(f"| {name} | {len(numbers)} | {missed} | {disordered} | {p50:.1f} | {p99:.1f} | {most:.1f} |", flush=True)


def main() -> None:
    """Show the decisions and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--decisions", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=30.0, help="decisions a second; default: %(default)s")
    options: argparse.Namespace = parser.parse_args()
    values = LineValues([SOURCE])
    ports = {"Modbus TCP, polled": free_port(), "OPC UA, subscribed": free_port()}
    modbus, opcua = ports.values()
    servers = LineServers(LineConfig(modbus_port=modbus, opcua_port=opcua), values, station="benchmark")
    context = multiprocessing.get_context("spawn")
    clients, others = [], []
    for work, port in zip((poll, subscribe), ports.values(), strict=True):
        for kept in (clients, others, others):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(port, sender), daemon=True)
            process.start()
            assert receiver.recv() == "ready"
            kept.append((process, receiver))
    took, begin = [], time.monotonic()
    for number in range(1, options.decisions + 1):
        time.sleep(max(0.0, begin + number / options.rate - time.monotonic()))
        if number in (options.decisions // 4, options.decisions // 2):
            for process, _ in others[number == options.decisions // 2 :: 2]:
                os.kill(process.pid, signal.SIGSTOP if number == options.decisions // 4 else signal.SIGKILL)
        decision, start = decision_of(number), time.perf_counter()
        values.publish(decision)
        took.append(1e6 * (time.perf_counter() - start))
        if number % 8 == 0:
            values.beat({SOURCE: "running"}, ready=True)
    columns = ("client", "decisions", "missed", "out of order", "delay, median, ms", "99 %", "largest")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, (_, receiver) in zip(ports, clients, strict=True):
        show(name, receiver.recv(), options.decisions)
    p50, p99, most = np.percentile(took, [50, 99, 100])
    print(f"\nshowing a decision took {p50:.0f} µs in the median, {p99:.0f} µs at 99 %, {most:.0f} µs at most")
    for process, _ in others:
        process.kill()
    servers.close()


if __name__ == "__main__":
    main()
