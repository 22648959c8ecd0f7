"""What the base install weighs: disk, packages, memory, start-up; and that it scores as this environment does.

    python benchmarks/footprint.py KIT IMAGE_TABLE

Installs the checkout without extras into a fresh environment and measures there. Times are medians of five runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def timed(*command: object) -> float:
    """Wall seconds of a command, the median of five runs."""
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def scores(program: Path, kit: Path, images: Path, out: Path) -> list[str]:
    """The rows of a score file, but for the milliseconds."""
    subprocess.run([program, "score", kit, images, "--out", out], check=True, capture_output=True)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [json.dumps({key: value for key, value in row.items() if key != "milliseconds"}) for row in rows]


def main() -> None:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("images", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        venv.create(place / "env", with_pip=True)
        bare = place / "env/bin"
        empty = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        subprocess.run([bare / "pip", "install", "--quiet", CHECKOUT], check=True)
        full = sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())
        listed = json.loads(
            subprocess.run([bare / "pip", "list", "--format", "json"], check=True, capture_output=True).stdout
        )
        theirs = scores(bare / "msc-edge", options.kit, options.images, place / "bare.jsonl")
        # The largest child so far that was not pip: measured in a child of its own.
        measure = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        command = [bare / "msc-edge", "score", options.kit, options.images, "--out", place / "again.csv"]
        peak = subprocess.run([bare / "python", "-c", measure, *command], check=True, capture_output=True).stdout
        ours = scores(Path(sys.executable).with_name("msc-edge"), options.kit, options.images, place / "here.jsonl")
        print(f"packages beside pip and setuptools: {len(listed) - 2}; torch: {'torch' in {p['name'] for p in listed}}")
        print(f"installed: {(full - empty) / 1e6:.0f} MB")
        print(f"peak resident while scoring {len(theirs)} images: {int(peak) * 1024 / 1e6:.0f} MB")
        print(f"--help: {timed(bare / 'msc-edge', '--help'):.2f} s")
        print(f"scores equal to the last printed digit: {theirs == ours}")


if __name__ == "__main__":
    main()
