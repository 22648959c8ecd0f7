"""Frozen backbones compared: AUROC by whole images, by patches and by both, AU-PRO of the heatmaps, and time.

    python benchmarks/backbones.py --shared ../shared [--backbones NAME[=FILE][@STAGE] ...] [--sets tile BTN01 ...]
        [--rounds 100]

NAME: of `train --backbone`, with the weights in FILE, cut after STAGE. magnetic_tile: trained on train/good, a fifth
held out in blocks, scored on test/*. Papers: the first 32 normal images by name, scored on the other 16 and the 48
defects. Whole images at 224 x 224 pixels, 4000 rows, float32, all else as in the product. Labels are used for the
figures only.

Time: `model.onnx` with both outputs, one thread, an image of 224 x 224 in memory, all models in turns, median.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnxruntime
from common import SHARED, LabelledImages, magnetic_tile, papers, parser_of, random_frame
from fine_tuned_patches import figures_of, read
from timing import medians

from msc_edge.export.onnx_model import export_onnx
from msc_edge.preprocessing import preset
from msc_edge.train.dataset import held_out_blocks
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import ROWS, fit_patch_head
from msc_edge.train.patches.taps import MARGIN
from msc_edge.train.weights import pretrained_backbone

DEFAULT = ("edge-small", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
FIGURES = ("image", "patch", "both", "au_pro")


class Named(NamedTuple):
    """A backbone, as given on the command line."""

    text: str

    def network(self) -> EmbeddingNetwork:
        """The frozen network."""
        given, _, stage = self.text.partition("@")
        name, _, file = given.partition("=")
        backbone, _ = pretrained_backbone(name, Path(file) if file else None, stop_at=stage or None)
        spec = preset(
            "whole-frame",
            image_size=224,
            margin=MARGIN,
            mean=backbone.architecture.mean,
            std=backbone.architecture.std,
        )
        return EmbeddingNetwork(backbone, spec).eval()


def measure(name: str, images: LabelledImages, backbones: Sequence[Named]) -> dict[str, list[float]]:
    """Print and return the figures of each backbone on one set."""
    held = held_out_blocks(len(images.train), round(0.2 * len(images.train)))
    found: dict[str, list[float]] = {}
    for backbone in backbones:
        figures = figures_of(backbone.network(), images, held)
        found[backbone.text] = [figures[each] for each in FIGURES]
        print_row(name, backbone, found[backbone.text])
    return found


def print_row(name: str, backbone: Named, figures: Sequence[float]) -> None:
    """One row of the table."""
    print(f"| {name} | {backbone.text} | {' | '.join(f'{figure:.4f}' for figure in figures)} |", flush=True)


def times_of(backbones: Sequence[Named], images: LabelledImages, *, rounds: int) -> dict[str, float]:
    """Milliseconds of one call of each model, with a head that is fitted to the normal images of a set."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    frame = random_frame(224, 224)[None]
    calls = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, backbone in enumerate(backbones):
            network, path = backbone.network(), Path(scratch) / f"{number}.onnx"
            export_onnx(network, path, head=fit_patch_head(network, lambda: read(images.train), rows=ROWS))
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            calls[backbone.text] = partial(session.run, None, {"image": frame})
    return medians(calls, rounds=rounds, warm_up=5)


def main() -> None:
    """Print Markdown tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--backbones", nargs="+", default=DEFAULT, help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--sets", nargs="+", help="tile, or short names of papers, such as BTN01; default: all")
    parser.add_argument("--rounds", type=int, default=100, help="of the time; 0 leaves it out; default: 100")
    options = parser.parse_args()
    backbones = [Named(text) for text in options.backbones]
    of_papers = {name.split("_")[1]: images for name, images in papers(options.shared).items()}
    sets = {"tile": magnetic_tile(options.shared)} | of_papers
    print(f"| set | backbone | {' | '.join(FIGURES)} |\n{'|---' * (2 + len(FIGURES))}|", flush=True)
    found = {
        name: measure(name, images, backbones)
        for name, images in sets.items()
        if options.sets is None or name in options.sets
    }
    if of_papers.keys() <= found.keys():
        for backbone in backbones:
            print_row("papers", backbone, np.mean([found[name][backbone.text] for name in of_papers], axis=0))
    if options.rounds:
        print("\n| backbone | ms |\n|---|---|")
        for text, time in times_of(backbones, sets["tile"], rounds=options.rounds).items():
            print(f"| {text} | {time:.2f} |")


if __name__ == "__main__":
    main()
