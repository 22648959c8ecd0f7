"""Size of the base install: disk, packages, memory, start-up time. Also checks that it scores like this environment.

    python benchmarks/footprint.py KIT IMAGES

Installs the checkout without extras into a new virtual environment and measures there. The time is a median of five.
"""

import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

from common import CHECKOUT, json_lines, msc_edge, parser_of
from timing import median

# The new environment must use what is installed there, and not this checkout.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: object) -> bytes:
    """Run a command of the new environment and return what it prints."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, env=CLEAN).stdout


def rows_of(scores: Path) -> list[dict[str, Any]]:
    """The rows of a score file without the milliseconds."""
    return [{key: value for key, value in row.items() if key != "milliseconds"} for row in json_lines(scores)]


def main() -> None:
    """Install, measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of images to score")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        venv.create(folder / "env", with_pip=True)
        bare = folder / "env/bin"
        empty = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        run(bare / "pip", "install", "--quiet", CHECKOUT)
        full = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        packages = {each["name"] for each in json.loads(run(bare / "pip", "list", "--format", "json"))}
        score = ["score", options.kit, options.images, "--out"]
        run(bare / "msc-edge", *score, folder / "base.jsonl")
        subprocess.run(msc_edge(*score, folder / "here.jsonl"), check=True, capture_output=True)
        base, here = rows_of(folder / "base.jsonl"), rows_of(folder / "here.jsonl")
        # Measured by a separate parent process, because RUSAGE_CHILDREN of this one includes pip.
        measure = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        peak = int(run(bare / "python", "-c", measure, bare / "msc-edge", *score, folder / "again.csv"))
        start = median(lambda: run(bare / "msc-edge", "--help"), rounds=5)
        print(f"packages besides pip and setuptools: {len(packages) - 2}; torch: {'torch' in packages}")
        print(f"installed size: {(full - empty) / 1e6:.0f} MB")
        print(f"peak resident memory while scoring {len(base)} images: {peak * 1024 / 1e6:.0f} MB")
        print(f"msc-edge --help: {start / 1000:.2f} s")
        print(f"scores equal to the last printed digit: {base == here}")


if __name__ == "__main__":
    main()
