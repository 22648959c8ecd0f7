"""Fine-tuning speed in images per second, compared with a plain PyTorch loop.

    python benchmarks/training.py IMAGES --backbone mobilenet_v2 --weights FILE [--stop-at STAGE] [--freeze-to STAGE]

The plain loop is the straightforward implementation: a data set that opens each file with Pillow and makes two views
with torchvision's transforms of the paper, a DataLoader with one worker per core, a network in float32 whose frozen
stages have no gradients, the same loss and optimizer. Both loops train on the same images in turns, and each round
starts from the same weights. The script also compares the losses of both networks on the same views, step by step.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from common import found, parser_of
from networks import pretrained_network
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from msc_edge.runtime.processor import usable_cores
from msc_edge.train.backbones.backbone import last_stage_at_stride
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import batch_of, fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.losses.mean_shifted import mean_shifted_loss
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.settings import FineTuning, fine_tuning
from msc_edge.train.views import make_views

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
    """Two random views of each image file, different at each access."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = PIL.Image.open(self._paths[index]).convert("RGB")
        return PAPER(image), PAPER(image)  # pyright: ignore[reportReturnType]  (ToTensor makes them tensors)


NewNetwork = Callable[[], EmbeddingNetwork]
"""Makes a network with the pretrained weights."""


def optimizer_of(network: EmbeddingNetwork, settings: FineTuning) -> torch.optim.SGD:
    """Freeze the first stages as `settings` says; an optimizer of the other parameters."""
    if settings.frozen_up_to:
        network.backbone.freeze_up_to(settings.frozen_up_to)
    trainable = [parameter for parameter in network.backbone.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def learn(
    first: torch.Tensor, second: torch.Tensor, center: torch.Tensor, optimizer: torch.optim.SGD, settings: FineTuning
) -> float:
    """One step of the optimizer for the unit embeddings of two views; the loss before it."""
    loss = mean_shifted_loss(first, second, center, temperature=settings.temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def plain_loop(
    new_network: NewNetwork, loader: DataLoader, center: torch.Tensor, settings: FineTuning
) -> tuple[float, list[float]]:
    """Seconds of the steps after the first, which waits for the workers; and the losses."""
    network = new_network()
    optimizer = optimizer_of(network, settings)
    losses, start = [], 0.0
    epochs = chain.from_iterable(repeat(loader))
    for number, views in enumerate(islice(epochs, settings.steps)):
        if number == 1:
            start = time.perf_counter()
        first, second = (F.normalize(network.backbone(view), dim=1) for view in views)
        losses.append(learn(first, second, center, optimizer, settings))
    return time.perf_counter() - start, losses


def msc_edge_loop(
    new_network: NewNetwork, copies: list[torch.Tensor], initial: np.ndarray, settings: FineTuning
) -> tuple[float, list[float]]:
    """The same for `msc-edge train`."""
    times: list[float] = []
    fabric = launch_fabric("cpu", 1, settings.dtype)
    with tempfile.TemporaryDirectory() as scratch:
        fine_tune(
            fabric,
            new_network(),
            copies,
            initial,
            settings,
            folder=Path(scratch),
            checkpoint_every=10**6,
            on_step=lambda _: times.append(time.perf_counter()),
        )
        rows = Path(scratch, "metrics.csv").read_text().splitlines()
    return times[-1] - times[0], [float(row.split(",")[1]) for row in rows[1:]]


def loss_difference(
    new_network: NewNetwork, copies: list[torch.Tensor], center: torch.Tensor, settings: FineTuning
) -> float:
    """The largest relative difference of the losses of both networks over the steps, on the same views."""
    networks = [new_network() for _ in range(2)]
    optimizers = [optimizer_of(network, settings) for network in networks]
    networks[1].backbone.to(memory_format=torch.channels_last)
    largest = 0.0
    for step in range(settings.steps):
        chosen, draws = batch_of(step, images=len(copies), settings=settings)
        views = torch.cat(
            [make_views([copies[i] for i in chosen], draw, size=224, device=torch.device("cpu")) for draw in draws]
        )
        losses = []
        for network, optimizer, fast in zip(networks, optimizers, (False, True), strict=True):
            pixels = network.preprocess.normalise(views)
            pixels = pixels.contiguous(memory_format=torch.channels_last) if fast else pixels
            with torch.autocast("cpu", torch.bfloat16, enabled=fast and settings.dtype == "bf16"):
                features = network.backbone(pixels)
            first, second = F.normalize(features.float(), dim=1).chunk(2)
            losses.append(learn(first, second, center, optimizer, settings))
        largest = max(largest, abs(losses[1] - losses[0]) / losses[0])
    return largest


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder; its first 512 images are used")
    parser.add_argument("--backbone", default="mobilenet_v2", help="default: %(default)s")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: those of the backbone")
    parser.add_argument("--stop-at", metavar="STAGE", help="the last stage of the backbone; default: all stages")
    parser.add_argument("--freeze-to", metavar="STAGE", help="the last frozen stage; default: the last at stride 8")
    parser.add_argument(
        "--steps", type=int, default=4, help="per round, at least 2: the first is not counted; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps {options.steps}: expected at least 2, because the first step is not counted")
    paths = found(options.images)[:512]
    new_network = partial(pretrained_network, options.backbone, options.weights, stop_at=options.stop_at)
    network = new_network()
    settings = fine_tuning(
        FineTuningOptions(
            steps=options.steps,
            frozen_up_to=options.freeze_to or last_stage_at_stride(network.backbone, 8),
            select="last",
            accelerator="cpu",
            dtype="bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32",
        ),
        backbone=network.backbone,
        images=len(paths),
    )
    names = [str(path.resolve()) for path in paths]
    images = list(decoded(Path("/"), names, DecodePolicy(), task="decoding"))
    copies = [training_copy(image, network.preprocess.spec) for _, image in images]
    initial = network.embed_all(images)
    center = torch.from_numpy(initial).mean(dim=0)
    loader = DataLoader(
        Files(paths), settings.batch, shuffle=True, drop_last=True, num_workers=usable_cores(), persistent_workers=True
    )
    print(f"{settings.model_dump()}", flush=True)
    ratios = []
    for _ in range(options.rounds):
        plain, plain_losses = plain_loop(new_network, loader, center, settings)
        ours, our_losses = msc_edge_loop(new_network, copies, initial, settings)
        counted = (settings.steps - 1) * settings.batch
        ratios.append(plain / ours)
        print(
            f"plain loop {counted / plain:.1f} images per second, msc-edge {counted / ours:.1f}, ratio "
            f"{ratios[-1]:.2f}; mean loss {np.mean(plain_losses):.4f} and {np.mean(our_losses):.4f}",
            flush=True,
        )
    print(f"median ratio {np.median(ratios):.2f}")
    difference = loss_difference(new_network, copies, center, settings)
    print(f"on the same views, over {settings.steps} steps, the losses differ by at most {difference:.2%}")


if __name__ == "__main__":
    main()
