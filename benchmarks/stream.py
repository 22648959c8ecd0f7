"""How soon a stream is back, how late a decision is when the model is slower than the camera, how fast it ends.

    python benchmarks/stream.py KIT ../shared/data/video/bottle-detection.mp4

On a machine that does nothing else.
"""

import argparse
import shutil
import signal
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from camera import Camera, Stream, free_port, wait_for

ROUNDS = 5


def main() -> None:
    """Run all and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--slow-kit", type=Path, help="for the second part: one that takes longer than 33 ms a frame")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="msc-edge-stream-"))
    try:
        come_back(options.kit, options.clip, folder)
        late(options.slow_kit or options.kit, options.clip, folder)
        end(options.kit, options.clip, folder)
    finally:
        shutil.rmtree(folder)


def come_back(kit: Path, clip: Path, folder: Path) -> None:
    """Seconds from the server's return to the first decision, when it was killed, and when it was silent."""
    camera = Camera(clip)
    camera.start()
    stream = Stream(kit, camera.url("clip"), folder=folder)
    wait_for(lambda: stream.events("source_up"))
    for name, away, back in (
        ("killed", camera.kill, camera.start),
        ("connected and silent", lambda: camera.send(signal.SIGSTOP), lambda: camera.send(signal.SIGCONT)),
    ):
        seconds = []
        for number in range(ROUNDS):
            time.sleep(2)
            away()
            time.sleep(4 + number)  # away for various times
            back()
            returned = time.time()
            seconds.append(wait_for(lambda returned=returned: _decided_after(stream, returned)) - returned)
        told = ", ".join(f"{each:.1f}" for each in sorted(seconds))
        print(f"server {name}: frames again {told} s after its return", flush=True)
    stream.stop()
    camera.kill()


def _decided_after(stream: Stream, moment: float) -> float:
    """When the first frame of after `moment` was captured; 0 while there is none."""
    times = (datetime.fromisoformat(row["time"]).timestamp() for row in stream.rows()[-100:])
    return next((time for time in times if time > moment), 0.0)


def late(kit: Path, clip: Path, folder: Path) -> None:
    """From capture to decision, with a camera that is faster than the model."""
    folder = folder / "late"
    folder.mkdir()
    camera = Camera(clip)
    camera.start()
    stream = Stream(kit, camera.url("clip"), folder=folder)
    wait_for(lambda: len(stream.rows()) > 20)
    time.sleep(20)
    stream.stop()
    camera.kill()
    rows = stream.rows()[20:]
    infer, total = (np.array([row[name] for row in rows]) for name in ("infer_ms", "total_ms"))
    excess = total - infer
    dropped = sum(row["dropped"] for row in rows)
    median = np.median
    print(f"{len(rows)} decided and {dropped} dropped, of 30 frames a second; inference p50 {median(infer):.1f} ms")
    for name, values in (("from capture to decision", total), ("of that beyond inference", excess)):
        p95, p99 = np.percentile(values, (95, 99))
        print(f"{name}: p50 {median(values):.1f}, p95 {p95:.1f}, p99 {p99:.1f}, most {values.max():.1f} ms", flush=True)


def end(kit: Path, clip: Path, folder: Path) -> None:
    """Seconds from SIGTERM to the end of the process, in three states."""
    camera = Camera(clip)
    camera.start()
    nobody = f"http://127.0.0.1:{free_port()}/"
    for name, address, more in (
        ("frames come", camera.url("clip"), []),
        ("frames come, nobody takes the events", camera.url("clip"), ["--webhook", nobody]),
        ("the camera is away", f"rtsp://127.0.0.1:{free_port()}/x", []),
    ):
        seconds = []
        for number in range(ROUNDS):
            at = folder / f"end-{name}-{number}".replace(" ", "-")
            at.mkdir()
            stream = Stream(kit, address, *more, folder=at)
            wait_for(lambda stream=stream: stream.events("started"))
            time.sleep(3)
            seconds.append(stream.stop())
        print(f"SIGTERM while {name}: ended in at most {max(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
    camera.kill()


if __name__ == "__main__":
    main()
