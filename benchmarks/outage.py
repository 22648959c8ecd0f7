"""A broker and a server that are away for a minute, under load: does every reject arrive, and once?

    python benchmarks/outage.py tests/assets/toy.kit ../shared/data/video/bottle-detection.mp4

The toy kit rejects every frame of the clip: 30 events a second, for MQTT and for a webhook.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from camera import Camera, Stream, free_port, wait_for
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

AWAY = 60.0


def main() -> None:
    """Run it and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("clip", type=Path)
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
    time.sleep(AWAY)
    broker, server = start()
    back = time.monotonic()
    time.sleep(20)
    rejects = {event["id"] for event in stream.events("reject")}
    wait_for(lambda: rejects <= {event["id"] for event in by_mqtt} and rejects <= {event["id"] for event in by_http})
    seconds = time.monotonic() - back
    print(f"{len(rejects)} rejects, {AWAY:.0f} s away; all there {seconds:.0f} s after the return, or sooner")
    stream.stop()
    for name, received in (("MQTT", by_mqtt), ("webhook", by_http)):
        ids = [event["id"] for event in received if event["kind"] == "reject"]
        owed = {event["id"] for event in stream.events("reject")}
        print(f"{name}: {len(owed - set(ids))} of {len(owed)} missing, {len(ids) - len(set(ids))} came twice")
    watcher.loop_stop()
    camera.kill()
    broker.kill()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
