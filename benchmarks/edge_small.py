"""`edge-small` compared with its teacher, MobileNetV2: AUROC of the frozen backbones, and time in onnxruntime.

    python benchmarks/edge_small.py --shared ../shared [--weights FILE] [--skip-auroc] [--skip-time]

AUROC: frozen features, 2-NN, the whole image at 224x224, float32.
- magnetic_tile: train/good in the bank, test/* scored.
- papers: the first 32 normal images by name in the bank; the other 16 and the 48 defects scored; mean of the six.
- CIFAR-10: the first 1000 training images of a class by name in the bank; the 500 test images of each of the ten
  classes scored; mean of airplane, cat and horse.
Test labels are used here and nowhere else. edge-small was distilled without the papers and without CIFAR-10.

Time: one thread, a frame of 224x224 in memory, all models in turns, median of --rounds; in fp32, and in int8 as in a
kit (ranges from 32 normal images of magnetic_tile).
"""

import tempfile
import zipfile
from functools import partial
from pathlib import Path

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnxruntime
from common import SHARED, LabelledImages, magnetic_tile, papers, parser_of, random_frame, read_zipped, zipped_images
from networks import pretrained_network
from sklearn.metrics import roc_auc_score
from timing import medians

from msc_edge.bank import Bank
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.quantize import Quantizer
from msc_edge.images import read_image
from msc_edge.train.backbones.edge_small import EDGE_SMALL
from msc_edge.train.network import EmbeddingNetwork

TEACHER = "mobilenet_v2"
CIFAR_CLASSES = ("airplane", "cat", "horse")


def auroc(bank: np.ndarray, normal: np.ndarray, anomalous: np.ndarray) -> float:
    """2-NN AUROC of embeddings, each float32 (n, dim)."""
    search = Bank(bank, k=2)
    scores = [search.score(embedding) for embedding in (*normal, *anomalous)]
    return float(roc_auc_score([0] * len(normal) + [1] * len(anomalous), scores))


def auroc_of_files(network: EmbeddingNetwork, images: LabelledImages) -> float:
    """2-NN AUROC of a data set of image files."""
    bank, normal, anomalous = (
        network.embed_all((str(path), read_image(path)) for path in paths)
        for paths in (images.train, images.normal, images.anomalous)
    )
    return auroc(bank, normal, anomalous)


def cifar(network: EmbeddingNetwork, shared: Path) -> dict[str, float]:
    """AUROC of one class against the rest, for each of three classes."""
    with zipfile.ZipFile(shared / "data/cifar10_one_vs_rest.zip") as archive:

        def embed(prefix: str, count: int | None = None) -> np.ndarray:
            names = zipped_images(archive, prefix)[:count]
            return network.embed_all((name, read_zipped(archive, name)) for name in names)

        classes = sorted({name.split("/")[1] for name in zipped_images(archive, "test/")})
        test = {name: embed(f"test/{name}/") for name in classes}
        return {
            name: auroc(
                embed(f"train/{name}/", 1000),
                test[name],
                np.concatenate([test[other] for other in classes if other != name]),
            )
            for name in CIFAR_CLASSES
        }


def models_of(networks: dict[str, EmbeddingNetwork], shared: Path, folder: Path) -> dict[tuple[str, str], Path]:
    """Write the ONNX files, by (backbone, precision)."""
    ranges = magnetic_tile(shared).train[:32]
    models = {}
    for name, network in networks.items():
        fp32, int8 = folder / f"{name}.onnx", folder / f"{name}.int8.onnx"
        (scratch := folder / name).mkdir()
        export_onnx(network, fp32)
        Quantizer(fp32, lambda: map(read_image, ranges), target="x86-vnni", scratch=scratch).write(int8)
        models |= {(name, "fp32"): fp32, (name, "int8"): int8}
    return models


def times_of(models: dict[tuple[str, str], Path], rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of one frame on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    sessions = {
        key: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for key, path in models.items()
    }
    feed = {"image": random_frame(224, 224)[None]}
    actions = {key: partial(session.run, None, feed) for key, session in sessions.items()}
    return medians(actions, rounds=rounds, warm_up=max(1, rounds // 10))


def main() -> None:
    """Print times and AUROC."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of edge-small; default: the bundled weights")
    parser.add_argument("--rounds", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--skip-auroc", action="store_true")
    parser.add_argument("--skip-time", action="store_true")
    options = parser.parse_args()
    networks = {
        TEACHER: pretrained_network(TEACHER, options.shared / "weights/mobilenet_v2.safetensors"),
        EDGE_SMALL: pretrained_network(EDGE_SMALL, options.weights),
    }
    if not options.skip_time:
        with tempfile.TemporaryDirectory() as folder:
            times = times_of(models_of(networks, options.shared, Path(folder)), options.rounds)
        for precision in ("fp32", "int8"):
            ours, theirs = times[EDGE_SMALL, precision], times[TEACHER, precision]
            print(f"{precision}: {EDGE_SMALL} {ours:.2f} ms, {TEACHER} {theirs:.2f} ms, ratio {ours / theirs:.2f}")
    if options.skip_auroc:
        return
    for name, network in networks.items():
        by_set = {
            "magnetic_tile": {"all": auroc_of_files(network, magnetic_tile(options.shared))},
            "papers": {paper: auroc_of_files(network, images) for paper, images in papers(options.shared).items()},
            "cifar10": cifar(network, options.shared),
        }
        means = {key: float(np.mean(list(values.values()))) for key, values in by_set.items()}
        print(f"{name}: mean {np.mean(list(means.values())):.4f}")
        for key, values in by_set.items():
            print(f"  {key} {means[key]:.4f}:", *(f"{each} {value:.4f}" for each, value in values.items()), flush=True)


if __name__ == "__main__":
    main()
