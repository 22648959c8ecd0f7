"""Changed copies of the normal images, in the bank and as the standard of the scores: what they change under drift.

    python benchmarks/bank_copies.py --shared ../shared [--sets NAME ...] [--copies 0 1 3]
        [--standard changed images] [--images 300]

edge-small, frozen, with both scores. The bank has each normal image and COPIES harmlessly changed copies of it (see
`train/harmless.py`). The scores are standardised by other such copies (`changed`, as in a kit), or by the images as
they are. The limits are those of the normal images themselves, each without its group and the copies of that, at a
target of 1 %. The test images change as in drift.py. Printed for each set and drift: AUROC, the share of normal images
that are rejected, and the share of anomalous ones that are, by severity. Labels are used for nothing else.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from common import SHARED, LabelledImages, parser_of
from drift import DRIFTS, chosen
from false_alarms import MARGIN, pretrained_network
from peers_prepare import data_sets
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.groups import near_duplicate_files
from msc_edge.held_out import image_scores_in_turn
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.scoring import Scoring, Standard, calibration_scores
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.harmless import changed_copies, harmlessly_changed
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import MAP_SETTINGS, fit_patch_head, outputs, outputs_in_turn, patch_scores

TARGET = 0.01


class Kit:
    """Bank, patch head and limit of the normal images and their copies."""

    def __init__(
        self, network: EmbeddingNetwork, paths: Sequence[Path], groups: Sequence[int], copies: int, standard_of: str
    ) -> None:
        def own() -> Iterator[tuple[str, np.ndarray]]:
            return ((path.name, read_image(path)) for path in paths)

        def in_bank() -> Iterator[tuple[str, np.ndarray]]:
            yield from own()
            random = np.random.default_rng(0)
            for _ in range(copies):
                yield from ((name, harmlessly_changed(image, random, may_move=True)) for name, image in own())

        self._network, all_groups = network, [*groups] * (1 + copies)
        self._head = fit_patch_head(network, in_bank, groups=all_groups)
        self._bank = Bank(network.embed_all(in_bank()))

        def scored(images: Iterator[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
            found = list(outputs_in_turn(network, self._head, images, groups))
            embeddings = np.stack([embedding for embedding, _ in found])
            return image_scores_in_turn(self._bank, all_groups, embeddings, groups), patch_scores(found, MAP_SETTINGS)

        in_standard = changed_copies(own(), may_move=True) if standard_of == "changed" else own()
        standard = Standard.of_images(*scored(in_standard))
        self._scoring = Scoring.fitted("both", standard, MAP_SETTINGS)
        self.calibration = Calibration(calibration_scores("both", *scored(own()), standard, MAP_SETTINGS), groups)
        self.limit = self.calibration.limit(TARGET).score

    def scores(self, images: Iterator[np.ndarray]) -> np.ndarray:
        """The score of each image, float64 (n,)."""
        found = list(outputs(self._network, self._head, (("", image) for image in images)))
        patch = patch_scores(found, MAP_SETTINGS)
        return np.array(
            [
                self._scoring.score(self._bank.score(embedding), each)
                for (embedding, _), each in zip(found, patch, strict=True)
            ]
        )


def row(name: str, copies: str, drift: str, severity: int, kit: Kit, tested: LabelledImages) -> str:
    """One row of the table."""
    changed = (
        DRIFTS[drift](read_image(path), severity, number) if severity else read_image(path)
        for number, path in enumerate(tested.test)
    )
    scores, truth = kit.scores(changed), np.array(tested.truth)
    above = scores > kit.limit
    auroc, false_alarms, found = roc_auc_score(truth, scores), above[~truth].mean(), above[truth].mean()
    change = drift if severity else "none"
    return f"| {name} | {change} | {severity} | {copies} | {auroc:.4f} | {false_alarms:.1%} | {found:.1%} |"


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="such as magnetic_tile; default: all")
    parser.add_argument("--copies", type=int, nargs="+", default=[0, 1, 3], help="of each image; default: 0 1 3")
    parser.add_argument("--standard", nargs="+", choices=("changed", "images"), default=["changed"])
    parser.add_argument("--severities", type=int, nargs="+", default=[1, 2, 4], help="default: 1 2 4")
    parser.add_argument("--drifts", nargs="+", choices=DRIFTS, default=list(DRIFTS), help="default: all")
    parser.add_argument("--images", type=int, default=300, help="most test images of a set; default: %(default)s")
    options = parser.parse_args()
    network = pretrained_network(EDGE_SMALL, None, preprocessing=preset("whole-frame", image_size=224, margin=MARGIN))
    columns = ("set", "drift", "severity", "copies", "standard", "AUROC", "normal images rejected", "anomalous ones")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for name, images in data_sets(options.shared).items():
        if options.sets and name not in options.sets:
            continue
        tested = chosen(images, options.images)
        embeddings = network.embed_all((path.name, read_image(path)) for path in images.train)
        groups = near_duplicate_files(embeddings, images.train[0].parent, [path.name for path in images.train]).tolist()
        for copies, standard in product(options.copies, options.standard):
            kit = Kit(network, images.train, groups, copies, standard)
            label = f"{copies} | {standard}"
            print(row(name, label, "darker", 0, kit, tested), flush=True)
            for drift in options.drifts:
                for severity in options.severities:
                    print(row(name, label, drift, severity, kit, tested), flush=True)


if __name__ == "__main__":
    main()
