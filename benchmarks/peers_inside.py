"""The parts of peers.py that run in each contender's own environment: the training of a peer, and a timed scorer.

    python peers_inside.py train padim|patchcore IMAGE_TABLE WEIGHTS OUT
    python peers_inside.py serve KIND MODEL CORES FIRST_IMAGE

`serve` scores the first image and says so, a line of JSON; then each line of standard input, a JSON list of image
files, is scored once, one process, and answered with the times; an empty list is answered with the peak memory.
Only the standard library is imported up here: every environment has other packages.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

Verdict = tuple[float, str]
Scorer = Callable[[str], Verdict]  # image file -> score and verdict
SIDE = 224  # what both sides resize the whole image to

NOTES: list[str] = []
_PACKAGES = ("msc-edge", "anomalib", "openvino", "onnxruntime", "torch", "numpy", "opencv-python", "pillow")


def msc_edge_detector(model: Path, cores: int, *, precision: Literal["fp32", "int8"] = "fp32") -> Scorer:
    """A kit through the Python API, all cores on one image."""
    from msc_edge.runtime import Detector  # noqa: PLC0415

    detector = Detector.load(model, threads=cores, precision=precision)

    def score(path: str) -> Verdict:
        result = detector.score_file(path)
        return result.score, result.verdict

    return score


def torch_eager(model: Path, cores: int) -> Scorer:
    """The network of a run folder in PyTorch, as training evaluates with it: folded, channels last."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from msc_edge.bank import Bank  # noqa: PLC0415
    from msc_edge.images import read_image  # noqa: PLC0415
    from msc_edge.kit.opening import Kit  # noqa: PLC0415
    from msc_edge.train.backbones import build_backbone  # noqa: PLC0415
    from msc_edge.train.folding import folded  # noqa: PLC0415
    from msc_edge.train.network import EmbeddingNetwork  # noqa: PLC0415
    from msc_edge.train.run_record import BACKBONE, read_record  # noqa: PLC0415
    from msc_edge.train.weights import load_into  # noqa: PLC0415

    torch.set_num_threads(cores)
    record = read_record(model)
    backbone = build_backbone(record.backbone, stop_at=record.stop_at)
    load_into(backbone, load_file(model / BACKBONE), source=str(model))
    network = EmbeddingNetwork(backbone, record.preprocessing).eval()
    network.backbone = folded(backbone)  # pyright: ignore[reportAttributeAccessIssue]
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    kit = Kit.open(model.with_name("kit"))
    bank, limits = Bank(kit.embeddings(), k=record.k), kit.manifest.calibration.limits

    @torch.inference_mode()
    def score(path: str) -> Verdict:
        embedding = network(torch.from_numpy(read_image(Path(path), record.decode))[None])[0].numpy()
        found = bank.score(embedding)
        return found, limits.verdict(found)

    return score


def openvino_inferencer(model: Path, cores: int, *, precision: str | None = None) -> Scorer:
    """Anomalib's own inferencer; OpenVINO's precision, where the processor has bfloat16, is that unless told."""
    config: dict[str, object] = {"INFERENCE_NUM_THREADS": cores}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    deploy: Any = import_module("anomalib.deploy")
    inferencer = deploy.OpenVINOInferencer(model / "weights/openvino/model.xml", device="CPU", config=config)
    hint, threads = map(inferencer.model.get_property, ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS"))
    NOTES.append(f"it computes in {hint.get_type_name()}, with {threads} threads")

    def score(path: str) -> Verdict:
        found = inferencer.predict(path)
        return float(found.pred_score.item()), "reject" if found.pred_label.item() else "ok"

    return score


def _session(path: Path, cores: int) -> Any:
    """An onnxruntime session with the options of msc_edge.runtime.backends.onnxruntime_backend, for both sides."""
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def peer_onnx(model: Path, cores: int) -> Scorer:
    """Anomalib's ONNX export in onnxruntime; pixels as its inferencer reads and scales them, with Pillow and numpy."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    session = _session(model / "weights/onnx/model.onnx", cores)

    def score(path: str) -> Verdict:
        with Image.open(path) as image:
            pixels = (np.array(image.convert("RGB")) / 255.0).astype(np.float32)
        found = session.run(["pred_score", "pred_label"], {"input": pixels[None].transpose(0, 3, 1, 2)})
        return float(found[0].item()), "reject" if found[1].item() else "ok"

    return score


def one_by_one(score: Scorer) -> Callable[[list[str]], list[float]]:
    """Milliseconds of each image."""

    def times(files: list[str]) -> list[float]:
        each = []
        for file in files:
            begun = time.perf_counter()
            score(file)
            each.append(1000 * (time.perf_counter() - begun))
        return each

    return times


def floor(model: Path, cores: int) -> tuple[Scorer, Callable[[list[str]], list[float]]]:
    """The kit's model alone, on pixels that lie ready: nothing with this model in onnxruntime can be faster."""
    from msc_edge.images import read_image  # noqa: PLC0415

    session = _session(model / "model.onnx", cores)

    def times(files: list[str]) -> list[float]:
        each = []
        for file in files:
            pixels = read_image(Path(file))[None]
            begun = time.perf_counter()
            session.run(None, {"image": pixels})
            each.append(1000 * (time.perf_counter() - begun))
        return each

    return lambda path: (sum(times([path])), "no verdict"), times


def folder(
    model: Path, cores: int, *, precision: Literal["fp32", "int8"] = "fp32"
) -> tuple[Scorer, Callable[[list[str]], list[float]]]:
    """A kit over many files, an image a core; the milliseconds are those of the pass, shared out evenly."""
    from msc_edge.runtime import Detector  # noqa: PLC0415
    from msc_edge.runtime.batch import score_files  # noqa: PLC0415

    detector = Detector.load(model, threads=1, precision=precision)

    def times(files: list[str]) -> list[float]:
        begun = time.perf_counter()
        rows = list(score_files(detector, map(Path, files), threads=cores))
        spent = time.perf_counter() - begun
        assert not any(row.error for row in rows), "an image could not be read"
        return [1000 * spent / len(rows)] * len(rows)

    def score(path: str) -> Verdict:
        (row,) = score_files(detector, [Path(path)], threads=cores)
        assert row.score is not None, row.error
        return row.score, str(row.verdict)

    return score, times


SCORERS: dict[str, Callable[[Path, int], Scorer]] = {
    "detector": msc_edge_detector,
    "detector-int8": lambda model, cores: msc_edge_detector(model, cores, precision="int8"),
    "torch": torch_eager,
    "openvino": openvino_inferencer,
    "openvino-f32": lambda model, cores: openvino_inferencer(model, cores, precision="f32"),
    "peer-onnx": peer_onnx,
}


# Those that time a whole pass by themselves.
WHOLE: dict[str, Callable[[Path, int], tuple[Scorer, Callable[[list[str]], list[float]]]]] = {
    "floor": floor,
    "folder": folder,
    "folder-int8": lambda model, cores: folder(model, cores, precision="int8"),
}


def serve(kind: str, model: Path, cores: int, first: str) -> None:
    """See the module."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    if kind in WHOLE:
        score, times = WHOLE[kind](model, cores)
    else:
        score = SCORERS[kind](model, cores)
        times = one_by_one(score)

    def answer(content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    answer(score(first))
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    answer(({name: installed[name] for name in _PACKAGES if name in installed}, "; ".join(NOTES)))
    for line in sys.stdin:
        files = json.loads(line)
        # Not ru_maxrss: it begins with what the parent had.
        status = Path("/proc/self/status").read_text()
        answer(times(files) if files else int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


def train(kind: str, images: Path, weights: Path, out: Path) -> None:
    """Train anomalib's model on the images, a fifth of them held out for its threshold, and export it both ways."""
    models, data, backends, deploy = (
        import_module(f"anomalib.{name}") for name in ("models", "data", "backend", "deploy")
    )
    torch, safetensors = import_module("torch"), import_module("safetensors.torch")
    torch.manual_seed(0)
    model_class = {"padim": models.Padim, "patchcore": models.Patchcore}[kind]
    layers = ["layer1", "layer2", "layer3"] if kind == "padim" else ["layer2", "layer3"]  # their own defaults
    special = {} if kind == "padim" else {"coreset_sampling_ratio": 0.1}
    model = model_class(
        backbone="resnet18",
        layers=layers,
        pre_trained=False,
        pre_processor=model_class.configure_pre_processor((SIDE, SIDE)),
        evaluator=False,
        visualizer=False,
        **special,
    )
    extractor = model.model.feature_extractor.feature_extractor
    loaded = extractor.load_state_dict(safetensors.load_file(weights), strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in loaded.missing_keys), loaded.missing_keys
    # It has no threshold, and gives no verdict, without images to validate on.
    module = data.Folder(
        name="good",
        normal_dir=images.resolve(),
        test_split_mode="none",
        val_split_mode="from_train",
        val_split_ratio=0.2,
        num_workers=0,
        seed=0,
    )
    backend = backends.BackendName(default_root_dir=out / "training", accelerator="cpu", devices=1, logger=False)
    backend.fit(model=model, datamodule=module)
    # One image of any size. Left to its defaults, anomalib 2.7 writes a Patchcore that takes two at a time only.
    sizes = ({2: torch.export.Dim("height"), 3: torch.export.Dim("width")},)
    for way in (deploy.ExportType.ONNX, deploy.ExportType.OPENVINO):
        backend.export(model=model, export_type=way, export_root=out, onnx_kwargs={"dynamic_shapes": sizes})
    shutil.rmtree(out / "training")
    bank = f", {len(model.model.memory_bank)} patches in its bank" if kind == "patchcore" else ""
    (out / "trained").write_text(f"{len(module.train_data)} images{bank}")


if __name__ == "__main__":
    command, kind, *rest = sys.argv[1:]
    if command == "train":
        train(kind, *map(Path, rest))
    else:
        serve(kind, Path(rest[0]), int(rest[1]), rest[2])
