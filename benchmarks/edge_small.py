"""`edge-small` beside the backbone that taught it: frozen AUROC, and time in onnxruntime.

    python benchmarks/edge_small.py --shared ../shared [--weights FILE] [--skip-auroc] [--skip-time]

AUROC: frozen features, 2-NN, the whole image at 224x224, float32. magnetic_tile: train/good against test/*. Papers:
the first 32 good images by name against the other 16 and the 48 defects, mean of the six. CIFAR-10: 1000 training
images of a class (the first by name) against the 500 test images of it and the 4500 of the others, mean of
airplane, cat, horse. Test labels are read here and nowhere else; edge-small has seen neither papers nor CIFAR-10.

Time: one thread, a frame of 224x224 in memory, both models in turns, median of --rounds; float32, and int8 as a
kit has it (ranges from 32 good tiles).
"""

import argparse
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.quantize import Quantizer
from msc_edge.images import decode_image, read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import EDGE_SMALL, build_backbone
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.weights import bundled_weights, load_into, weights_from_file

TEACHER = "mobilenet_v2"
CIFAR_CLASSES = ("airplane", "cat", "horse")


def network_of(name: str, weights: Path | None) -> EmbeddingNetwork:
    """A frozen embedding network at 224x224."""
    backbone = build_backbone(name)
    pretrained = weights_from_file(weights) if weights else bundled_weights()
    load_into(backbone, pretrained.state, source=name)
    return EmbeddingNetwork(backbone, preset("whole-frame", image_size=224)).eval()


def auroc(bank: np.ndarray, good: np.ndarray, bad: np.ndarray) -> float:
    """2-NN AUROC of embeddings."""
    search = Bank(bank, k=2)
    scores = [search.score(embedding) for embedding in (*good, *bad)]
    return float(roc_auc_score([0] * len(good) + [1] * len(bad), scores))


def embedded(network: EmbeddingNetwork, paths: list[Path]) -> np.ndarray:
    """Embeddings of image files."""
    return network.embed_all((str(path), read_image(path)) for path in paths)


def tile(network: EmbeddingNetwork, data: Path) -> float:
    """magnetic_tile."""
    test = data / "magnetic_tile" / "test"
    bad = sorted(path for path in test.rglob("*.jpg") if path.parent.name != "good")
    bank, good = (sorted(folder.iterdir()) for folder in (data / "magnetic_tile" / "train" / "good", test / "good"))
    return auroc(*(embedded(network, paths) for paths in (bank, good, bad)))


def papers(network: EmbeddingNetwork, data: Path) -> dict[str, float]:
    """Each of the six papers."""
    result = {}
    for paper in sorted(path for path in (data / "paper").iterdir() if path.is_dir()):
        good, bad = sorted((paper / "good").iterdir()), sorted((paper / "defect").iterdir())
        result[paper.name] = auroc(*(embedded(network, paths) for paths in (good[:32], good[32:], bad)))
    return result


def cifar(network: EmbeddingNetwork, data: Path) -> dict[str, float]:
    """One class against the rest, for each of three classes."""
    with zipfile.ZipFile(data / "cifar10_one_vs_rest.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))

        def embed(prefix: str, count: int | None = None) -> np.ndarray:
            chosen = [name for name in names if name.startswith(prefix)][:count]
            return network.embed_all(
                (name, decode_image(np.frombuffer(archive.read(name), np.uint8))) for name in chosen
            )

        classes = sorted({name.split("/")[1] for name in names if name.startswith("test/")})
        test = {name: embed(f"test/{name}/") for name in classes}
        return {
            name: auroc(
                embed(f"train/{name}/", 1000),
                test[name],
                np.concatenate([test[other] for other in classes if other != name]),
            )
            for name in CIFAR_CLASSES
        }


def models_of(networks: dict[str, EmbeddingNetwork], data: Path, folder: Path) -> dict[tuple[str, str], Path]:
    """ONNX files by (backbone, precision)."""
    tiles = sorted((data / "magnetic_tile" / "train" / "good").iterdir())[:32]
    models = {}
    for name, network in networks.items():
        path, small = (folder / f"{name}{suffix}.onnx" for suffix in ("", ".int8"))
        (scratch := folder / name).mkdir()
        export_onnx(network, path)
        Quantizer(path, lambda: map(read_image, tiles), target="x86-vnni", scratch=scratch).write(small)
        models |= {(name, "fp32"): path, (name, "int8"): small}
    return models


def times_of(models: dict[tuple[str, str], Path], rounds: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of one frame on one thread, all models in turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    sessions = {
        key: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for key, path in models.items()
    }
    frame = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
    for _ in range(rounds):
        for key, session in sessions.items():
            begun = time.perf_counter()
            session.run(None, {"image": frame})
            times[key].append(1000 * (time.perf_counter() - begun))
    return {key: float(np.median(values[rounds // 10 :])) for key, values in times.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--weights", type=Path, help="of edge-small; the bundled ones without it")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--skip-auroc", action="store_true")
    parser.add_argument("--skip-time", action="store_true")
    arguments = parser.parse_args()
    data = arguments.shared / "data"
    networks = {
        TEACHER: network_of(TEACHER, arguments.shared / "weights" / "mobilenet_v2.safetensors"),
        EDGE_SMALL: network_of(EDGE_SMALL, arguments.weights),
    }
    if not arguments.skip_time:
        with tempfile.TemporaryDirectory() as folder:
            times = times_of(models_of(networks, data, Path(folder)), arguments.rounds)
        for precision in ("fp32", "int8"):
            ours, theirs = times[EDGE_SMALL, precision], times[TEACHER, precision]
            print(f"{precision}: {EDGE_SMALL} {ours:.2f} ms, {TEACHER} {theirs:.2f} ms, ratio {ours / theirs:.2f}")
    if arguments.skip_auroc:
        return
    for name, network in networks.items():
        by_set = {"magnetic_tile": {"all": tile(network, data)}, "papers": papers(network, data)}
        by_set["cifar10"] = cifar(network, data)
        means = {key: float(np.mean(list(values.values()))) for key, values in by_set.items()}
        print(f"{name}: mean {np.mean(list(means.values())):.4f}")
        for key, values in by_set.items():
            print(f"  {key} {means[key]:.4f}:", *(f"{each} {value:.4f}" for each, value in values.items()), flush=True)


if __name__ == "__main__":
    main()
