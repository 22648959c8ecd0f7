"""Where patches lie, how feature maps are pooled, and how borders are scaled: figures behind docs/decisions.md.

    OMP_NUM_THREADS=1 python benchmarks/patch_variants.py --shared ../shared [--sets tile BTN01 ...] [--variants ...]

A frozen edge-small sees whole images at 224 x 224 pixels, with 4000 rows and all else as in the product. Variants:
- `product`: 8 pixels of the mean around the input, patches on pixels 8, 24 to 216.
- `corner`: no margin; patches on pixels 0, 16 to 208.
- `scaled`: distances at the four corners and four borders are lowered to the mean inside. The means are those of the
  bank's images, each half compared with a bank of the other half.
- `reflected`: the margin repeats the image in a mirror.
- `mean of 9`, `patch alone`: the weight of the surroundings at the coarsest tap is 1 or 0 instead of a half.
- `fine`: patches every 8 pixels and 1000 rows, which take as long.

`drawn` has a spot on each normal test image (on papers six times), 8 pixels of the input wide, 70 grey levels lighter
or darker, anywhere. `found` is the share of them above every calibration image; `at the border`, of those whose centre
is within 14 pixels of the right or the lower border. `peaks`: normal test images whose map is largest at the border.
Labels are used only for the figures.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from common import SHARED, LabelledImages, magnetic_tile, mask_of, papers, parser_of
from networks import pretrained_network
from patch_scores import places
from sklearn.metrics import roc_auc_score
from torch import Tensor

from msc_edge.anomaly_map import AnomalyMap, MapGeometry, smoothed
from msc_edge.bank import Bank
from msc_edge.images import read_image
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.preprocessing import preset
from msc_edge.scoring import Scoring, Standard
from msc_edge.train.dataset import NormalImage, groups_of, hold_out
from msc_edge.train.folding import folded
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.coreset import Coreset
from msc_edge.train.patches.fit import DIM, MAP_SETTINGS
from msc_edge.train.patches.head import distances_to
from msc_edge.train.patches.substitutes import NO_GROUP, PatchRows
from msc_edge.train.patches.taps import MARGIN, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of

SIDE = 224
GROUPS = {"tile": r"num_([0-9]+)[0-9][0-9]\.jpg"}
HEADINGS = ("patches", "both", "AU-PRO(0.3)", "AU-PRO(0.05)", "drawn, AUROC", "found", "at the border", "peaks")


class Variant(NamedTuple):
    """How patches are made."""

    margin: int = MARGIN
    mode: str = "constant"
    scaled: bool = False
    around: float = 0.5
    """Weight of the 3x3 mean at the coarsest tap; the rest is that of the patch itself."""
    step: int = 1
    """Patches for each position of the coarsest tap, in both directions."""
    rows: int = 4000


VARIANTS = {
    "product": Variant(),
    "corner": Variant(margin=0),
    "scaled": Variant(scaled=True),
    "reflected": Variant(mode="reflect"),
    "mean of 9": Variant(around=1),
    "patch alone": Variant(around=0),
    "fine": Variant(step=2, rows=1000),
}


class Patches:
    """Embeddings and patches of images at the input of the network, uint8 (n, 3, SIDE, SIDE)."""

    def __init__(self, network: EmbeddingNetwork, variant: Variant) -> None:
        self._normalise, self._variant = network.preprocess.normalise, variant
        self._tapped = TappedBackbone(folded(network.backbone), find_taps(network.backbone))

    @torch.no_grad()
    def of(self, images: Tensor) -> tuple[np.ndarray, Tensor]:
        """Unit embeddings (n, dim), and patches (n, rows, columns, channels)."""
        parts = [self._of_batch(batch) for batch in images.split(8)]
        return np.concatenate([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _of_batch(self, images: Tensor) -> tuple[np.ndarray, Tensor]:
        variant = self._variant
        pixels = F.pad(self._normalise(images.float()), [variant.margin] * 4, mode=variant.mode)
        features, (fine, coarse) = self._tapped(pixels)
        fine = _mean(fine)[:, :, :: 2 // variant.step, :: 2 // variant.step]
        coarse = variant.around * _mean(coarse) + (1 - variant.around) * coarse
        if variant.step == 2:  # position i of the coarse map is position 2 i of the fine one
            coarse = _doubled(_doubled(coarse, 2, fine.shape[2]), 3, fine.shape[3])
        first = 1 if variant.margin else 0
        units = [F.normalize(each[:, :, first:, first:], dim=1).permute(0, 2, 3, 1) for each in (fine, coarse)]
        return F.normalize(features, dim=1).numpy(), torch.cat(units, dim=3)


def _mean(feature_map: Tensor) -> Tensor:
    return F.avg_pool2d(feature_map, 3, stride=1, padding=1, count_include_pad=False)


def _doubled(feature_map: Tensor, dim: int, length: int) -> Tensor:
    """A map with a position between every two along `dim`, cut to `length`."""
    following = torch.cat([feature_map.narrow(dim, 1, feature_map.shape[dim] - 1), feature_map.narrow(dim, -1, 1)], dim)
    between = torch.stack([feature_map, (feature_map + following) / 2], dim=dim + 1)
    return between.flatten(dim, dim + 1).narrow(dim, 0, length)


Measured = Callable[[Tensor], tuple[np.ndarray, np.ndarray]]


class Inputs(NamedTuple):
    """The images of a set as the network sees them, and where the drawn spots are, float64 (n, 2)."""

    bank: Tensor
    held_out: Tensor
    test: Tensor
    drawn: Tensor
    centres: np.ndarray


def inputs_of(name: str, images: LabelledImages) -> Inputs:
    """Decode, split as `train` does, draw and resize."""
    listed = [NormalImage(str(path), str(number), "bank") for number, path in enumerate(images.train)]
    groups = groups_of([each.path for each in listed], GROUPS.get(name)).tolist()
    roles = [each.role for each in hold_out(listed, holdout=0.2, groups=groups)]
    train = [read_image(path) for path in images.train]
    test = [read_image(path) for path in images.test]
    normal = [image for image, anomalous in zip(test, images.truth, strict=True) if not anomalous]
    rng = np.random.default_rng(0)
    spots = [_with_spot(image, rng) for image in normal for _ in range(1 if len(normal) > 100 else 6)]
    return Inputs(
        _inputs([image for image, role in zip(train, roles, strict=True) if role == "bank"]),
        _inputs([image for image, role in zip(train, roles, strict=True) if role == "calibration"]),
        _inputs(test),
        _inputs([image for image, _ in spots]),
        np.array([centre for _, centre in spots]),
    )


def _with_spot(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[float, float]]:
    height, width = image.shape[:2]
    y, x, sign = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.choice((-1, 1))
    rows, columns = np.arange(height) * SIDE / height, np.arange(width) * SIDE / width
    distance = np.hypot(rows[:, None] - y, columns - x)
    spot = 70 * sign * np.clip(4.5 - distance, 0, 1)
    return (image + spot[..., None]).clip(0, 255).astype(np.uint8), (y, x)


def _inputs(images: Sequence[np.ndarray]) -> Tensor:
    pixels = (torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in images)
    resized = [F.interpolate(each, (SIDE, SIDE), mode="bilinear", antialias=True) for each in pixels]
    return torch.cat(resized).round().byte()


def distances_of(patches: Patches, in_bank: Tensor, variant: Variant) -> Measured:
    """Fit whitening, bank and scale to patches; the function gives embeddings and patch distances of images."""
    statistics = StreamingCovariance(in_bank.shape[3], torch.device("cpu"))
    for part in in_bank.split(64):
        statistics.add(part.flatten(0, 2))
    whitening = whitening_of(*statistics.moments(), DIM)

    def embedded(grids: Tensor) -> Iterator[Tensor]:
        return ((part - whitening.mean) @ whitening.matrix.T for part in grids.split(64))

    def bank_of(grids: Tensor) -> Tensor:
        coreset = Coreset(variant.rows)
        for part in embedded(grids):
            patches = part.flatten(0, 2)
            coreset.add(PatchRows(patches, torch.full((len(patches),), NO_GROUP)))
        return coreset.select().embeddings

    def compared(grids: Tensor, bank: Tensor) -> Tensor:
        distances = torch.cat([distances_to(bank, part.flatten(0, 2)) for part in embedded(grids)])
        return distances.unflatten(0, grids.shape[:3])

    bank = bank_of(in_bank)
    scale = torch.ones(in_bank.shape[1:3])
    if variant.scaled:
        halves = in_bank.chunk(2)
        seen = torch.cat(
            [compared(*pair) for pair in ((halves[0], bank_of(halves[1])), (halves[1], bank_of(halves[0])))]
        )
        at = torch.from_numpy(places(*in_bank.shape[1:3]))
        for place in range(9):
            scale[at == place] = min(1.0, float(seen[:, at == 4].mean() / seen[:, at == place].mean()))

    def measured(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        embeddings, grids = patches.of(images)
        return embeddings, (compared(grids, bank) * scale).numpy()

    return measured


def measure(images: LabelledImages, inputs: Inputs, network: EmbeddingNetwork, variant: Variant) -> list[float]:
    """The figures of HEADINGS."""
    patches, truth = Patches(network, variant), np.array(images.truth)
    embeddings, in_bank = patches.of(inputs.bank)
    bank, measured = Bank(embeddings), distances_of(patches, in_bank, variant)
    (held_out, calibration), (tested, test), (_, drawn) = map(measured, (inputs.held_out, inputs.test, inputs.drawn))
    smooth = partial(smoothed, smoothing=MAP_SETTINGS.smoothing)
    maps = [np.stack(list(map(smooth, part))) for part in (calibration, test, drawn)]
    of_calibration, of_test, of_drawn = (each.max(axis=(1, 2)) for each in maps)
    image_scores = [np.array([bank.score(each) for each in part]) for part in (held_out, tested)]
    scoring = Scoring.fitted("both", Standard.of_images(image_scores[0], of_calibration), MAP_SETTINGS)
    both = [scoring.score(float(image), float(patch)) for image, patch in zip(image_scores[1], of_test, strict=True)]
    normal = of_test[~truth]
    found = of_drawn > of_calibration.max()
    peaks = [np.unravel_index(each.argmax(), each.shape) for each in maps[1][~truth]]
    last = np.array(maps[1].shape[1:]) - 1
    stride = 16 // variant.step
    metrics = map_metrics_of(images, maps[1], stride, variant.margin and stride // 2 if variant.step == 1 else 0)
    return [
        float(roc_auc_score(truth, of_test)),
        float(roc_auc_score(truth, both)),
        *metrics,
        float(roc_auc_score([0] * len(normal) + [1] * len(of_drawn), np.concatenate([normal, of_drawn]))),
        float(found.mean()),
        float(found[inputs.centres.max(axis=1) > SIDE - 14].mean()),
        float(np.mean([(np.array(peak) == 0).any() or (np.array(peak) == last).any() for peak in peaks])),
    ]


def map_metrics_of(images: LabelledImages, maps: np.ndarray, stride: int, margin: int) -> list[float]:
    """AU-PRO(0.3) and AU-PRO(0.05)."""
    spec, evaluation = preset("whole-frame", image_size=SIDE, margin=margin), MapEvaluation()
    for path, anomalous, grid in zip(images.test, images.truth, maps, strict=True):
        height, width = read_image(path).shape[:2]
        mask = mask_of(path) if anomalous else None
        if mask is None or (mask.any() and mask.shape == (height, width)):
            geometry = MapGeometry.of(spec, height=height, width=width, stride=stride)
            large = AnomalyMap(grid, geometry, limit=np.inf, least_area=1).at_frame()
            evaluation.add(large, mask, "defect" if anomalous else "")
    found = evaluation.result().overall
    return [found.au_pro_30.value if found.au_pro_30 else np.nan, found.au_pro_5.value if found.au_pro_5 else np.nan]


def main() -> None:
    """Print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--sets", nargs="+", help="tile, or short names of papers, such as BTN01; default: all")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"tile": magnetic_tile(options.shared)}
    sets |= {name.split("_")[1]: found for name, found in papers(options.shared).items()}
    network = pretrained_network("edge-small", None)
    print(f"| set | variant | {' | '.join(HEADINGS)} |\n{'|---' * (2 + len(HEADINGS))}|", flush=True)
    for name, images in sets.items():
        if options.sets is None or name in options.sets:
            inputs = inputs_of(name, images)
            for variant in options.variants:
                figures = measure(images, inputs, network, VARIANTS[variant])
                print(f"| {name} | {variant} | {' | '.join(f'{figure:.4f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
