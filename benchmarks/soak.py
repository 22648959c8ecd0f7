"""A stream for minutes or for days: does it grow?

    python benchmarks/soak.py KIT ../shared/data/video/bottle-detection.mp4 --minutes 10       (or: make soak)

A camera of 30 frames a second, rows, saved images, a broker, /metrics asked for each second. Each ten seconds the
resident memory, threads, open files and processes are written down; the first two minutes are for warming up.
"""

import argparse
import csv
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from camera import Camera, Stream, family_of, free_port, memory_of

WARM_UP = 120.0
# Small caps, so that files are rotated and images removed within minutes.
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
    """Run it and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, help="write the samples there, as CSV")
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
    begun = time.monotonic()
    try:
        while (second := time.monotonic() - begun) < 60 * options.minutes:
            time.sleep(1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()
            if len(samples) * 10 <= second:
                samples.append({"second": second, **sample(stream.process.pid)})
                print(" ".join(f"{name} {value:.1f}" for name, value in samples[-1].items()), flush=True)
        frames = stream.rows()[-1]["frame"] + 1
        print(f"ended in {stream.stop():.2f} s")
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
    report(samples, frames, time.monotonic() - begun)
    shutil.rmtree(folder)


def sample(pid: int) -> dict[str, float]:
    """What the process and those below it hold now."""
    family = family_of(pid)
    return {
        "main_mb": memory_of(pid) / 1e6,
        "all_mb": sum(memory_of(one) for one in family) / 1e6,
        "threads": sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in family),
        "files": sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family),
        "processes": len(family),
    }


def report(samples: list[dict[str, float]], frames: int, seconds: float) -> None:
    """First and last after warming up."""
    warm = [each for each in samples if each["second"] >= WARM_UP] or samples
    print(f"{frames} frames in {seconds:.0f} s; from second {warm[0]['second']:.0f} to {warm[-1]['second']:.0f}:")
    for name in ("main_mb", "all_mb", "threads", "files", "processes"):
        values = [each[name] for each in warm]
        growth = values[-1] / values[0] - 1
        print(
            f"{name:<10} first {values[0]:8.1f}  last {values[-1]:8.1f}  "
            f"least {min(values):8.1f}  most {max(values):8.1f}  growth {growth:+.1%}"
        )


if __name__ == "__main__":
    main()
