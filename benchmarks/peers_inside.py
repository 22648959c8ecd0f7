"""The parts of peers.py that run in each contender's own environment: training of a peer, and a timed scorer.

    python peers_inside.py train padim|patchcore IMAGES WEIGHTS OUT
    python peers_inside.py serve KIND MODEL CORES FIRST_IMAGE

`serve` scores the first image and prints the result as a line of JSON, then a line with versions and notes. For each
line of standard input, a JSON list of image files, it scores each file once and prints the milliseconds. For an empty
list it prints the peak memory in MB.

The environments differ in their packages, so the top of this file imports the standard library only.
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
SIDE = 224  # pixels; both sides resize the whole image to SIDE x SIDE

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
    """The network of a run folder in PyTorch, as in training: batch norm folded, channels last."""
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
    bank, limits = Bank(kit.embeddings("fp32"), k=record.k), kit.model("fp32").calibration.limits

    @torch.inference_mode()
    def score(path: str) -> Verdict:
        embedding = network(torch.from_numpy(read_image(Path(path), record.decode))[None])[0].numpy()
        value = bank.score(embedding)
        return value, limits.verdict(value)

    return score


def openvino_inferencer(model: Path, cores: int, *, precision: str | None = None) -> Scorer:
    """Anomalib's own inferencer. Without `precision` OpenVINO computes in bfloat16 where the processor has it."""
    config: dict[str, object] = {"INFERENCE_NUM_THREADS": cores}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    deploy: Any = import_module("anomalib.deploy")
    inferencer = deploy.OpenVINOInferencer(model / "weights/openvino/model.xml", device="CPU", config=config)
    hint, threads = map(inferencer.model.get_property, ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS"))
    NOTES.append(f"computes in {hint.get_type_name()} on {threads} threads")

    def score(path: str) -> Verdict:
        prediction = inferencer.predict(path)
        return float(prediction.pred_score.item()), "reject" if prediction.pred_label.item() else "ok"

    return score


def _session(path: Path, cores: int) -> Any:
    """An onnxruntime session with the options of msc-edge, for both sides."""
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def peer_onnx(model: Path, cores: int) -> Scorer:
    """Anomalib's ONNX export in onnxruntime. Pillow and numpy read and scale the pixels as its inferencer does."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    session = _session(model / "weights/onnx/model.onnx", cores)

    def score(path: str) -> Verdict:
        with Image.open(path) as image:
            pixels = (np.array(image.convert("RGB")) / 255.0).astype(np.float32)
        value, label = session.run(["pred_score", "pred_label"], {"input": pixels[None].transpose(0, 3, 1, 2)})
        return float(value.item()), "reject" if label.item() else "ok"

    return score


def _milliseconds(action: Callable[[], object]) -> float:
    # benchmarks/timing.py measures medians of repeated calls. Here every image counts once, for percentiles.
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def one_by_one(score: Scorer) -> Callable[[list[str]], list[float]]:
    """A function that returns the milliseconds of each image."""

    def times(files: list[str]) -> list[float]:
        return [_milliseconds(lambda file=file: score(file)) for file in files]

    return times


def floor(model: Path, cores: int) -> tuple[Scorer, Callable[[list[str]], list[float]]]:
    """The kit's fp32 model alone, on decoded pixels: a lower bound for this model in onnxruntime."""
    from msc_edge.images import read_image  # noqa: PLC0415
    from msc_edge.kit.layout import MODEL_FILES  # noqa: PLC0415

    session = _session(model / MODEL_FILES["fp32"], cores)

    def times(files: list[str]) -> list[float]:
        each = []
        for file in files:
            feed = {"image": read_image(Path(file))[None]}
            each.append(_milliseconds(lambda feed=feed: session.run(None, feed)))
        return each

    return lambda path: (sum(times([path])), "no verdict"), times


def folder(
    model: Path, cores: int, *, precision: Literal["fp32", "int8"] = "fp32"
) -> tuple[Scorer, Callable[[list[str]], list[float]]]:
    """A kit over many files, one image per core. Every file gets an equal share of the milliseconds of the pass."""
    from msc_edge.runtime import Detector  # noqa: PLC0415
    from msc_edge.runtime.batch import score_images  # noqa: PLC0415

    detector = Detector.load(model, threads=1, precision=precision)

    def times(files: list[str]) -> list[float]:
        return [_milliseconds(lambda: rows_of(files)) / len(files)] * len(files)

    def rows_of(files: list[str]) -> list[Verdict]:
        rows = []
        for image in score_images(detector, map(Path, files), threads=cores):
            assert image.result is not None, image.error
            rows.append((image.result.score, str(image.result.verdict)))
        return rows

    def score(path: str) -> Verdict:
        return rows_of([path])[0]

    return score, times


SCORERS: dict[str, Callable[[Path, int], Scorer]] = {
    "detector": msc_edge_detector,
    "detector-int8": lambda model, cores: msc_edge_detector(model, cores, precision="int8"),
    "torch": torch_eager,
    "openvino": openvino_inferencer,
    "openvino-f32": lambda model, cores: openvino_inferencer(model, cores, precision="f32"),
    "peer-onnx": peer_onnx,
}


# Scorers that time a whole pass themselves.
WHOLE: dict[str, Callable[[Path, int], tuple[Scorer, Callable[[list[str]], list[float]]]]] = {
    "floor": floor,
    "folder": folder,
    "folder-int8": lambda model, cores: folder(model, cores, precision="int8"),
}


def serve(kind: str, model: Path, cores: int, first: str) -> None:
    """See the docstring of the module."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print to standard output must not mix with the answers
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
        # Not ru_maxrss: it starts at the memory of the parent process.
        status = Path("/proc/self/status").read_text()
        answer(times(files) if files else int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


def train(kind: str, images: Path, weights: Path, out: Path) -> None:
    """Train anomalib's model with a fifth of the images held out for its threshold; export it to ONNX and OpenVINO."""
    models, data, engine, deploy = (
        import_module(f"anomalib.{name}") for name in ("models", "data", "engine", "deploy")
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
    # Without validation images anomalib sets no threshold and gives no verdict.
    module = data.Folder(
        name="good",
        normal_dir=images.resolve(),
        test_split_mode="none",
        val_split_mode="from_train",
        val_split_ratio=0.2,
        num_workers=0,
        seed=0,
    )
    trainer = engine.Engine(default_root_dir=out / "training", accelerator="cpu", devices=1, logger=False)
    trainer.fit(model=model, datamodule=module)
    # A batch of one image of any size. By default anomalib 2.7 exports a Patchcore that only accepts batches of two.
    sizes = ({2: torch.export.Dim("height"), 3: torch.export.Dim("width")},)
    for form in (deploy.ExportType.ONNX, deploy.ExportType.OPENVINO):
        trainer.export(model=model, export_type=form, export_root=out, onnx_kwargs={"dynamic_shapes": sizes})
    shutil.rmtree(out / "training")
    bank = f", {len(model.model.memory_bank)} patches in its bank" if kind == "patchcore" else ""
    (out / "trained").write_text(f"{len(module.train_data)} images{bank}")


if __name__ == "__main__":
    command, kind, *rest = sys.argv[1:]
    if command == "train":
        train(kind, *map(Path, rest))
    else:
        serve(kind, Path(rest[0]), int(rest[1]), rest[2])
