"""What decisions rest on: a frame between processes, a training step, its views, and a search in the bank.

    python benchmarks/costs.py

Random weights and vectors: only the time counts. Quote ratios within one run.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from msc_edge.bank import ExactSearch, open_hnsw
from msc_edge.export.index import build_index
from msc_edge.train.backbones import build_backbone
from msc_edge.train.folding import folded
from msc_edge.train.views import ViewDraws, make_views

IMAGE_TABLE, SIZE, DIM = 32, 224, 512


def seconds(action: Callable[[], object], times: int) -> float:
    """The median of `times` runs after a warm-up."""
    action()
    each = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        each.append(time.perf_counter() - begun)
    return float(np.median(each))


def step(
    name: str = "mobilenet_v2",
    images: int = IMAGE_TABLE,
    *,
    channels_last: bool = True,
    bf16: bool = True,
    frozen_up_to: str | None = None,
    compiled: bool = False,
) -> float:
    """One forward and backward pass of two views of some images through a backbone."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    backbone = build_backbone(name).to(memory_format=layout)
    if frozen_up_to:
        backbone.freeze_up_to(frozen_up_to)
    forward = torch.compile(backbone) if compiled else backbone
    pixels = torch.randn(2 * images, 3, SIZE, SIZE).contiguous(memory_format=layout)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            features = forward(pixels)
        features.float().square().sum().backward()

    return seconds(run, 2)


def embedding() -> None:
    """Print how long the embedding of an image takes, eight at a time, with batch norm as it is and folded."""
    backbone = build_backbone("mobilenet_v2")
    pixels = torch.randn(8, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain, without = (1000 / 8 * seconds(lambda n=n: n(pixels), 20) for n in (backbone, folded(backbone)))
    print(f"embedding of an image: {plain:.1f} ms, with batch norm folded {without:.1f} ms", flush=True)


def search_times(count: int) -> None:
    """Print how long both searches take among `count` clustered rows."""
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(50, DIM))[rng.integers(50, size=count)] + 0.3 * rng.normal(size=(count, DIM))
    bank = (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "bank.hnsw")
        index = build_index(bank, bank[:10], 2, path)
        hnsw, exact = open_hnsw(path, bank, ef=index.ef), ExactSearch(bank)
        of_exact = 1000 * seconds(lambda: exact.rows(bank[7], 6), 300)
        of_hnsw = 1000 * seconds(lambda: hnsw.rows(bank[7], 6), 300)
    print(f"{count} rows: exact {of_exact:.3f} ms, hnsw {of_hnsw:.3f} ms (ef {index.ef}, recall {index.recall:.4f})")


def hand_over() -> None:
    """Print how long a frame of 1920 x 1080 takes from one process to another by a pipe, and by copies in memory."""
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_frames, args=(theirs, frame.shape), daemon=True)
    process.start()
    room = np.empty_like(frame)

    def evaluate() -> None:
        ours.send_bytes(b"next")
        ours.recv_bytes_into(room.data.cast("B"))

    pipe = 1000 * seconds(evaluate, 50)
    process.kill()
    copies = 1000 * seconds(lambda: np.copyto(room, frame.copy()), 50)
    print(f"a frame of 1920x1080: {pipe:.1f} ms by a pipe, {copies:.1f} ms for two copies in memory", flush=True)


def _send_frames(connection: Connection, shape: tuple[int, ...]) -> None:
    frame = np.zeros(shape, np.uint8)
    while connection.recv_bytes():
        connection.send_bytes(frame.data.cast("B"))


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    hand_over()
    for channels_last, bf16 in ((False, False), (True, False), (True, True)):
        name = f"{'bf16' if bf16 else 'fp32'}{', channels last' if channels_last else ''}"
        print(f"step of {IMAGE_TABLE} images, {name}: {step(channels_last=channels_last, bf16=bf16):.2f} s", flush=True)
    print(f"the same, stages up to features.6 frozen: {step(frozen_up_to='features.6'):.2f} s", flush=True)
    begun = time.perf_counter()
    compiled = step(frozen_up_to="features.6", compiled=True)
    took = time.perf_counter() - begun
    print(f"and compiled: {compiled:.2f} s, after {took - 2 * compiled:.0f} s of compiling", flush=True)
    resnet = step("resnet152", 4, frozen_up_to="layer2")
    print(f"ResNet-152, frozen up to layer2, step of 4 images: {resnet:.2f} s", flush=True)
    embedding()
    images = [torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8) for _ in range(IMAGE_TABLE)]
    draws = ViewDraws.draw(IMAGE_TABLE, torch.Generator().manual_seed(0))
    views = seconds(lambda: make_views(images, draws, size=SIZE, device=torch.device("cpu")), 3)
    print(f"one view of each of {IMAGE_TABLE} images: {views:.2f} s", flush=True)
    for count in (2_000, 5_000, 20_000):
        search_times(count)


if __name__ == "__main__":
    main()
