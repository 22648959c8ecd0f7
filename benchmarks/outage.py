"""Outage of the MQTT broker and the webhook server for a minute: does every reject event arrive, and arrive once?

    python benchmarks/outage.py tests/assets/toy.kit ../shared/data/video/bottle-detection.mp4

The toy kit rejects every frame of the clip: 30 events per second, delivered over MQTT and to a webhook.
"""

import json
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from camera import Camera, Stream, free_port, wait_for
from common import parser_of
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

OUTAGE = 60.0  # seconds


def main() -> None:
    """Run the stream through an outage and print how many events are missing or delivered twice."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT", help="a kit that rejects every frame of the clip")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="the video of the camera")
    parser.add_argument("--outage", type=float, default=OUTAGE, metavar="SECONDS", help="default: %(default)s")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-outage-"))
    by_mqtt, by_http = [], []
    broker_port, server_port = free_port(), free_port()
    (folder / "broker.conf").write_text(
        f"listener {broker_port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
        f"persistence_location {folder}/\nmax_queued_messages 0\n"
    )

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            by_http.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    def start() -> tuple[subprocess.Popen[bytes], ThreadingHTTPServer]:
        broker = subprocess.Popen(["/usr/sbin/mosquitto", "-c", folder / "broker.conf"], stderr=subprocess.DEVNULL)
        server = ThreadingHTTPServer(("127.0.0.1", server_port), Hook)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return broker, server

    camera = Camera(options.clip)
    camera.start()
    broker, server = start()
    time.sleep(1)
    watcher = Client(CallbackAPIVersion.VERSION2, client_id="watcher", clean_session=False)

    def subscribe(client: Client, *_: object) -> None:
        client.subscribe("msc-edge/+/event/#", qos=1)

    watcher.on_connect = subscribe
    watcher.on_message = lambda *given: by_mqtt.append(json.loads(given[2].payload))
    watcher.reconnect_delay_set(1, 1)
    watcher.connect("127.0.0.1", broker_port)
    watcher.loop_start()
    more = ["--mqtt", f"127.0.0.1:{broker_port}", "--webhook", f"http://127.0.0.1:{server_port}/"]
    stream = Stream(options.kit, camera.url("clip"), *more, folder=folder)
    time.sleep(20)
    broker.terminate()
    broker.wait()
    server.shutdown()
    server.server_close()
    time.sleep(options.outage)
    broker, server = start()
    returned = time.monotonic()
    time.sleep(20)
    rejects = {event["id"] for event in stream.events("reject")}
    wait_for(
        lambda: all(rejects <= {event["id"] for event in received} for received in (by_mqtt, by_http)),
        "every reject event delivered",
    )
    seconds = time.monotonic() - returned
    print(f"{len(rejects)} rejects, outage of {options.outage:.0f} s; all delivered within {seconds:.0f} s of its end")
    stream.stop()
    expected = {event["id"] for event in stream.events("reject")}
    print_delivery("MQTT", expected, by_mqtt)
    print_delivery("webhook", expected, by_http)
    watcher.loop_stop()
    camera.kill()
    broker.kill()
    shutil.rmtree(folder)


def print_delivery(name: str, expected: set[str], received: list[dict[str, Any]]) -> None:
    """Print how many of the expected reject events are missing, and how many were delivered twice."""
    ids = [event["id"] for event in received if event["kind"] == "reject"]
    missing, twice = len(expected - set(ids)), len(ids) - len(set(ids))
    print(f"{name}: {missing} of {len(expected)} missing, {twice} delivered twice")


if __name__ == "__main__":
    main()
