"""Distil `edge-small-2` from several teachers at once, with patches matched at every position.

    python benchmarks/distil_dense.py --shared ../shared --work DIR [--steps 3600] [--seed 0] [--start FILE]

The student starts as EfficientNet-Lite0, pruned to its number of blocks and channels, or from --start FILE. Teachers:
- of the embedding, EfficientNet-Lite0 and MobileNetV2: the even channels are those of the first, the odd ones those of
  the second, each half with half of the square norm. Squared distances are then nearly the mean of both teachers'.
- of the patches, both and ResNet-18 to layer3: at every position of stride 16 (taps 8 and 16), and of stride 8 (tap 8
  alone), a linear map of the student's patch is the teacher's whitened patch. A kit whitens the student's patches by
  another linear map. The linear maps exist in training only.

Images: natural_1000, magnetic_tile/train/good, and the first 32 normal images of each paper, in strongly augmented
crops of several sizes. A tenth is held out; no defect, mask or test image is read.

Writes DIR/student.safetensors (float16), DIR/metrics.csv and DIR/checkpoint.pt, from which the same command continues.
`unexplained` is the share of a teacher's spread on held-out images that the student misses. Measure the student with
`backbones.py --backbones edge-small-2=DIR/student.safetensors edge-small`.
"""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from common import SHARED, papers, parser_of
from torch import Tensor, nn

from msc_edge.preprocessing import preset
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.edge_small import EDGE_SMALL_2, STAGES_2
from msc_edge.train.backbones.efficientnet_lite import STAGES, lite_architecture
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.distillation.crops import batch_of, make_crops
from msc_edge.train.distillation.networks import accept_images_of
from msc_edge.train.distillation.pruning import initialise_pruned
from msc_edge.train.distillation.settings import Distillation, learning_rate_at
from msc_edge.train.distillation.student_file import write_student
from msc_edge.train.distillation.unlabelled import find_unlabelled, read_unlabelled
from msc_edge.train.fast_convolutions import FastConvolutions
from msc_edge.train.folding import folded
from msc_edge.train.loading import training_copy
from msc_edge.train.patches.head import grids_of
from msc_edge.train.patches.taps import Tap, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.weight_files import weights_from_file
from msc_edge.train.weights import load_into, pretrained_backbone

LITE0 = "efficientnet_lite0"
WEIGHTS = {  # of teachers that are in ../shared: file, and the last stage in it
    "mobilenet_v2": ("mobilenet_v2.safetensors", None),
    "resnet18": ("resnet18_to_layer3.safetensors", "layer3"),
}
EMBEDDING = (LITE0, "mobilenet_v2")  # teachers of the embedding
TEACHERS = (*EMBEDDING, "resnet18")
STRIDES = ((8, 16), (8,))  # taps of the patches that are matched
SIDE, BATCH, LEARNING_RATE, DIM = 224, 32, 5e-4, 256
HELD_OUT_EVERY, FITTED_ON, PRUNED_ON, EVERY = 10, 16, 4, 100  # images, batches of crops, batches, steps
RIDGE = 1e-3  # of the mean variance


class Outputs(NamedTuple):
    """What a network makes of crops."""

    features: Tensor
    """(B, dim)."""
    maps: dict[int, Tensor]
    """The taps, (B, C, h, w), by stride."""

    def patches(self, taps: Sequence[Tap]) -> Tensor:
        """Patches (n, channels) of all positions, as the patch head makes them, before whitening."""
        maps = [self.maps[tap.stride].float() for tap in taps]
        return torch.cat(grids_of(maps, taps), dim=3).flatten(0, 2)


class Tapped:
    """A network and its taps."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.taps = backbone, find_taps(backbone)
        self._tapped = TappedBackbone(backbone, self.taps)

    def __call__(self, pixels: Tensor) -> Outputs:
        """Features and maps."""
        features, maps = self._tapped(pixels)
        return Outputs(features, {tap.stride: each for tap, each in zip(self.taps, maps, strict=True)})

    def taps_at(self, strides: Sequence[int]) -> list[Tap]:
        """Those of the taps."""
        return [tap for tap in self.taps if tap.stride in strides]


def teacher(name: str, shared: Path, student: Backbone) -> Tapped:
    """A frozen teacher that takes images normalised for the student."""
    file, stage = WEIGHTS.get(name, (None, None))
    backbone, _ = pretrained_backbone(name, shared / "weights" / file if file else None, stop_at=stage)
    backbone = folded(backbone).to(memory_format=torch.channels_last).requires_grad_(False)
    accept_images_of(student, backbone)
    return Tapped(backbone)


def shortened() -> Backbone:
    """EfficientNet-Lite0 with as many blocks as the student: the first ones of each stage and the last one stay."""
    complete, _ = pretrained_backbone(LITE0, None, stop_at=None)
    blocks = list(complete.chain())
    places, start = [0], 1
    for theirs, ours in zip(STAGES, STAGES_2, strict=True):
        places += [*range(start, start + ours.repeats - 1), start + theirs.repeats - 1]
        start += theirs.repeats
    stages = [replace(theirs, repeats=ours.repeats) for theirs, ours in zip(STAGES, STAGES_2, strict=True)]
    short = Backbone(lite_architecture(f"{LITE0}, shortened", stages, pretrained=complete.architecture.pretrained))
    for (_, module), place in zip(short.chain(), [*places, start], strict=True):
        module.load_state_dict(blocks[place][1].state_dict())
    return short


def least_squares(inputs: Tensor, targets: Tensor) -> nn.Linear:
    """The linear map from rows (n, dim) to rows (n, dim'), with a little ridge: training starts near its optimum."""
    mean, to_mean = inputs.mean(dim=0), targets.mean(dim=0)
    inputs, targets = (inputs - mean).double(), (targets - to_mean).double()
    squares = inputs.T @ inputs
    squares.diagonal().add_(RIDGE * squares.diagonal().mean())
    found = nn.Linear(inputs.shape[1], targets.shape[1])
    with torch.no_grad():
        found.weight.copy_(torch.linalg.solve(squares, inputs.T @ targets).T)
        found.bias.copy_(to_mean - found.weight @ mean)
    return found


class EmbeddingTarget(nn.Module):
    """Unit embeddings of two teachers in one: every second channel of each."""

    def __init__(self, theirs: Sequence[Mapping[str, Outputs]]) -> None:
        """`theirs`: outputs of the teachers for batches of crops."""
        super().__init__()
        self.name = f"embedding of {' and '.join(EMBEDDING)}"
        rows = torch.cat([self._target(each) for each in theirs])
        self._spread = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean())

    def _target(self, theirs: Mapping[str, Outputs]) -> Tensor:
        halves = [F.normalize(theirs[name].features.float()[:, half::2], dim=1) for half, name in enumerate(EMBEDDING)]
        return torch.stack(halves, dim=2).flatten(1) * 0.5**0.5

    def loss(self, ours: Outputs, theirs: Mapping[str, Outputs]) -> Tensor:
        """Mean squared distance, divided by the spread: 1 for a constant."""
        found = F.normalize(ours.features.float(), dim=1)
        return (found - self._target(theirs)).square().sum(dim=1).mean() / self._spread


class PatchTarget(nn.Module):
    """The whitened patches of a teacher."""

    matrix: Tensor
    mean: Tensor

    def __init__(
        self, name: str, strides: Sequence[int], networks: Sequence[Tapped], outputs: Sequence[Sequence[Outputs]]
    ) -> None:
        """`networks`: teacher and student. `outputs`: of both, for the same crops."""
        super().__init__()
        self.name, self._teacher = f"patches of {name} at {' and '.join(map(str, strides))}", name
        self._their_taps, self._our_taps = (network.taps_at(strides) for network in networks)
        theirs, ours = outputs
        statistics = StreamingCovariance(sum(tap.channels for tap in self._their_taps), torch.device("cpu"))
        for each in theirs:
            statistics.add(each.patches(self._their_taps))
        whitening = whitening_of(*statistics.moments(), DIM)
        self.register_buffer("matrix", whitening.matrix * len(whitening.matrix) ** 0.5)  # a direction has variance 1
        self.register_buffer("mean", whitening.mean)
        inputs = torch.cat([each.patches(self._our_taps) for each in ours])
        self.adapter = least_squares(inputs, torch.cat([self._targets(each) for each in theirs]))

    def _targets(self, theirs: Outputs) -> Tensor:
        return (theirs.patches(self._their_taps) - self.mean) @ self.matrix.T

    def loss(self, ours: Outputs, theirs: Mapping[str, Outputs]) -> Tensor:
        """Mean squared difference: 1 for a constant."""
        target = self._targets(theirs[self._teacher])
        return (self.adapter(ours.patches(self._our_taps)) - target).square().mean()


class Lesson(nn.Module):
    """The student with the linear maps of all targets."""

    def __init__(
        self,
        student: Tapped,
        teachers: Mapping[str, Tapped],
        fitted_on: Sequence[Tensor],
    ) -> None:
        """`fitted_on`: crops that whitening and spreads are measured on."""
        super().__init__()
        self._tapped, self._teachers = student, teachers
        self.student = student.backbone
        with torch.no_grad():
            known = [{name: network(crops) for name, network in teachers.items()} for crops in fitted_on]
            own = [student(crops) for crops in fitted_on]
            targets = [
                EmbeddingTarget(known),
                *(
                    PatchTarget(name, strides, (teachers[name], student), ([each[name] for each in known], own))
                    for name in TEACHERS
                    for strides in STRIDES
                ),
            ]
        self.names = [target.name for target in targets]
        self._targets = targets
        self.adapters = nn.ModuleList(targets)

    def forward(self, pixels: Tensor) -> Tensor:
        """Losses, one of each target."""
        with torch.no_grad():
            theirs = {name: network(pixels) for name, network in self._teachers.items()}
        ours = self._tapped(pixels)
        return torch.stack([target.loss(ours, theirs) for target in self._targets])


def images_of(shared: Path) -> list[str | Path]:
    """The training images: without labels, defects and test images."""
    of_papers = [path for images in papers(shared).values() for path in images.train]
    return [shared / "data/natural_1000.zip", shared / "data/magnetic_tile/train/good", *of_papers]


class Images:
    """Training copies to crop from, and held-out images."""

    def __init__(self, shared: Path, preprocess: Preprocess, *, seed: int) -> None:
        self._normalise, self._seed = preprocess.normalise, seed
        self._training: list[Tensor] = []
        held_out: list[Tensor] = []
        copies = preset("paper", image_size=SIDE)  # its training copies keep the aspect ratio
        for number, (_, image) in enumerate(read_unlabelled(find_unlabelled(images_of(shared)))):
            if number % HELD_OUT_EVERY == 0:
                held_out.append(preprocess(torch.from_numpy(image)[None]))
            else:
                self._training.append(training_copy(image, copies))
        self.held_out = torch.cat(held_out).split(16)
        print(f"{len(self._training)} images, {len(held_out)} held out", flush=True)

    def crops_of(self, step: int) -> Tensor:
        """The crops of a step, normalised, (BATCH, 3, side, side)."""
        chosen, draws = batch_of(step, images=len(self._training), batch=BATCH, image_size=SIDE, seed=self._seed)
        whole = slice(0, BATCH)
        crops = make_crops([self._training[i] for i in chosen], draws, whole, device=torch.device("cpu"))
        return self._normalise(crops).contiguous(memory_format=torch.channels_last)


def train(lesson: Lesson, images: Images, settings: Distillation, folder: Path) -> None:
    """Train in place, from the checkpoint in the folder if there is one."""
    optimizer = torch.optim.AdamW(lesson.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoint, first, rows = folder / "checkpoint.pt", 0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        lesson.load_state_dict(stored["lesson"])
        optimizer.load_state_dict(stored["optimizer"])
        first, rows = stored["step"], stored["rows"]
    started, since = time.monotonic(), []
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        crops = images.crops_of(step)
        with torch.autocast("cpu", torch.bfloat16), FastConvolutions(lesson):
            losses = lesson(crops)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        since.append(losses.detach())
        done = step + 1
        if done % EVERY and done != settings.steps:
            continue
        with torch.no_grad():
            found = torch.stack([lesson(part) for part in images.held_out]).mean(dim=0)
        rows.append([done, *torch.stack(since).mean(dim=0).tolist(), *found.tolist()])
        since.clear()
        state = {"lesson": lesson.state_dict(), "optimizer": optimizer.state_dict(), "step": done, "rows": rows}
        torch.save(state, checkpoint.with_suffix(".partial"))
        checkpoint.with_suffix(".partial").replace(checkpoint)
        write(folder / "metrics.csv", lesson.names, rows)
        print(f"{time.monotonic() - started:.0f} s", *(f"{value:.4g}" for value in rows[-1]), flush=True)


def main() -> None:
    """Distil."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3600, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, metavar="FILE", help="first weights; default: EfficientNet-Lite0, pruned")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    settings = Distillation(
        steps=options.steps, batch=BATCH, learning_rate=LEARNING_RATE, image_size=SIDE, dtype="bf16", seed=options.seed
    )
    student = build_backbone(EDGE_SMALL_2).to(memory_format=torch.channels_last)
    spec = preset("whole-frame", image_size=SIDE, mean=student.architecture.mean, std=student.architecture.std)
    images = Images(options.shared, Preprocess(spec), seed=options.seed)
    teachers = {name: teacher(name, options.shared, student) for name in TEACHERS}
    fitted_on = [images.crops_of(step) for step in range(FITTED_ON)]
    if options.start:
        load_into(student, weights_from_file(options.start).state, source=str(options.start))
    else:
        initialise_pruned(student, shortened(), fitted_on[:PRUNED_ON])
    lesson = Lesson(Tapped(student), teachers, fitted_on)
    train(lesson, images, settings, options.work)
    out = options.work / "student.safetensors"
    out.unlink(missing_ok=True)
    write_student(out, student, half=True, checkpoint=options.work / "checkpoint.pt")


def write(path: Path, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    """Write metrics.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(f"loss: {name}" for name in names), *(f"unexplained: {name}" for name in names)])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
