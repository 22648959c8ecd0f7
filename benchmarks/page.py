"""A stream with its page: does it delay frames? Milliseconds from capture to decision, with and without viewers.

    python benchmarks/page.py KIT IMAGES [--rate 10] [--seconds 30] [--rounds 5]

A camera sends the images of a folder by HTTP. Each round measures five conditions in turns: without the page; with it
and no viewer; 20 viewers, each of whom loads the state and the frame twice a second, as the script of the page does; a
flood of 1000 requests a second on 32 connections; and that flood against another server, which answers each request
with an empty page. The clients run on the same PC at the lowest priority, and take time from the stream that clients on
other PCs do not: the last condition shows how much. Printed are the median and p99 over all rounds, the
median of the rounds' p99, which other work on the PC in one of them does not move, and how many requests were answered.
"""

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from camera import Stream, free_port, wait_for
from common import parser_of

VIEWERS, FLOOD_CONNECTIONS, FLOOD_RATE = 20, 32, 1000
CONDITIONS = ("without the page", "no viewer", "20 viewers", "flood", "flood of another server")
PATHS = ("/live", "/", "/parts", "/healthz", "/live/camera.jpg", "/nothing")


def main() -> None:
    """Measure, and print a table."""
    if len(sys.argv) > 2 and sys.argv[1] in PARTS:
        if sys.argv[1] != "camera":
            os.nice(19)
        PARTS[sys.argv[1]](*sys.argv[2:])
        return
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="JPEG files that the camera sends")
    parser.add_argument("--rate", type=float, default=10, help="images a second; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=30, help="of one condition in a round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-page-"))
    camera = start("camera", port := free_port(), options.images, options.rate)
    took: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    served: Counter[str] = Counter()
    try:
        for number in range(options.rounds):
            one_round(
                options.kit, f"http://127.0.0.1:{port}/camera", folder / str(number), options.seconds, took, served
            )
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    finally:
        camera.kill()
        shutil.rmtree(folder)
    print("| condition | frames | median | p99 | median p99 of rounds | requests/s |\n|---|---|---|---|---|---|")
    for name, rounds in took.items():
        values = np.concatenate(rounds)
        median, high = np.percentile(values, (50, 99))
        typical = np.median([np.percentile(each, 99) for each in rounds])
        rate = served[name] / (options.seconds * options.rounds)
        print(f"| {name} | {len(values)} | {median:.1f} ms | {high:.1f} ms | {typical:.1f} ms | {rate:.0f} |")


def one_round(
    kit: Path, url: str, folder: Path, seconds: float, took: dict[str, list[list[float]]], served: Counter[str]
) -> None:
    """Measure each condition once; `took`: milliseconds by condition, `served`: number of responses."""
    for with_page in (False, True):
        place = folder / str(with_page)
        place.mkdir(parents=True)
        page, other = free_port(), free_port()
        stream = Stream(kit, url, *(["--web", str(page)] if with_page else []), folder=place)
        wait_for(lambda stream=stream: len(stream.rows()) > 20, "frames are scored")
        empty = start("server", other) if with_page else None
        for name in CONDITIONS[1:] if with_page else CONDITIONS[:1]:
            clients = {
                "20 viewers": partial(start, "viewers", page, seconds),
                "flood": partial(start, "flood", page, seconds),
                "flood of another server": partial(start, "flood", other, seconds),
            }.get(name)
            running = clients() if clients else None
            time.sleep(1)
            first = len(stream.rows())
            time.sleep(seconds - 2)
            took[name].append([row["total_ms"] for row in stream.rows()[first:]])
            if running and running.stdout:
                served[name] += int(running.communicate()[0])
        if empty:
            empty.kill()
        stream.stop()


def start(part: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a part of this script in a process of its own."""
    command = [sys.executable, __file__, part, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_camera(port: str, images: str, rate: str) -> None:
    """A camera that sends images by HTTP."""
    frames = [path.read_bytes() for path in sorted(Path(images).glob("*.jpg"))]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
            self.end_headers()
            number, due = 0, time.monotonic()
            while True:
                frame = frames[number % len(frames)]
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n")
                number, due = number + 1, due + 1 / float(rate)
                time.sleep(max(0.0, due - time.monotonic()))

        def log_message(self, format: str, *args: object) -> None: ...

    serve(port, Handler)


def run_server(port: str) -> None:
    """A server that answers each request with an empty page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    serve(port, Handler)


def serve(port: str, handler: type[BaseHTTPRequestHandler]) -> None:
    """Answer requests until the process is killed. Clients that disconnect are no errors."""
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), handler)
    server.handle_error = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]
    server.serve_forever()


def run_viewers(port: str, seconds: str) -> None:
    """Viewers of the live page."""
    _clients(VIEWERS, port, float(seconds), ["/live", "/live/camera.jpg"], pause=0.25)


def run_flood(port: str, seconds: str) -> None:
    """Many requests on all pages."""
    _clients(FLOOD_CONNECTIONS, port, float(seconds), PATHS, pause=FLOOD_CONNECTIONS / FLOOD_RATE)


def _clients(count: int, port: str, seconds: float, paths: list[str] | tuple[str, ...], *, pause: float) -> None:
    """Clients with a request each `pause` seconds, or as fast as they are answered; prints the number of responses."""
    end, answered = time.monotonic() + seconds, [0] * count

    def client(place: int) -> None:
        connection, due = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60), time.monotonic()
        turn = place
        while time.monotonic() < end:
            try:
                connection.request("GET", paths[turn % len(paths)])
                connection.getresponse().read()
                answered[place] += 1
            except (OSError, http.client.HTTPException):
                connection.close()
            turn, due = turn + 1, max(due + pause, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    threads = [threading.Thread(target=client, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(answered), flush=True)


PARTS: dict[str, Callable[..., None]] = {
    "camera": run_camera,
    "server": run_server,
    "viewers": run_viewers,
    "flood": run_flood,
}

if __name__ == "__main__":
    main()
