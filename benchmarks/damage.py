"""Damage a kit byte by byte, through the command line: every damage must end in exit code 4 and one line.

    python benchmarks/damage.py KIT IMAGE_TABLE [--times 300]

Half of the bytes are drawn over all bytes, half over all files, so that small files are hit too. KIT is copied first.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


def main() -> None:
    """Damage, score, mend, and count the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    program = Path(sys.executable).with_name("msc-edge")
    draw = random.Random(options.seed)
    outcomes: Counter[tuple[int, int, int]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        kit = shutil.copytree(options.kit, Path(scratch, "kit"))
        files = [path for path in sorted(kit.rglob("*")) if path.is_file()]
        sizes = [path.stat().st_size for path in files]
        for number in range(options.times):
            path = draw.choices(files, sizes)[0] if number % 2 else draw.choice(files)
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[draw.randrange(len(whole))] ^= draw.randrange(1, 256)
            path.write_bytes(damaged)
            done = subprocess.run([program, "score", kit, options.images, "--quiet"], capture_output=True, check=False)
            outcomes[done.returncode, done.stderr.count(b"\n"), len(done.stdout)] += 1
            path.write_bytes(whole)
    for (code, lines, printed), times in outcomes.most_common():
        print(f"{times} x exit code {code}, {lines} line(s) of error, {printed} bytes of scores")


if __name__ == "__main__":
    main()
