"""Frozen backbones compared: AUROC by whole images, by patches and by both, AU-PRO of the heatmaps, and time.

    python benchmarks/backbones.py --shared ../shared [--backbones NAME[=FILE][@STAGE] ...]
        [--sets tile BTN01 ... cifar] [--rounds 100]

NAME: of `train --backbone`, with the weights in FILE, cut after STAGE.

- magnetic_tile: trained on train/good, a fifth held out in blocks, scored on test/*. Papers: the first 32 normal images
  by name, scored on the other 16 and the 48 defects. 4000 rows of patches.
- CIFAR-10, whole images only: the first 1000 training images of a class by name in the bank; the 500 test images of
  each of the ten classes scored; mean of airplane, cat and horse.

Images at 224 x 224 pixels, float32, all else as in the product. Labels are used for the figures only.

Time: the model with both outputs, one thread, an image of 224 x 224 in memory, all models in turns, median. int8 as in
a kit: ranges from 32 images of magnetic_tile, the stem in float.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnxruntime
from common import SHARED, LabelledImages, magnetic_tile, papers, parser_of, random_frame, read_zipped, zipped_images
from fine_tuned_patches import figures_of, read
from networks import pretrained_network
from sklearn.metrics import roc_auc_score
from timing import medians

from msc_edge.bank import Bank
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.quantize import Quantizer
from msc_edge.images import read_image
from msc_edge.train.dataset import held_out_blocks
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.fit import ROWS, fit_patch_head
from msc_edge.train.patches.taps import MARGIN

DEFAULT = ("edge-small-2", "edge-small", "efficientnet_lite0", "efficientnet_lite2")
FIGURES = ("image", "patch", "both", "au_pro")
CIFAR = "cifar"
RANGE_IMAGES = 32  # of int8
CIFAR_CLASSES = ("airplane", "cat", "horse")


class Named(NamedTuple):
    """A backbone, as given on the command line."""

    text: str

    def network(self, *, margin: int = MARGIN) -> EmbeddingNetwork:
        """The frozen network."""
        given, _, stage = self.text.partition("@")
        name, _, file = given.partition("=")
        return pretrained_network(name, Path(file) if file else None, stop_at=stage or None, margin=margin)


def measure(name: str, images: LabelledImages, backbones: Sequence[Named]) -> dict[str, list[float]]:
    """Print and return the figures of each backbone on one set."""
    held = held_out_blocks(len(images.train), round(0.2 * len(images.train)))
    found: dict[str, list[float]] = {}
    for backbone in backbones:
        figures = figures_of(backbone.network(), images, held)
        found[backbone.text] = [figures[each] for each in FIGURES]
        print_row(name, backbone, found[backbone.text])
    return found


def cifar(network: EmbeddingNetwork, shared: Path) -> float:
    """2-NN AUROC of one class against the rest, the mean of three classes."""
    with zipfile.ZipFile(shared / "data/cifar10_one_vs_rest.zip") as archive:

        def embed(prefix: str, count: int | None = None) -> np.ndarray:
            names = zipped_images(archive, prefix)[:count]
            return network.embed_all((name, read_zipped(archive, name)) for name in names)

        tested = {name.split("/")[1] for name in zipped_images(archive, "test/")}
        embedded = {name: embed(f"test/{name}/") for name in sorted(tested)}
        truth = np.repeat(list(embedded), [len(rows) for rows in embedded.values()])
        aurocs = []
        for name in CIFAR_CLASSES:
            bank = Bank(embed(f"train/{name}/", 1000), k=2)
            scores = [bank.score(row) for rows in embedded.values() for row in rows]
            aurocs.append(roc_auc_score(truth != name, scores))
    return float(np.mean(aurocs))


def print_row(name: str, backbone: Named, figures: Sequence[float]) -> None:
    """One row of the table."""
    print(f"| {name} | {backbone.text} | {' | '.join(f'{figure:.4f}' for figure in figures)} |", flush=True)


def times_of(backbones: Sequence[Named], images: LabelledImages, *, rounds: int) -> dict[tuple[str, str], float]:
    """Milliseconds of one call, by backbone and precision, with heads that are fitted to the normal images of a set."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    feed = {"image": random_frame(224, 224)[None]}
    ranges = images.train[:: len(images.train) // RANGE_IMAGES]
    calls = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, backbone in enumerate(backbones):
            network, folder = backbone.network(), Path(scratch) / str(number)
            folder.mkdir()
            fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
            export_onnx(network, fp32, head=fit_patch_head(network, lambda: read(images.train), rows=ROWS))
            quantizer = Quantizer(fp32, lambda: map(read_image, ranges), target="x86-vnni", scratch=folder)
            quantizer.write(int8, float_layers=quantizer.stem)
            for precision, path in (("fp32", fp32), ("int8", int8)):
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                calls[backbone.text, precision] = partial(session.run, None, feed)
    return medians(calls, rounds=rounds, warm_up=5)


def main() -> None:
    """Print Markdown tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--backbones", nargs="+", default=DEFAULT, help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--sets", nargs="+", help="tile, short names of papers such as BTN01, cifar; default: all")
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
    if options.sets is None or CIFAR in options.sets:
        for backbone in backbones:
            auroc = cifar(backbone.network(margin=0), options.shared)
            print(f"| {CIFAR} | {backbone.text} | {auroc:.4f} | | | |", flush=True)
    if options.rounds:
        print("\n| backbone | fp32, ms | int8, ms |\n|---|---|---|")
        times = times_of(backbones, sets["tile"], rounds=options.rounds)
        for backbone in backbones:
            print(f"| {backbone.text} | {times[backbone.text, 'fp32']:.2f} | {times[backbone.text, 'int8']:.2f} |")


if __name__ == "__main__":
    main()
