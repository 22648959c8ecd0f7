"""Times behind decisions of the design: a frame between processes, a training step, its views, a search in the bank.

    python benchmarks/costs.py [--parts handover step convolutions kernels compile resnet152
        embedding views search]

Weights and vectors are random: only the time counts. Quote ratios within one run.
"""

import multiprocessing
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from common import parser_of, random_frame
from timing import median, medians

from msc_edge.bank import ExactSearch, open_hnsw
from msc_edge.export.index import build_index
from msc_edge.train.backbones.backbone import last_stage_at_stride
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.fast_convolutions import FastConvolutions
from msc_edge.train.folding import folded
from msc_edge.train.views import ViewDraws, make_views

BATCH, SIZE, DIM = 32, 224, 512


def step(
    name: str = "mobilenet_v2",
    images: int = BATCH,
    *,
    channels_last: bool = True,
    bf16: bool = True,
    frozen_up_to: str | None = None,
    compiled: bool = False,
    fast: bool = True,
) -> float:
    """Seconds of one forward and backward pass of two views of each image through a backbone, as in fine-tuning.

    `fast`: with `FastConvolutions`, which `compiled` does without.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    backbone = build_backbone(name).eval().to(memory_format=layout)
    if frozen_up_to:
        backbone.freeze_up_to(frozen_up_to)
    convolutions = FastConvolutions(backbone) if fast and not compiled else nullcontext()
    forward = torch.compile(backbone) if compiled else backbone
    pixels = torch.randn(2 * images, 3, SIZE, SIZE).contiguous(memory_format=layout)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), convolutions:
            features = forward(pixels)
        features.float().square().sum().backward()

    return median(run, rounds=2) / 1000


def print_handover() -> None:
    """Print the time of a frame of 1920 x 1080 from one process to another through a pipe, and of two copies."""
    frame = random_frame(1920, 1080)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_frames, args=(theirs, frame.shape), daemon=True)
    process.start()
    received = np.empty_like(frame)

    def receive() -> None:
        ours.send_bytes(b"next")
        ours.recv_bytes_into(received.data.cast("B"))

    pipe = median(receive, rounds=50)
    process.kill()
    copies = median(lambda: np.copyto(received, frame.copy()), rounds=50)
    print(f"frame of 1920x1080: {pipe:.1f} ms through a pipe, {copies:.1f} ms for two copies in memory", flush=True)


def _send_frames(connection: Connection, shape: tuple[int, ...]) -> None:
    frame = np.zeros(shape, np.uint8)
    while connection.recv_bytes():
        connection.send_bytes(frame.data.cast("B"))


def print_step() -> None:
    """Print the seconds of a training step, by dtype and memory layout, and with frozen stages."""
    for channels_last, bf16 in ((False, False), (True, False), (True, True)):
        name = f"{'bf16' if bf16 else 'fp32'}{', channels last' if channels_last else ''}"
        print(f"step of {BATCH} images, {name}: {step(channels_last=channels_last, bf16=bf16):.2f} s", flush=True)
    print(f"the same, stages up to features.6 frozen: {step(frozen_up_to='features.6'):.2f} s", flush=True)


def print_convolutions() -> None:
    """Print the seconds of a training step behind stride 8, with and without FastConvolutions."""
    for name in ("edge-small", "mobilenet_v2", "efficientnet_lite2"):
        last = last_stage_at_stride(build_backbone(name), 8)
        plain, fast = (step(name, frozen_up_to=last, fast=fast) for fast in (False, True))
        print(f"step of {BATCH} images, {name}: {plain:.2f} s, with FastConvolutions {fast:.2f} s", flush=True)


def print_kernels() -> None:
    """Print the times that FastConvolutions avoids: two gradients of depthwise convolutions, and clamping, in bf16."""
    for name, channels, size, kernel, stride, of in (
        ("input of a strided 3 x 3", 288, 29, 3, 2, (True, False, False)),
        ("weight of a 5 x 5", 720, 14, 5, 1, (False, True, False)),
    ):
        features = torch.randn(64, channels, size, size).contiguous(memory_format=torch.channels_last)
        weight, padding = torch.randn(channels, 1, kernel, kernel), kernel // 2 if stride == 1 else 0
        outgoing = torch.randn_like(torch.conv2d(features, weight, None, stride, padding, 1, channels))

        def gradient(
            dtype: torch.dtype, operands=(outgoing, features, weight), options=(stride, padding), of=of
        ) -> None:
            stride, padding = options
            torch.ops.aten.convolution_backward(
                *(each.to(dtype) for each in operands), [0], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                len(operands[2]), of,
            )  # fmt: skip

        bf16, fp32 = (median(partial(gradient, dtype), rounds=5) for dtype in (torch.bfloat16, torch.float32))
        print(f"depthwise convolution, gradient of the {name}: bf16 {bf16:.0f} ms, fp32 {fp32:.0f} ms", flush=True)
    values = torch.randn(64, 144, 56, 56).bfloat16()
    clamp, of_bits = (median(lambda v=v: v.clamp(0, 6), rounds=5) for v in (values, values.view(torch.int16)))
    nanoseconds = 1e6 / values.numel()
    print(f"clamp a value: bf16 {clamp * nanoseconds:.2f} ns, int16 {of_bits * nanoseconds:.2f} ns", flush=True)


def print_compile() -> None:
    """Print the seconds of a compiled training step with frozen stages, and of compiling it."""
    start = time.perf_counter()
    compiled = step(frozen_up_to="features.6", compiled=True)
    total = time.perf_counter() - start
    print(
        f"step of {BATCH} images, stages up to features.6 frozen, compiled: {compiled:.2f} s, "
        f"after {total - 2 * compiled:.0f} s of compiling",
        flush=True,
    )


def print_resnet152() -> None:
    """Print the seconds of a training step of ResNet-152."""
    seconds = step("resnet152", 4, frozen_up_to="layer2")
    print(f"ResNet-152, frozen up to layer2, step of 4 images: {seconds:.2f} s", flush=True)


def print_embedding() -> None:
    """Print the time of the embedding of one image, eight at a time, with batch norm and with batch norm folded."""
    backbone = build_backbone("mobilenet_v2")
    pixels = torch.randn(8, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        networks = {"with batch norm": backbone, "folded": folded(backbone)}
        found = medians({name: partial(network, pixels) for name, network in networks.items()}, rounds=20)
    plain, without = found["with batch norm"] / 8, found["folded"] / 8
    print(f"embedding of one image: {plain:.1f} ms, with batch norm folded {without:.1f} ms", flush=True)


def print_views() -> None:
    """Print the seconds of one view of each image of a batch."""
    images = [torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8) for _ in range(BATCH)]
    draws = ViewDraws.draw(BATCH, torch.Generator().manual_seed(0))
    views = median(lambda: make_views(images, draws, size=SIZE, device=torch.device("cpu")), rounds=3) / 1000
    print(f"one view of each of {BATCH} images: {views:.2f} s", flush=True)


def print_search() -> None:
    """Print the time of both searches among clustered rows, for banks of three sizes."""
    for count in (2_000, 5_000, 20_000):
        _print_search_among(count)


def _print_search_among(count: int) -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(50, DIM))[rng.integers(50, size=count)] + 0.3 * rng.normal(size=(count, DIM))
    bank = (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "bank.hnsw")
        index = build_index(bank, bank[:10], 2, path)
        hnsw, exact = open_hnsw(path, bank, ef=index.ef), ExactSearch(bank)
        searches = {"exact": lambda: exact.rows(bank[7], 6), "HNSW": lambda: hnsw.rows(bank[7], 6)}
        # One after the other: in turns they would evict each other's rows from the processor's cache.
        found = {name: median(search, rounds=300) for name, search in searches.items()}
    print(
        f"{count} rows: exact {found['exact']:.3f} ms, HNSW {found['HNSW']:.3f} ms "
        f"(ef {index.ef}, recall {index.recall:.4f})",
        flush=True,
    )


PARTS = {
    "handover": print_handover,
    "step": print_step,
    "convolutions": print_convolutions,
    "kernels": print_kernels,
    "compile": print_compile,
    "resnet152": print_resnet152,
    "embedding": print_embedding,
    "views": print_views,
    "search": print_search,
}


def main() -> None:
    """Measure the parts and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
