"""False alarms of whole trainings on parts that they have never seen.

    python benchmarks/new_parts.py --shared ../shared [--splits 4] [--share 0.3] [--steps N] [--select last]

Each split takes the images of a random share of the tiles of magnetic_tile as new ones. `msc-edge train` gets the
others, all normal, with default options but for those given, and `msc-edge export` its kit. Printed: the new images
above each limit, and how many the kit states: the expected share, and the 90 % interval of the count. By default
`train` keeps the pretrained network here, because too few parts would set the limits of a fine-tuned one: `--steps 80
--select last` tests fine-tuned kits. false_alarms.py does the same for pretrained ones, by hundreds.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from common import SHARED, parser_of, run_msc_edge, tiles_of
from false_alarms import normal_images

from msc_edge.calibration import Calibration, Limit
from msc_edge.runtime import Detector


def limits_of(detector: Detector) -> Iterator[tuple[str, Limit, Calibration]]:
    """The limits of a kit by name, with the calibration of each."""
    calibration = detector.manifest.models[detector.model].calibration
    yield "warn", calibration.limits.warn, calibration.calibration
    yield "reject", calibration.limits.reject, calibration.calibration
    if calibration.regions:
        yield "regions", calibration.regions.limit, calibration.regions.calibration


def measure(split: int, trained: Sequence[Path], new: Sequence[Path], options: argparse.Namespace) -> None:
    """Train, export, score the new images, and print a row for each limit."""
    more = [*(("--steps", options.steps) if options.steps is not None else ()), "--select", options.select]
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        folder = Path(scratch)
        (folder / "normal").mkdir()
        for path in trained:
            (folder / "normal" / path.name).symlink_to(path.resolve())
        run_msc_edge("train", "--normal", folder / "normal", "--out", folder / "run", "--seed", split, *more)
        run_msc_edge("export", folder / "run", "--out", folder / "kit", "--precision", "fp32")
        detector = Detector.load(folder / "kit", threads=2)
        results = [detector.score_file(path) for path in new]
        step = detector.manifest.provenance.recipe["selected_step"]
        for name, limit, calibration in limits_of(detector):
            scores = [result.patch_score if name == "regions" else result.score for result in results]
            above = sum(score is not None and score > limit.score for score in scores)
            low, high = calibration.alarm_interval(limit, len(new)) or (0, 0)
            inside = "yes" if low <= above <= high else "no"
            stated = f"{limit.expected_rate:.2%} | {low} to {high} of {len(new)}"
            print(f"| {split} | {step} | {name} | {stated} | {above} ({above / len(new):.2%}) | {inside} |", flush=True)


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--splits", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--share", type=float, default=0.3, help="of the tiles that are new; default: %(default)s")
    parser.add_argument("--steps", type=int, help="of train")
    parser.add_argument("--select", default="last", help="of train; default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder for runs and kits; default: a temporary one")
    options = parser.parse_args()
    paths = normal_images(options.shared)
    tiles = tiles_of([path.name for path in paths])
    print(
        "| split | step | limit | expected | 90 % interval | above it | inside |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    for split in range(options.splits):
        order = np.random.default_rng(split).permutation(tiles.max() + 1)
        is_new = np.isin(tiles, order[: round(options.share * len(order))])
        trained, new = (
            [path for path, each in zip(paths, is_new, strict=True) if each == kind] for kind in (False, True)
        )
        measure(split, trained, new, options)


if __name__ == "__main__":
    main()
