"""Does mean-shifted contrastive fine-tuning help patches? Image AUROC and AU-PRO, frozen and fine-tuned, per part.

    python benchmarks/fine_tuned_patches.py --shared ../shared --out FILE.jsonl [--sets tile BRG01 ...] [--seeds 0 1 2]

Each run fine-tunes edge-small on the normal images of one set with the product's settings (10 epochs of full batches,
at most 80 steps; papers: 10 steps of all images), fits the patch head on them, and scores the test images:
- `frozen`: no fine-tuning.
- `v1`, `v2`, `contrastive`: the losses over the embeddings of whole images.
- `patches`: the mean-shifted loss over patch embeddings: points that both views of an image show are a positive pair,
  all other points of the batch are negatives, and the centre is the mean patch embedding of the normal images.

`synthetic` and `error` are the AUROC of the combined score on synthetic anomalies and the standard error of its
difference from the frozen backbone, which decide in `train` whether fine-tuned weights are kept. Test labels are only
used for the figures. Lines are appended to FILE.jsonl, and runs that are in it are skipped; --table prints the means.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from common import SHARED, LabelledImages, json_lines, magnetic_tile, mask_of, papers, parser_of
from networks import pretrained_network
from sklearn.metrics import roc_auc_score
from torch import Tensor

from msc_edge.anomaly_map import AnomalyMap, MapGeometry, smoothed
from msc_edge.bank import Bank
from msc_edge.images import DecodePolicy, read_image
from msc_edge.map_metrics.metrics import MapEvaluation
from msc_edge.preprocessing import preset
from msc_edge.scoring import Scoring, Standard
from msc_edge.train.checkpoint_selection import CheckpointEvaluator, held_out_for_selection, standard_error
from msc_edge.train.dataset import held_out_blocks
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import batch_of, fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.patches.fit import MAP_SETTINGS, fit_patch_head, outputs
from msc_edge.train.patches.taps import MARGIN, TappedBackbone, find_taps
from msc_edge.train.settings import FineTuning, fine_tuning
from msc_edge.train.views import ViewDraws, crop_box, make_views

RECIPES = ("frozen", "v1", "v2", "contrastive", "patches")
LOSSES: dict[str, str] = {"v1": "v1", "contrastive": "contrastive"}  # v2 otherwise
POINTS = 8  # of each image, in one step of `patches`
ROWS = 4000
SPEC = preset("whole-frame", image_size=224, margin=MARGIN)
FIGURES = ("image", "patch", "both", "au_pro", "synthetic")

Boxes = list[tuple[int, int, int, int]]


def data_sets(shared: Path) -> dict[str, LabelledImages]:
    """magnetic_tile as `tile`, and the papers by the short form of their names."""
    return {"tile": magnetic_tile(shared)} | {name.split("_")[1]: found for name, found in papers(shared).items()}


def read(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Image files, decoded, with their names."""
    return decoded(Path("/"), [str(path.resolve()) for path in paths], DecodePolicy(), task="decoding")


class PatchTraining:
    """The mean-shifted loss over patch embeddings; everything else as in `msc_edge.train.fine_tune`."""

    def __init__(self, network: EmbeddingNetwork, copies: Sequence[Tensor], settings: FineTuning) -> None:
        backbone = network.backbone
        if settings.frozen_up_to:
            backbone.freeze_up_to(settings.frozen_up_to)
        self._network, self._copies, self._settings = network, copies, settings
        self._taps = find_taps(backbone)
        self._tapped = TappedBackbone(backbone, self._taps)
        trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self._side = network.preprocess.spec.image_size

    def run(self) -> None:
        """Train for all steps."""
        center = self._center()
        for step in range(self._settings.steps):
            chosen, draws = batch_of(step, images=len(self._copies), settings=self._settings)
            images = [self._copies[i] for i in chosen]
            boxes = [[_box(image, draw, i) for i, image in enumerate(images)] for draw in draws]
            points, shared = _common_points(*boxes, generator=torch.Generator().manual_seed(step))
            first, second = (
                self._at(draw, images, box, points)[shared] for draw, box in zip(draws, boxes, strict=True)
            )
            loss = mean_shifted_loss(first, second, center, temperature=self._settings.temperature)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    @torch.no_grad()
    def _center(self) -> Tensor:
        """The mean patch embedding of the normal images, (dim,)."""
        sums: list[Tensor] = []
        for copy in self._copies:
            pixels = self._network.prepare(copy.permute(1, 2, 0).contiguous().numpy())
            rows = torch.linspace(-0.9, 0.9, 7)
            grid = torch.stack(torch.meshgrid(rows, rows, indexing="xy"), dim=-1).reshape(1, 1, -1, 2)
            sums.append(self._sampled(pixels, grid).mean(dim=0))
        return torch.stack(sums).mean(dim=0)

    def _at(self, draw: ViewDraws, images: Sequence[Tensor], boxes: Boxes, points: Tensor) -> Tensor:
        """Patch embeddings at points (B, POINTS, 2), x and y in pixels of the images: (B * POINTS, dim), unit rows."""
        views = make_views(images, draw, size=self._side, device=torch.device("cpu"))
        corner = torch.tensor([[left, top] for top, left, _, _ in boxes])[:, None]
        size = torch.tensor([[width, height] for _, _, height, width in boxes])[:, None]
        within = (points - corner) / size * 2 - 1
        within[..., 0] *= torch.where(draw.flip, -1.0, 1.0)[:, None]
        normalised = self._network.preprocess.normalise(views).contiguous(memory_format=torch.channels_last)
        return self._sampled(normalised, within[:, None])

    def _sampled(self, pixels: Tensor, grid: Tensor) -> Tensor:
        parts = []
        for each in self._tapped(pixels)[1]:
            means = F.normalize(F.avg_pool2d(each, 3, stride=1, padding=1, count_include_pad=False), dim=1)
            sampled = F.grid_sample(means, grid.expand(len(pixels), -1, -1, -1), align_corners=False)
            parts.append(sampled[:, :, 0].transpose(1, 2).flatten(0, 1))
        return F.normalize(torch.cat(parts, dim=1), dim=1)


def _box(image: Tensor, draw: ViewDraws, i: int) -> tuple[int, int, int, int]:
    return crop_box(image.shape[1:], draw.area[i].tolist(), draw.log_ratio[i].tolist(), draw.corner[i].tolist())


def _common_points(first: Boxes, second: Boxes, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random points in both boxes of each image, (B, POINTS, 2), and which of them exist, bool (B * POINTS,)."""
    a, b = torch.tensor(first), torch.tensor(second)
    low = torch.maximum(a[:, :2], b[:, :2])
    high = torch.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    points = low[:, None] + torch.rand(len(a), POINTS, 2, generator=generator) * (high - low)[:, None]
    exist = (high - low > 8).all(dim=1)
    return points.flip(-1), exist.repeat_interleave(POINTS)


def train(network: EmbeddingNetwork, recipe: str, copies: list[Tensor], seed: int) -> int:
    """Fine-tune in place; returns the number of steps."""
    loss = LOSSES.get(recipe, "v2")
    batch = min(64, len(copies))
    options = FineTuningOptions(
        steps=0 if recipe == "frozen" else min(80, 10 * (len(copies) // batch)), batch=batch, select="last"
    )
    settings = fine_tuning(options, backbone=network.backbone, images=len(copies), recipe=loss, seed=seed)
    if recipe == "patches":
        PatchTraining(network, copies, settings).run()
    elif settings.steps:
        initial = network.embed_all(("", copy.permute(1, 2, 0).contiguous().numpy()) for copy in copies)
        with TemporaryDirectory() as scratch:
            fine_tune(
                launch_fabric("cpu", 1, "auto"), network, copies, initial, settings,
                folder=Path(scratch), checkpoint_every=10**9,
            )  # fmt: skip
    network.backbone.requires_grad_(False)
    return settings.steps


def figures_of(network: EmbeddingNetwork, images: LabelledImages, held: set[int]) -> dict[str, float]:
    """Image AUROC of the parts and of the combined score, and AU-PRO(0.3), on the test images."""
    in_bank = [path for i, path in enumerate(images.train) if i not in held]
    held_out = [path for i, path in enumerate(images.train) if i in held]
    head = fit_patch_head(network, lambda: read(in_bank), rows=ROWS)
    bank = Bank(network.embed_all(read(in_bank)))
    scores, maps = [], MapEvaluation()
    for number, ((embedding, distances), path) in enumerate(
        zip(outputs(network, head, read(held_out + images.test)), held_out + images.test, strict=True)
    ):
        grid = smoothed(distances, smoothing=MAP_SETTINGS.smoothing)
        scores.append((bank.score(embedding), float(grid.max())))
        if number >= len(held_out):
            image = read_image(path)
            truth = images.truth[number - len(held_out)]
            mask = mask_of(path) if truth else None
            if mask is None or (mask.any() and mask.shape == image.shape[:2]):
                geometry = MapGeometry.of(
                    network.preprocess.spec, height=image.shape[0], width=image.shape[1], stride=16
                )
                large = AnomalyMap(grid, geometry, limit=np.inf, least_area=1).at_frame()
                maps.add(large, mask, "defect" if truth else "")
    of_images, of_patches = np.array(scores).T
    standard = Standard.of_images(of_images[: len(held_out)], of_patches[: len(held_out)])
    scoring = Scoring.fitted("both", standard, MAP_SETTINGS)
    both = [scoring.score(*each) for each in scores[len(held_out) :]]
    parts = {"image": of_images[len(held_out) :], "patch": of_patches[len(held_out) :], "both": both}
    aurocs = {name: round(float(roc_auc_score(images.truth, found)), 4) for name, found in parts.items()}
    found = maps.result().overall.au_pro_30
    return aurocs | ({"au_pro": round(found.value, 4)} if found else {})


def measure(name: str, images: LabelledImages, seed: int, recipes: Sequence[str], out: Path) -> None:
    """All recipes on one set with one seed."""
    frozen_wins = None
    lines = json_lines(out)
    for recipe in recipes:
        run = {"set": name, "recipe": recipe, "seed": seed}
        if any(run.items() <= line.items() for line in lines) and recipe != "frozen":
            continue
        network = pretrained_network("edge-small", None, preprocessing=SPEC)
        held = held_out_blocks(len(images.train), round(0.2 * len(images.train)))
        copies = [
            training_copy(image, network.preprocess.spec)
            for i, (_, image) in enumerate(read(images.train))
            if i not in held
        ]
        selection = held_out_for_selection(max(len(copies), 40))
        chosen = {i for i in selection if i < len(copies)}
        held_copies, others = (
            [copy for i, copy in enumerate(copies) if (i in chosen) == side] for side in (True, False)
        )
        evaluator = CheckpointEvaluator(network, held_copies, others, seed=seed, scores="both")
        steps = train(network, recipe, others, seed)
        wins = evaluator.evaluate(steps).mean_wins
        frozen_wins = wins if recipe == "frozen" else frozen_wins
        if any(run.items() <= line.items() for line in lines):
            continue
        line = run | {"steps": steps, "synthetic": round(float(wins.mean()), 4)}
        if frozen_wins is not None:
            line["error"] = round(standard_error(wins - frozen_wins), 4)
        line |= figures_of(network, images, held)
        print(json.dumps(line), flush=True)
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")


def show(out: Path) -> None:
    """Print the means over the seeds, of each set and of the papers."""
    lines = json_lines(out)
    sets = list(dict.fromkeys(line["set"] for line in lines))
    groups = {name: [name] for name in sets} | {"papers, mean": [name for name in sets if name != "tile"]}
    print(f"| set | recipe | seeds | {' | '.join(FIGURES)} | kept |\n{'|---' * (len(FIGURES) + 4)}|")
    for group, names in groups.items():
        for recipe in RECIPES:
            found = [line for line in lines if line["set"] in names and line["recipe"] == recipe]
            if not found:
                continue
            frozen = {(line["set"], line["seed"]): line["synthetic"] for line in lines if line["recipe"] == "frozen"}
            gains = [line["synthetic"] - frozen[line["set"], line["seed"]] - line.get("error", 0) for line in found]
            means = [np.mean([line[figure] for line in found if figure in line]) for figure in FIGURES]
            kept = sum(gain > 0 for gain in gains) if recipe != "frozen" else ""
            seeds = len({line["seed"] for line in found})
            print(f"| {group} | {recipe} | {seeds} | {' | '.join(f'{mean:.4f}' for mean in means)} | {kept} |")


def main() -> None:
    """Measure, or print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--sets", nargs="+", help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--table", action="store_true", help="print the means of FILE.jsonl")
    options: argparse.Namespace = parser.parse_args()
    if options.table:
        show(options.out)
        return
    for seed in options.seeds:
        for name, images in data_sets(options.shared).items():
            if options.sets is None or name in options.sets:
                measure(name, images, seed, options.recipes, options.out)


if __name__ == "__main__":
    main()
