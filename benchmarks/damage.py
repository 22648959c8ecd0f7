"""Change one byte of a kit and run `msc-edge score`, many times: each run must end with exit code 4 and one error line.

    python benchmarks/damage.py KIT IMAGES [--times 300]

Half of the bytes are drawn from all bytes of the kit. The other half are drawn from a random file, so that small files
are damaged too. The script works on a copy of KIT.
"""

import random
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from common import msc_edge, parser_of, run_msc_edge


def main() -> None:
    """Damage the copy, score, restore it, and count the outcomes."""
    parser = parser_of(__doc__)
    parser.add_argument("kit", type=Path, metavar="KIT", help="a kit as a folder")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of images to score")
    parser.add_argument("--times", type=int, default=300, help="bytes to change, one per run; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    outcomes: Counter[tuple[int, int, int]] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        kit = shutil.copytree(options.kit, Path(scratch, "kit"))
        run_msc_edge("score", kit, options.images, "--quiet")  # without damage it must succeed
        files = [path for path in sorted(kit.rglob("*")) if path.is_file()]
        sizes = [path.stat().st_size for path in files]
        for number in range(options.times):
            path = draw.choices(files, sizes)[0] if number % 2 else draw.choice(files)
            original = path.read_bytes()
            damaged = bytearray(original)
            damaged[draw.randrange(len(original))] ^= draw.randrange(1, 256)
            path.write_bytes(damaged)
            command = msc_edge("score", kit, options.images, "--quiet")
            done = subprocess.run(command, capture_output=True, check=False)
            outcomes[done.returncode, done.stderr.count(b"\n"), len(done.stdout)] += 1
            path.write_bytes(original)
    for (code, lines, printed), times in outcomes.most_common():
        print(f"{times} x exit code {code}, {lines} line(s) of error, {printed} bytes of scores")


if __name__ == "__main__":
    main()
