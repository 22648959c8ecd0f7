"""Distil a small backbone from several teachers at once, with patches matched at every position.

    python benchmarks/distil_dense.py --shared ../shared --work DIR [--steps 3000] [--start edge-small]
        [--patch-teachers efficientnet_lite2 resnet18] [--seed 0]

The study behind `edge-small`. Teachers, all frozen:
- `mobilenet_v2`: the student's embedding is its embedding.
- `efficientnet_lite2`: a linear map of the student's embedding is its embedding.
- each of --patch-teachers: at every position of stride 16 (taps 8 and 16), and of stride 8 (tap 8 alone), a linear map
  of the student's patch is the teacher's whitened patch. A kit whitens the student's patches by another linear map.
The linear maps exist in training only. Images: natural_1000, magnetic_tile/train/good, and the first 32 normal images
of each paper, in strongly augmented crops of several sizes. A tenth is held out; no defect, mask or test image is read.

Writes DIR/student.safetensors (float16), DIR/metrics.csv and DIR/checkpoint.pt, from which the same command continues.
`unexplained` is the share of a teacher's spread on held-out images that the student misses. Measure the student with
`backbones.py --backbones edge-small=DIR/student.safetensors` and `edge_small.py --weights DIR/student.safetensors`.
"""

import csv
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from common import SHARED, papers, parser_of
from torch import Tensor, nn

from msc_edge.preprocessing import preset
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.distillation.crops import batch_of, make_crops
from msc_edge.train.distillation.networks import accept_images_of
from msc_edge.train.distillation.settings import Distillation, learning_rate_at
from msc_edge.train.distillation.student_file import write_student
from msc_edge.train.distillation.unlabelled import find_unlabelled, read_unlabelled
from msc_edge.train.folding import folded
from msc_edge.train.loading import training_copy
from msc_edge.train.patches.head import grids_of
from msc_edge.train.patches.taps import Tap, TappedBackbone, find_taps
from msc_edge.train.patches.whitening import StreamingCovariance, whitening_of
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.weights import pretrained_backbone

WEIGHTS = {  # of teachers that are in ../shared: file, and the last stage in it
    "mobilenet_v2": ("mobilenet_v2.safetensors", None),
    "resnet18": ("resnet18_to_layer3.safetensors", "layer3"),
}
SAME, MAPPED = "mobilenet_v2", "efficientnet_lite2"  # teachers of the embedding
STRIDES = ((8, 16), (8,))  # taps of the patches that are matched
SIDE, BATCH, LEARNING_RATE, DIM = 224, 64, 5e-4, 256
HELD_OUT_EVERY, FITTED_ON, EVERY = 10, 8, 100  # images, batches of crops, steps


def teacher(name: str, shared: Path, student: Backbone) -> Backbone:
    """A frozen teacher that takes images normalised for the student."""
    file, stage = WEIGHTS.get(name, (None, None))
    backbone, _ = pretrained_backbone(name, shared / "weights" / file if file else None, stop_at=stage)
    backbone = folded(backbone).to(memory_format=torch.channels_last).requires_grad_(False)
    accept_images_of(student, backbone)
    return backbone


def patches_of(maps: Sequence[Tensor], taps: Sequence[Tap]) -> Tensor:
    """Patches (n, channels) of all positions, as the patch head makes them, before whitening."""
    return torch.cat(grids_of([each.float() for each in maps], taps), dim=3).flatten(0, 2)


class EmbeddingTarget(nn.Module):
    """A teacher's unit embeddings."""

    def __init__(self, name: str, backbone: Backbone, student_dim: int, *, mapped: bool) -> None:
        super().__init__()
        self.name, self._teacher = f"embedding of {name}", [backbone]  # a list: not a part of the state
        dim = backbone(torch.zeros(1, 3, 64, 64)).shape[1]
        self.adapter = nn.Linear(student_dim, dim) if mapped else nn.Identity()
        self.spread = 1.0

    def fit(self, crops: Sequence[Tensor]) -> None:
        """Measure the spread that the loss is divided by."""
        rows = torch.cat([self.targets(each) for each in crops])
        self.spread = float((rows - rows.mean(dim=0)).square().sum(dim=1).mean())

    def targets(self, pixels: Tensor) -> Tensor:
        """Unit embeddings (B, dim)."""
        return F.normalize(self._teacher[0](pixels).float(), dim=1)

    def loss(self, pixels: Tensor, features: Tensor, _maps: dict[int, Tensor]) -> Tensor:
        """Mean squared distance, divided by the spread."""
        with torch.no_grad():
            theirs = self.targets(pixels)
        ours = F.normalize(self.adapter(features.float()), dim=1)
        return (ours - theirs).square().sum(dim=1).mean() / self.spread


class PatchTarget(nn.Module):
    """A teacher's whitened patches."""

    matrix: Tensor
    mean: Tensor

    def __init__(self, name: str, backbone: Backbone, student_taps: Sequence[Tap], strides: Sequence[int]) -> None:
        super().__init__()
        self.name = f"patches of {name} at {' and '.join(map(str, strides))}"
        self._taps = find_taps(backbone, strides)
        self._teacher = [TappedBackbone(backbone, self._taps)]
        self._student_taps = [tap for tap in student_taps if tap.stride in strides]
        self.adapter = nn.Linear(sum(tap.channels for tap in self._student_taps), DIM)

    def fit(self, crops: Sequence[Tensor]) -> None:
        """Fit the whitening."""
        statistics = StreamingCovariance(sum(tap.channels for tap in self._taps), torch.device("cpu"))
        for each in crops:
            statistics.add(patches_of(self._teacher[0](each)[1], self._taps))
        whitening = whitening_of(*statistics.moments(), DIM)
        self.register_buffer("matrix", whitening.matrix * DIM**0.5)  # each direction has variance 1
        self.register_buffer("mean", whitening.mean)
        if len(self.matrix) < DIM:
            self.adapter = nn.Linear(self.adapter.in_features, len(self.matrix))

    def targets(self, pixels: Tensor) -> Tensor:
        """Whitened patches (n, dim)."""
        return (patches_of(self._teacher[0](pixels)[1], self._taps) - self.mean) @ self.matrix.T

    def loss(self, pixels: Tensor, _features: Tensor, maps: dict[int, Tensor]) -> Tensor:
        """Mean squared difference: 1 for a constant."""
        with torch.no_grad():
            theirs = self.targets(pixels)
        ours = patches_of([maps[tap.stride] for tap in self._student_taps], self._student_taps)
        return (self.adapter(ours) - theirs).square().mean()


class Lesson(nn.Module):
    """The student with the linear maps of all targets."""

    def __init__(self, student: Backbone, targets: Sequence[EmbeddingTarget | PatchTarget]) -> None:
        super().__init__()
        self.names = [target.name for target in targets]
        self._taps = find_taps(student)
        self._student, self._targets = TappedBackbone(student, self._taps), targets
        self.modules_of_targets = nn.ModuleList(targets)  # for their parameters

    def forward(self, pixels: Tensor) -> Tensor:
        """Losses, one of each target."""
        features, maps = self._student(pixels)
        by_stride = {tap.stride: each for tap, each in zip(self._taps, maps, strict=True)}
        return torch.stack([target.loss(pixels, features, by_stride) for target in self._targets])


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


def targets_of(student: Backbone, patch_teachers: Sequence[str], shared: Path) -> list[EmbeddingTarget | PatchTarget]:
    """The targets of all teachers, not fitted."""
    dim, taps = student(torch.zeros(1, 3, 64, 64)).shape[1], find_taps(student)
    teachers = {name: teacher(name, shared, student) for name in (SAME, MAPPED, *patch_teachers)}
    return [
        EmbeddingTarget(SAME, teachers[SAME], dim, mapped=False),
        EmbeddingTarget(MAPPED, teachers[MAPPED], dim, mapped=True),
        *(PatchTarget(name, teachers[name], taps, strides) for name in patch_teachers for strides in STRIDES),
    ]


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
        with torch.autocast("cpu", torch.bfloat16):
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
    parser.add_argument("--start", default="edge-small", help="the student's architecture and first weights")
    parser.add_argument("--patch-teachers", nargs="+", default=["efficientnet_lite2", "resnet18"])
    parser.add_argument("--steps", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    settings = Distillation(
        steps=options.steps, batch=BATCH, learning_rate=LEARNING_RATE, image_size=SIDE, dtype="bf16", seed=options.seed
    )
    student, _ = pretrained_backbone(options.start, None, stop_at=None)
    student = student.to(memory_format=torch.channels_last)
    spec = preset("whole-frame", image_size=SIDE, mean=student.architecture.mean, std=student.architecture.std)
    images = Images(options.shared, Preprocess(spec), seed=options.seed)
    targets = targets_of(student, options.patch_teachers, options.shared)
    with torch.no_grad():
        fitted_on = [images.crops_of(step) for step in range(FITTED_ON)]
        for target in targets:
            target.fit(fitted_on)
    train(Lesson(student, targets), images, settings, options.work)
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
