"""A stream with its page: does it delay frames, and when is a reject seen?

    python benchmarks/page.py KIT IMAGES [--rate 10] [--seconds 10] [--rounds 3]          (three minutes)

A camera sends the images of a folder by HTTP. Each round measures five conditions in turns: without the page; with it
and no viewer; 20 viewers, each of whom loads the state and the frame three times a second, as the script of the page
does; a flood of 1000 requests a second on 32 connections; and that flood against another server, which answers each
request with an empty page. The clients run on the same PC at the lowest priority, and take time from the stream that
clients on other PCs do not: the last condition shows how much. Every second round begins with the page, so that a PC
that becomes slower does not speak against one of both.

The table has the milliseconds from capture to decision: median and p99 over all rounds, and the median of the rounds'
p99, which other work on the PC in one of them does not move; the frames that the stream did not get to; and how many
requests were answered. Three rounds of 10 s have 240 frames, so their p99 is made of three: take more for a figure.

Then Chromium opens the page, and the camera sends an image with a defect every few seconds. Printed is the time from
its capture until the browser displays it with its heatmap. Needs playwright and chromium; `--no-browser` does without.
"""

import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from camera import Stream, free_port, wait_for
from common import parser_of

VIEWERS, FLOOD_CONNECTIONS, FLOOD_RATE = 20, 32, 1000
DEFECT_EVERY, DEFECTS = 4.0, 5  # seconds, and how many are watched
CONDITIONS = ("without the page", "no viewer", "20 viewers", "flood", "flood of another server")
PATHS = ("/live", "/", "/parts", "/healthz", "/live/camera.jpg", "/nothing")


@dataclass
class Condition:
    """What was measured under one condition."""

    rounds: list[list[float]] = field(default_factory=list)
    """Milliseconds from capture to decision of each frame."""
    dropped: int = 0
    """Frames that were not scored."""
    answered: int = 0
    """Requests."""


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
    parser.add_argument("--seconds", type=float, default=10, help="of one condition in a round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--no-browser", action="store_true", help="do not measure when a reject is seen")
    options = parser.parse_args()
    print(f"python benchmarks/page.py {' '.join(sys.argv[1:])}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-page-"))
    camera = start("camera", port := free_port(), options.images, options.rate, 0)
    found = {name: Condition() for name in CONDITIONS}
    try:
        for number in range(options.rounds):
            for with_page in (False, True) if number % 2 == 0 else (True, False):
                place = folder / f"{number} {with_page}"
                address = f"http://127.0.0.1:{port}/camera"
                measure(options.kit, address, place, options.seconds, found, page=with_page)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        camera.kill()
        print_table(found, options.seconds * options.rounds)
        if not options.no_browser:
            print_delay(seen_after(options.kit, options.images, options.rate, folder / "browser"))
    finally:
        camera.kill()
        shutil.rmtree(folder)


def print_table(found: Mapping[str, Condition], seconds: float) -> None:
    """A row for each condition, measured for so many seconds."""
    columns = ("condition", "frames", "dropped", "median", "p99", "median p99 of rounds", "requests/s")
    print(f"| {' | '.join(columns)} |\n|{len(columns) * '---|'}")
    for name, one in found.items():
        values = np.concatenate(one.rounds)
        median, high = np.percentile(values, (50, 99))
        typical = np.median([np.percentile(each, 99) for each in one.rounds])
        rate = f"{one.answered / seconds:.0f}" if one.answered else "-"
        print(
            f"| {name} | {len(values)} | {one.dropped} | {median:.1f} ms | {high:.1f} ms | {typical:.1f} ms | {rate} |"
        )


def measure(kit: Path, url: str, folder: Path, seconds: float, found: Mapping[str, Condition], *, page: bool) -> None:
    """Measure the conditions with or without the page once."""
    folder.mkdir(parents=True)
    port, other = free_port(), free_port()
    stream = Stream(kit, url, *(["--web", str(port)] if page else []), folder=folder)
    wait_for(lambda: len(stream.rows()) > 20, "frames are scored")
    empty = start("server", other) if page else None
    for name in CONDITIONS[1:] if page else CONDITIONS[:1]:
        clients = {
            "20 viewers": partial(start, "viewers", port, seconds),
            "flood": partial(start, "flood", port, seconds),
            "flood of another server": partial(start, "flood", other, seconds),
        }.get(name)
        running = clients() if clients else None
        time.sleep(1)
        first = len(stream.rows())
        time.sleep(seconds - 2)
        rows = stream.rows()[first:]
        found[name].rounds.append([row["total_ms"] for row in rows])
        found[name].dropped += sum(row["dropped"] for row in rows)
        if running and running.stdout:
            found[name].answered += int(running.communicate()[0])
    if empty:
        empty.kill()
    stream.stop()


def seen_after(kit: Path, images: Path, rate: float, folder: Path) -> list[float]:
    """Seconds from the capture of each defect until Chromium displays it with its heatmap."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (only here)

    folder.mkdir(parents=True)
    camera = start("camera", port := free_port(), images, rate, DEFECT_EVERY)
    stream = Stream(kit, f"http://127.0.0.1:{port}/camera", "--web", str(page_port := free_port()), folder=folder)
    captured: dict[int, float] = {}
    try:
        wait_for(lambda: len(stream.rows()) > 20, "frames are scored")
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{page_port}/")
            page.wait_for_selector("[data-frame][data-number]")
            page.evaluate(_WATCH)
            end = time.monotonic() + DEFECT_EVERY * (DEFECTS + 0.5)
            while time.monotonic() < end:
                shown = page.evaluate("async () => (await (await fetch('/live')).json()).live.sources[0].shown")
                if shown and shown["outcome"] == "reject":
                    captured[shown["number"]] = shown["time"]
                page.wait_for_timeout(100)
            seen = dict(page.evaluate("window.seen"))
            browser.close()
    finally:
        camera.kill()
        stream.stop()
    return [seen[number] / 1000 - moment for number, moment in captured.items() if number in seen]


_WATCH = """() => {
    window.seen = [];
    const frame = document.querySelector("[data-frame]"), source = document.querySelector("[data-source]");
    new MutationObserver(() => {
        if (source.dataset.outcome === "reject") window.seen.push([Number(frame.dataset.number), Date.now()]);
    }).observe(frame, { attributeFilter: ["data-number"] });
}"""


def print_delay(seconds: Sequence[float]) -> None:
    """When rejects were seen."""
    if not seconds:
        print("no reject was seen: the kit does not reject the drawn defect, or the page did not show it")
        return
    print(
        f"a reject is on the page with its heatmap {statistics.median(seconds):.2f} s after its capture in the median, "
        f"{max(seconds):.2f} s at most (n = {len(seconds)}, Chromium on this PC)"
    )


def start(part: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a part of this script in a process of its own."""
    command = [sys.executable, __file__, part, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_camera(port: str, images: str, rate: str, defect_every: str) -> None:
    """A camera that sends images by HTTP; one has a defect every so many seconds, unless that is 0."""
    frames = [path.read_bytes() for path in sorted(Path(images).glob("*.jpg"))]
    every = round(float(defect_every) * float(rate))
    defect = with_defect(frames[0]) if every else b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
            self.end_headers()
            number, due = 0, time.monotonic()
            while True:
                has_defect = every and number % every == every - 1
                frame = defect if has_defect else frames[number % len(frames)]
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
                self.wfile.write(head.encode() + frame + b"\r\n")
                number, due = number + 1, due + 1 / float(rate)
                time.sleep(max(0.0, due - time.monotonic()))

        def log_message(self, format: str, *args: object) -> None: ...

    serve(port, Handler)


def with_defect(jpeg: bytes) -> bytes:
    """The image with a chequered square in its middle."""
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    side = min(image.shape[:2]) // 3
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    squares = np.indices((side, side)).sum(0) // max(1, side // 8) % 2
    image[top : top + side, left : left + side] = 255 * squares[..., None].astype(np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


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
    _clients(VIEWERS, port, float(seconds), ["/live", "/live/camera.jpg"], pause=0.15)


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
