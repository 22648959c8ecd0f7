"""A PLC or a SCADA system in a process of its own, which connects again whenever it must.

    clients.py modbus|opcua HOST PORT PAUSE     (PAUSE: seconds between two looks)

Prints a JSON list for each value that it sees: sequence, heartbeat, outcome.
"""

import asyncio
import json
import logging
import struct
import sys
import time

QUEUE = 50  # values that the server keeps for the subscription
OUTCOMES = ("normal", "warn", "reject", "not_scored", "none")


def show(sequence: int, heartbeat: int, outcome: str) -> None:
    """Print what was seen."""
    sys.stdout.write(f"{json.dumps([sequence, heartbeat, outcome])}\n")
    sys.stdout.flush()


def poll(host: str, port: int, pause: float) -> None:
    """Read registers."""
    from pymodbus.client import ModbusTcpClient
    from pymodbus.exceptions import ModbusException

    while True:
        client = ModbusTcpClient(host, port=port, timeout=1, retries=0)
        try:
            while client.connect():
                heartbeat = client.read_holding_registers(1, count=1).registers[0]
                found = client.read_holding_registers(100, count=6).registers
                (sequence,) = struct.unpack(">I", struct.pack(">2H", *found[4:]))
                show(sequence, heartbeat, OUTCOMES[found[1]])
                time.sleep(pause)
        except (ModbusException, OSError):
            pass
        client.close()
        time.sleep(0.1)


async def subscribe(host: str, port: int, pause: float) -> None:
    """Follow the results by a subscription; slowly, by reading them."""
    from asyncua.client.client import Client

    heartbeat = [0]

    class Handler:
        def datachange_notification(self, node: object, val: str, data: object) -> None:  # noqa: ARG002
            see(val)

    def see(result: str) -> None:
        found = json.loads(result)
        show(found["sequence"], heartbeat[0], found["verdict"])

    while True:
        try:
            async with Client(f"opc.tcp://{host}:{port}/msc-edge", timeout=2, watchdog_intervall=0.5) as client:
                space = await client.get_namespace_index("urn:msc-edge:vision")
                beat = client.get_node(f"ns={space};s=VisionSystem.Heartbeat")
                result = client.get_node(f"ns={space};s=VisionSystem.Sources.cam.Result")
                heartbeat[0] = await beat.read_value()
                if pause < 1:
                    subscription = await client.create_subscription(20, Handler())
                    await subscription.subscribe_data_change(result, queuesize=QUEUE)
                while True:
                    await asyncio.sleep(pause)
                    await client.check_connection()
                    heartbeat[0] = await beat.read_value()
                    if pause >= 1:
                        see(await result.read_value())
        except Exception:  # whatever a library raises when a network is lost
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    _, kind, host, port, pause = sys.argv
    logging.disable(logging.CRITICAL)
    if kind == "modbus":
        poll(host, int(port), float(pause))
    else:
        asyncio.run(subscribe(host, int(port), float(pause)))
