"""What learning at the line is worth: kits of few normal images learn their false alarms from a stream.

    python benchmarks/learning.py --shared ../shared [--sets tile papers] [--demo DIR] [--start 10 20 50] [--seeds 3]

A kit is made from a few normal images, drawn at random (`msc-edge train --steps 0` and `export`, both scores). Ten test
defects, drawn at random, are confirmed ones, and are not tested. The reject limit is the score above which nine of them
lie: kits of so few images have higher limits by themselves, and reject next to nothing. Then come the other training
images, in random order: one that is rejected is learned, as `msc-edge learn --add` does it. The test images are scored
before and after, and are never learned. With guards the station keeps the confirmed defects; without, the same images
are learned with no guard at all. Printed are means over the seeds: AUROC; normal test images rejected; defects not
rejected; and of the confirmed defects and of the tested ones that the kit rejects, how many it no longer rejects.
--demo: a folder of `msc-edge demo`, for its drawn parts.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from common import SHARED, LabelledImages, found, magnetic_tile, papers, parser_of, run_msc_edge
from sklearn.metrics import roc_auc_score

from msc_edge.errors import UsageError
from msc_edge.images import read_image
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.learning import guards
from msc_edge.runtime.learning.learner import MAX_ADDITIONS, Learner

CONFIRMED = 10
WHO = {"by": "benchmark", "reason": "false alarm"}


@dataclass
class Outcome:
    """Of one stream."""

    stream: float
    false_alarms: float
    learned: float
    auroc: float
    auroc_after: float
    rejected_normal: float
    rejected_normal_after: float
    missed: float
    missed_after: float
    confirmed: float
    confirmed_lost: float
    tested_lost: float


class Seen:
    """Images as the model of a kit sees them; what its outputs are compared with may change."""

    def __init__(self, detector: Detector, paths: Sequence[Path]) -> None:
        self._outputs: list[tuple[ModelOutput, np.ndarray]] = []
        for path in paths:
            image = read_image(path)
            self._outputs.append((detector.run(image), np.broadcast_to(np.uint8(0), image.shape)))

    def verdict(self, place: int, detector: Detector) -> str:
        """Of one image."""
        return detector.score_output(*self._outputs[place]).verdict

    def results(self, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
        """Scores, and whether each is rejected."""
        results = [detector.score_output(*each) for each in self._outputs]
        return np.array([each.score for each in results]), np.array([each.verdict == "reject" for each in results])


def outcome(images: LabelledImages, start: int, seed: int, *, guarded: bool, stream: int) -> Outcome:
    """Make a kit, learn from a stream, and test."""
    random = np.random.default_rng(seed)
    order = [images.train[place] for place in random.permutation(len(images.train))]
    defects = [images.anomalous[place] for place in random.permutation(len(images.anomalous))]
    confirmed, tested = defects[:CONFIRMED], defects[CONFIRMED:]
    coming = order[start : start + stream]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "normal").mkdir()
        for path in order[:start]:
            (folder / "normal" / path.name).symlink_to(path.resolve())
        run_msc_edge("train", "--normal", folder / "normal", "--out", folder / "run", "--steps", 0)
        run_msc_edge("export", folder / "run", "--out", folder / "kit", "--precision", "fp32")
        scores = Seen(alone := Detector.load(folder / "kit"), confirmed).results(alone)[0]
        limit = float(np.sort(scores)[1]) - 1e-6
        with Learner(folder / "kit", per_day=MAX_ADDITIONS, threshold=limit) as learner:
            kit = learner.detector
            if guarded:
                for path in confirmed:
                    learner.keep_defect(path, by="benchmark", reason="defect")
            in_stream, kept = Seen(kit, coming), Seen(kit, confirmed)
            test = Seen(kit, images.normal + tested)
            false_alarms = 0
            for place, path in enumerate(coming):
                if in_stream.verdict(place, learner.detector) != "reject":
                    continue
                false_alarms += 1
                try:
                    learner.add(path, **WHO)
                except UsageError:  # a guard, or the most additions
                    continue
            after = learner.detector
            truth = np.arange(len(images.normal) + len(tested)) >= len(images.normal)
            (before_scores, before), (after_scores, now) = test.results(kit), test.results(after)
            was, still = kept.results(kit)[1], kept.results(after)[1]
            return Outcome(
                stream=len(coming),
                false_alarms=false_alarms,
                learned=len(after.additions),
                auroc=float(roc_auc_score(truth, before_scores)),
                auroc_after=float(roc_auc_score(truth, after_scores)),
                rejected_normal=float(before[~truth].mean()),
                rejected_normal_after=float(now[~truth].mean()),
                missed=float(1 - before[truth].mean()),
                missed_after=float(1 - now[truth].mean()),
                confirmed=int(was.sum()),
                confirmed_lost=int((was & ~still).sum()),
                tested_lost=int((before & ~now)[truth].sum()),
            )


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Field by field."""
    return Outcome(*(float(np.mean([getattr(each, name.name) for each in outcomes])) for name in fields(Outcome)))


def sets(options: argparse.Namespace) -> Iterator[tuple[str, list[LabelledImages]]]:
    """The chosen data sets, by name; the papers are one."""
    if "tile" in options.sets:
        yield "magnetic_tile", [magnetic_tile(options.shared)]
    if "papers" in options.sets:
        yield "papers", list(papers(options.shared).values())
    if options.demo:
        data = options.demo / "data"
        test = found(data / "test")
        normal = [path for path in test if path.parent.name == "good"]
        yield "demo", [LabelledImages(found(data / "train"), normal, [path for path in test if path not in normal])]


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--sets", nargs="*", choices=("tile", "papers"), default=["tile", "papers"])
    parser.add_argument("--demo", type=Path, help="a folder of `msc-edge demo`")
    parser.add_argument("--start", type=int, nargs="+", default=[10, 20, 50], help="normal images of the kit")
    parser.add_argument("--stream", type=int, default=100, help="most images that come; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    options = parser.parse_args()
    print(
        "| set | kit of | guards | false alarms of the stream | learned | AUROC | normal rejected | defects missed | "
        "confirmed defects lost | tested defects lost |\n|" + "---|" * 10
    )
    for name, members in sets(options):
        for start in options.start:
            for guarded in (True, False):
                with_guards = guards.MAX_LOST
                guards.MAX_LOST = with_guards if guarded else 1.0
                try:
                    each = mean(
                        [
                            outcome(images, start, seed, guarded=guarded, stream=options.stream)
                            for images in members
                            if start < len(images.train)
                            for seed in range(options.seeds)
                        ]
                    )
                finally:
                    guards.MAX_LOST = with_guards
                cells = (
                    name,
                    start,
                    "yes" if guarded else "no",
                    f"{each.false_alarms:.1f} of {each.stream:.0f}",
                    f"{each.learned:.1f}",
                    f"{each.auroc:.4f} -> {each.auroc_after:.4f}",
                    f"{each.rejected_normal:.1%} -> {each.rejected_normal_after:.1%}",
                    f"{each.missed:.1%} -> {each.missed_after:.1%}",
                    f"{each.confirmed_lost:.1f} of {each.confirmed:.1f}",
                    f"{each.tested_lost:.1f}",
                )
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
