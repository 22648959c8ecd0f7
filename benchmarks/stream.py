"""A stream: time to recover after a camera failure, latency with a slow model, time to shut down.

    python benchmarks/stream.py KIT ../shared/data/video/bottle-detection.mp4 [--slow-kit KIT]

Run it on an otherwise idle machine.
"""

import shutil
import signal
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from camera import Camera, Stream, free_port, wait_for
from common import parser_of

PARTS = ("recovery", "latency", "shutdown")


def main() -> None:
    """Measure the three parts and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="the video of the camera")
    parser.add_argument("--slow-kit", type=Path, help="for latency: a kit that takes longer than 33 ms per frame")
    parser.add_argument("--rounds", type=int, default=5, help="of recovery and shutdown; default: %(default)s")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; default: all")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-stream-"))
    try:
        if "recovery" in options.parts:
            recovery(options.kit, options.clip, folder, options.rounds)
        if "latency" in options.parts:
            latency(options.slow_kit or options.kit, options.clip, folder)
        if "shutdown" in options.parts:
            shutdown(options.kit, options.clip, folder, options.rounds)
    finally:
        shutil.rmtree(folder)


def recovery(kit: Path, clip: Path, folder: Path, rounds: int) -> None:
    """Seconds from the server's return to the first scored frame, for a killed and for a stopped server."""
    camera = Camera(clip)
    camera.start()
    stream = Stream(kit, camera.url("clip"), folder=folder)
    wait_for(lambda: stream.events("source_up"), "camera connected")
    for name, fail, restore in (
        ("killed", camera.kill, camera.start),
        ("connected and silent", lambda: camera.send(signal.SIGSTOP), lambda: camera.send(signal.SIGCONT)),
    ):
        seconds = []
        for number in range(rounds):
            time.sleep(2)
            fail()
            time.sleep(4 + number)  # outages of different lengths
            restore()
            returned = time.time()
            captured = wait_for(lambda returned=returned: _captured_after(stream, returned), "a frame after the return")
            seconds.append(captured - returned)
        listed = ", ".join(f"{each:.1f}" for each in sorted(seconds))
        print(f"server {name}: first scored frame {listed} s after its return", flush=True)
    stream.stop()
    camera.kill()


def _captured_after(stream: Stream, moment: float) -> float:
    """Capture time of the first scored frame after `moment`; 0 while there is none."""
    times = (datetime.fromisoformat(row["time"]).timestamp() for row in stream.rows()[-100:])
    return next((time for time in times if time > moment), 0.0)


def latency(kit: Path, clip: Path, folder: Path) -> None:
    """Milliseconds from capture to verdict, with a camera that is faster than the model."""
    folder = folder / "latency"
    folder.mkdir()
    camera = Camera(clip)
    camera.start()
    stream = Stream(kit, camera.url("clip"), folder=folder)
    wait_for(lambda: len(stream.rows()) > 20, "20 scored frames")
    time.sleep(20)
    stream.stop()
    camera.kill()
    rows = stream.rows()[20:]
    infer, total = (np.array([row[name] for row in rows]) for name in ("infer_ms", "total_ms"))
    excess = total - infer
    dropped = sum(row["dropped"] for row in rows)
    print(f"{len(rows)} frames scored, {dropped} dropped, at 30 per second; inference p50 {np.median(infer):.1f} ms")
    for name, values in (("from capture to verdict", total), ("the part beyond inference", excess)):
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        print(f"{name}: p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, maximum {values.max():.1f} ms", flush=True)


def shutdown(kit: Path, clip: Path, folder: Path, rounds: int) -> None:
    """Seconds from SIGTERM to the end of the process, in three states."""
    camera = Camera(clip)
    camera.start()
    no_server = f"http://127.0.0.1:{free_port()}/"
    for name, address, more in (
        ("frames arrive", camera.url("clip"), []),
        ("frames arrive, no webhook server", camera.url("clip"), ["--webhook", no_server]),
        ("the camera is down", f"rtsp://127.0.0.1:{free_port()}/x", []),
    ):
        seconds = []
        for number in range(rounds):
            own = folder / f"shutdown-{name}-{number}".replace(" ", "-")
            own.mkdir()
            stream = Stream(kit, address, *more, folder=own)
            wait_for(lambda stream=stream: stream.events("started"), "the stream started")
            time.sleep(3)
            seconds.append(stream.stop())
        print(f"SIGTERM while {name}: ended in at most {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
    camera.kill()


if __name__ == "__main__":
    main()
