"""Search in the patch bank: HNSW compared with the matrix product of `model.onnx`, by the size of the bank.

    python benchmarks/patch_search.py --shared ../shared [--rows 1000 4000 16000 64000 256000]

The patches are those of the product (edge-small, frozen, whitened to 256 numbers) from magnetic_tile: the bank from
train/good, queries from the test images, half of them normal. Banks of up to 64000 rows are selected by k-center
greedy, as in the product. Larger ones are random patches, above 149156 rows with those of the mirrored images.

A frame of 224 x 224 pixels has 196 patches, one of 448 x 448 has 784; here the latter are those of four images. Both
searches run on the calling thread and in turns. Times are medians of its processor time, so that other work on the
machine counts as little as possible. ef is the smallest with a recall of at least 0.99 of the nearest row. `score
raised` is the share of images whose largest patch distance is too high because rows were missed, and by how much at
most.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import hnswlib
import numpy as np
import onnx
import onnxruntime
import torch
from common import SHARED, magnetic_tile, parser_of
from networks import pretrained_network
from onnx import TensorProto, helper, numpy_helper

from msc_edge.export.index import EF_CONSTRUCTION, M
from msc_edge.export.onnx_model import OPSET
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.folding import folded
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.coreset import k_center
from msc_edge.train.patches.fit import DIM, fit_patch_head
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.taps import MARGIN, TappedBackbone

MIN_RECALL = 0.99
EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
K_CENTER = 64_000  # rows of the largest bank that is selected as in the product
QUERY_IMAGES = 40
PATCHES = (196, 784)  # queries of a frame
SECONDS = 10.0  # of timing, for each bank and number of queries
LEAST_ROUNDS, MOST_ROUNDS = 5, 101
IR_VERSION = 10
Search = Callable[[np.ndarray], np.ndarray]
"""Patches, (n, DIM), to the distance of each to its nearest row, (n,)."""


@torch.no_grad()
def patches_of(
    network: EmbeddingNetwork, head: PatchHead, paths: Iterable[Path], *, mirrored: bool = False
) -> np.ndarray:
    """Whitened patch embeddings, float32 (images, patches, DIM)."""
    tapped = TappedBackbone(folded(network.backbone), head.taps)
    images = ((path.name, read_image(path)[:, :: -1 if mirrored else 1].copy()) for path in paths)
    found = [head.embed(tapped(pixels)[1]).flatten(1, 2) for pixels in network.batches(images)]
    return torch.cat(found).numpy()


def product_of(bank: np.ndarray) -> onnxruntime.InferenceSession:
    """The search of `model.onnx`: |m|^2 - 2 z.m of each patch z and each row m, and the minimum of each patch."""
    constants = {"matrix": -2 * bank, "squares": np.square(bank).sum(axis=1), "axis": np.array([1])}
    nodes = [
        helper.make_node("Gemm", ["patches", "matrix", "squares"], ["products"], transB=1),
        helper.make_node("ReduceMin", ["products", "axis"], ["nearest"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "search",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["patches", DIM])],
        [helper.make_tensor_value_info("nearest", TensorProto.FLOAT, ["patches"])],
        [numpy_helper.from_array(each, name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def index_of(bank: np.ndarray) -> hnswlib.Index:
    """An HNSW index with the settings of the product, for Euclidean distance."""
    index = hnswlib.Index(space="l2", dim=DIM)
    index.init_index(max_elements=len(bank), M=M, ef_construction=EF_CONSTRUCTION, random_seed=0)
    index.set_num_threads(1)
    index.add_items(bank)
    return index


def by_product(session: onnxruntime.InferenceSession, patches: np.ndarray) -> np.ndarray:
    """Distance of each patch to its nearest row, by the matrix product."""
    nearest = np.asarray(session.run(None, {"patches": patches})[0])
    return np.sqrt(np.maximum(nearest + np.square(patches).sum(axis=1), 0))


def by_index(index: hnswlib.Index, patches: np.ndarray) -> np.ndarray:
    """Distance of each patch to the row that HNSW finds."""
    return np.sqrt(index.knn_query(patches, k=1, num_threads=1)[1][:, 0])


def set_least_ef(index: hnswlib.Index, exact: np.ndarray, queries: np.ndarray) -> tuple[int, float, np.ndarray]:
    """Set the smallest of EFS with a recall of MIN_RECALL, or the largest; it, the recall, and the distances found.

    `exact`: the true distances (images, patches) of `queries` (images, patches, DIM).
    """
    ef, recall, found = 0, 0.0, exact
    for ef in EFS:
        index.set_ef(ef)
        found = by_index(index, queries.reshape(-1, DIM)).reshape(exact.shape)
        recall = float((found <= exact * 1.0001 + 1e-4).mean())
        if recall >= MIN_RECALL:
            break
    return ef, recall, found


def processor_times(searches: Mapping[str, Search], frames: np.ndarray) -> dict[str, float]:
    """Median milliseconds of processor time of this thread, for each search. Each round is one frame for all of them.

    `frames`: (frames, patches, DIM).
    """
    recorded: dict[str, list[float]] = {name: [] for name in searches}
    end = time.thread_time() + SECONDS
    for number in range(MOST_ROUNDS + 1):
        for name, search in searches.items():
            start = time.thread_time()
            search(frames[number % len(frames)])
            if number:  # the first round is a warm-up
                recorded[name].append(1000 * (time.thread_time() - start))
        if number >= LEAST_ROUNDS and time.thread_time() > end:
            break
    return {name: statistics.median(each) for name, each in recorded.items()}


def crossover(rows: list[int], ratios: list[float]) -> str:
    """The bank size at which both searches take the same time, between two measured sizes, on logarithmic scales."""
    for (few, below), (many, above) in pairwise(zip(rows, ratios, strict=True)):
        if below < 1 <= above:
            share = np.log(1 / below) / np.log(above / below)
            return f"about {few * (many / few) ** share:.0f} rows"
    return f"not between {rows[0]} and {rows[-1]} rows"


def banks_of(network: EmbeddingNetwork, head: PatchHead, paths: list[Path], sizes: list[int]) -> Iterator[np.ndarray]:
    """Banks of these sizes, float32 (rows, DIM) each."""
    patches = patches_of(network, head, paths).reshape(-1, DIM)
    selected = k_center(torch.from_numpy(patches), min(K_CENTER, max(sizes)))  # any first part is a selection as well
    order = np.random.default_rng(0).permutation(len(patches))
    mirrored = np.empty((0, DIM), np.float32)
    if max(sizes) > len(patches):
        mirrored = patches_of(network, head, paths, mirrored=True).reshape(-1, DIM)
    for size in sizes:
        if size <= K_CENTER:
            yield patches[selected[:size].numpy()]
        else:
            yield np.concatenate([patches[order[:size]], mirrored[: max(0, size - len(patches))]])


def main() -> None:
    """Measure every bank and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 4000, 16_000, 64_000, 256_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    tile = magnetic_tile(options.shared)
    spec = preset("whole-frame", image_size=224, margin=MARGIN)
    network = pretrained_network(EDGE_SMALL, None, preprocessing=spec)
    head = fit_patch_head(network, lambda: ((path.name, read_image(path)) for path in tile.train), rows=1)
    half = QUERY_IMAGES // 2
    tested = [part[:: len(part) // half][:half] for part in (tile.normal, tile.anomalous)]
    queries = patches_of(network, head, tested[0] + tested[1])
    frames = {count: queries.reshape(-1, count, DIM) for count in PATCHES}
    print(
        "| rows | ef | recall | score raised | patches | matrix product | HNSW | matrix product / HNSW |\n"
        f"{'|---' * 8}|",
        flush=True,
    )
    sizes, ratios = sorted(options.rows), {count: [] for count in PATCHES}
    for bank in banks_of(network, head, tile.train, sizes):
        session, index = product_of(bank), index_of(bank)
        searches = {"product": partial(by_product, session), "index": partial(by_index, index)}
        exact = np.stack([by_product(session, image) for image in queries])
        ef, recall, found = set_least_ef(index, exact, queries)
        raised = found.max(axis=1) / exact.max(axis=1) - 1
        missed = f"{(raised > 1e-3).mean():.0%}, at most {raised.max():.1%}"
        for count, each in frames.items():
            took = processor_times(searches, each)
            ratios[count].append(took["product"] / took["index"])
            print(
                f"| {len(bank)} | {ef} | {recall:.4f} | {missed} | {count} | {took['product']:.1f} ms | "
                f"{took['index']:.1f} ms | {ratios[count][-1]:.2f} |",
                flush=True,
            )
    for count, each in ratios.items():
        print(f"{count} patches, equal times of both searches: {crossover(sizes, each)}")


if __name__ == "__main__":
    main()
