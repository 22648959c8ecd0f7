"""Images a second of fine-tuning, beside a plain loop: Pillow, torchvision's transforms, float32.

    python benchmarks/training.py IMAGE_TABLE --backbone mobilenet_v2 --weights FILE [--stop-at STAGE] [--freeze-to STAGE]

The plain loop is the method as one would write it down: a data set that opens each file with Pillow and draws two views
with torchvision's transforms of the paper, a DataLoader with as many workers as cores, a network in float32 whose
frozen stages have no gradients, the same loss and optimizer. Both train on the same images, in turns; each round
begins with the same weights. Also: the loss of both networks for the same views, step after step.
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from msc_edge.image_files import find_images
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD, preset
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.train.backbones import build_backbone, last_stage_at_stride
from msc_edge.train.devices import launched_fabric
from msc_edge.train.fine_tune import batch_of, fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import FineTuning, fine_tuning
from msc_edge.train.views import make_views
from msc_edge.train.weights import load_into, pretrained_weights

PAPER = transforms.Compose(
    [
        transforms.Resize((256, 256)),
        transforms.RandomResizedCrop(224, scale=(0.2, 1)),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([transforms.GaussianBlur(13, (0.1, 2.0))], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
)


class Files(Dataset):
    """Two views of each image file, drawn anew each time."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = PIL.Image.open(self._paths[index]).convert("RGB")
        return PAPER(image), PAPER(image)  # pyright: ignore[reportReturnType]  (ToTensor makes them tensors)


class Subject:
    """One backbone, given its weights anew at each round."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._weights = pretrained_weights(options.backbone, options.weights)

    def network(self) -> EmbeddingNetwork:
        """With the pretrained weights."""
        backbone = build_backbone(self._options.backbone, stop_at=self._options.stop_at)
        load_into(backbone, self._weights.state, source=self._weights.origin.source)
        return EmbeddingNetwork(backbone, preset("whole-frame")).eval()


def plain(
    subject: Subject, loader: DataLoader, center: torch.Tensor, settings: FineTuning
) -> tuple[float, list[float]]:
    """Seconds of the steps behind the first, which waits for the workers, and the losses."""
    backbone = subject.network().backbone
    if settings.frozen_up_to:
        backbone.freeze_up_to(settings.frozen_up_to)
    trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    losses, begun = [], 0.0
    for number, (first, second) in enumerate(islice(loader, settings.steps)):
        if number == 1:
            begun = time.perf_counter()
        one, other = F.normalize(backbone(first), dim=1), F.normalize(backbone(second), dim=1)
        loss = mean_shifted_loss(one, other, center, temperature=settings.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return time.perf_counter() - begun, losses


def ours(
    subject: Subject, copies: list[torch.Tensor], initial: np.ndarray, settings: FineTuning
) -> tuple[float, list[float]]:
    """The same, by the product."""
    times: list[float] = []

    def report(task: str, done: int, total: int, note: str = "") -> None:
        del task, done, total, note
        times.append(time.perf_counter())

    fabric = launched_fabric("cpu", 1, settings.precision)
    with tempfile.TemporaryDirectory() as scratch:
        fine_tune(
            fabric,
            subject.network(),
            copies,
            initial,
            settings,
            folder=Path(scratch),
            checkpoint_every=10**6,
            report=report,
        )
        rows = Path(scratch, "metrics.csv").read_text().splitlines()
    return times[-1] - times[0], [float(row.split(",")[1]) for row in rows[1:]]


def same_views(subject: Subject, copies: list[torch.Tensor], center: torch.Tensor, settings: FineTuning) -> float:
    """The largest relative difference of the two losses over the steps, both networks learning from the same views."""
    networks = [subject.network() for _ in range(2)]
    optimizers = []
    for network in networks:
        if settings.frozen_up_to:
            network.backbone.freeze_up_to(settings.frozen_up_to)
        trainable = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
        optimizers.append(torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay))
    networks[1].backbone.to(memory_format=torch.channels_last)
    worst = 0.0
    for step in range(settings.steps):
        chosen, draws = batch_of(step, images=len(copies), settings=settings)
        views = torch.cat(
            [make_views([copies[i] for i in chosen], draw, size=224, device=torch.device("cpu")) for draw in draws]
        )
        losses = []
        for network, optimizer, fast in zip(networks, optimizers, (False, True), strict=True):
            pixels = network.preprocess.normalise(views)
            pixels = pixels.contiguous(memory_format=torch.channels_last) if fast else pixels
            with torch.autocast("cpu", torch.bfloat16, enabled=fast and settings.precision == "bf16"):
                features = network.backbone(pixels)
            one, other = F.normalize(features.float(), dim=1).chunk(2)
            loss = mean_shifted_loss(one, other, center, temperature=settings.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        worst = max(worst, abs(losses[1] - losses[0]) / losses[0])
    return worst


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--stop-at")
    parser.add_argument("--freeze-to")
    parser.add_argument("--steps", type=int, default=4, help="of a round; the first is not counted")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = list(find_images([options.images]).paths)[:512]
    subject = Subject(options)
    network = subject.network()
    settings = fine_tuning(
        "whole-frame",
        backbone=network.backbone,
        images=len(paths),
        steps=options.steps,
        frozen_up_to=options.freeze_to or last_stage_at_stride(network.backbone, 8),
        select="last",
        precision="bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32",
    )
    names = [str(path.resolve()) for path in paths]
    images = list(decoded(Path("/"), names, DecodePolicy(), task="reading"))
    copies = [training_copy(image, network.preprocess.spec) for _, image in images]
    initial = network.embed_all(images)
    center = torch.from_numpy(initial).mean(dim=0)
    loader = DataLoader(
        Files(paths), settings.batch, shuffle=True, drop_last=True, num_workers=usable_cores(), persistent_workers=True
    )
    print(f"{settings.model_dump()}", flush=True)
    ratios = []
    for _ in range(options.rounds):
        (theirs, their_losses), (own, own_losses) = (
            plain(subject, loader, center, settings),
            ours(subject, copies, initial, settings),
        )
        counted = (settings.steps - 1) * settings.batch
        ratios.append(theirs / own)
        print(
            f"plain {counted / theirs:.1f} images a second, ours {counted / own:.1f}, ratio {ratios[-1]:.2f}; "
            f"mean loss {np.mean(their_losses):.4f} and {np.mean(own_losses):.4f}",
            flush=True,
        )
    print(f"median ratio {np.median(ratios):.2f}")
    worst = same_views(subject, copies, center, settings)
    print(f"with the same views, over {settings.steps} steps, the losses differ by at most {worst:.2%}")


if __name__ == "__main__":
    main()
