"""Soak test of a stream, for minutes or days: do memory, threads, open files or processes grow?

    python benchmarks/soak.py KIT ../shared/data/video/bottle-detection.mp4 --minutes 10       (or: make soak)

Load: a camera of 30 frames per second, rows, saved images, an MQTT broker where mosquitto is installed, and one request
to /metrics per second. A sample is taken every ten seconds; growth is measured after a warm-up of two minutes.
"""

import csv
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from camera import Camera, Stream, family_of, free_port, memory_of
from common import parser_of

WARM_UP = 120.0  # seconds
# Low limits, so that files are rotated and images removed within minutes.
CONFIG = """
[results]
rotate_mb = 0.5
keep = 3
[images]
folder = "saved"
every = 30
max_mb = 5
[http]
port = {port}
[mqtt]
{broker}
"""


def main() -> None:
    """Run the stream, take samples, and print how they grow."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("clip", type=Path, metavar="CLIP", help="the video of the camera")
    parser.add_argument("--minutes", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the samples to a CSV file")
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="msc-edge-soak-"))
    broker_port, port = free_port(), free_port()
    broker = None
    if mosquitto := shutil.which("mosquitto", path="/usr/sbin:/usr/bin"):
        broker = subprocess.Popen(
            [mosquitto, "-p", str(broker_port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    camera = Camera(options.clip)
    camera.start()
    config = folder / "line.toml"
    config.write_text(CONFIG.format(port=port, broker=f'host = "127.0.0.1"\nport = {broker_port}' if broker else ""))
    stream = Stream(options.kit, camera.url("clip"), "--config", config, folder=folder)
    samples: list[dict[str, float]] = []
    start = time.monotonic()
    try:
        while (second := time.monotonic() - start) < 60 * options.minutes:
            time.sleep(1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                response.read()
            if len(samples) * 10 <= second:
                samples.append({"second": second, **sample(stream.process.pid)})
                print(" ".join(f"{name} {value:.1f}" for name, value in samples[-1].items()), flush=True)
        frames = stream.rows()[-1]["frame"] + 1
        print(f"shut down in {stream.stop():.2f} s")
    finally:
        stream.process.kill()
        camera.kill()
        if broker:
            broker.kill()
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(samples[0]))
            writer.writeheader()
            writer.writerows(samples)
    report(samples, frames, time.monotonic() - start)
    shutil.rmtree(folder)


def sample(pid: int) -> dict[str, float]:
    """Memory, threads, open files and processes of a process and its descendants, now."""
    family = family_of(pid)
    return {
        "main_mb": memory_of(pid) / 1e6,
        "all_mb": sum(memory_of(each) for each in family) / 1e6,
        "threads": sum(len(list(Path(f"/proc/{each}/task").iterdir())) for each in family),
        "files": sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in family),
        "processes": len(family),
    }


def report(samples: list[dict[str, float]], frames: int, seconds: float) -> None:
    """Print each quantity at the first and last sample after the warm-up, and its minimum and maximum."""
    warm = [each for each in samples if each["second"] >= WARM_UP] or samples
    print(f"{frames} frames in {seconds:.0f} s; from second {warm[0]['second']:.0f} to {warm[-1]['second']:.0f}:")
    for name in ("main_mb", "all_mb", "threads", "files", "processes"):
        values = [each[name] for each in warm]
        growth = values[-1] / values[0] - 1
        print(
            f"{name:<10} first {values[0]:8.1f}  last {values[-1]:8.1f}  "
            f"minimum {min(values):8.1f}  maximum {max(values):8.1f}  growth {growth:+.1%}"
        )


if __name__ == "__main__":
    main()
