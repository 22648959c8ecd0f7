"""The part of peers.py that runs in each contender's own environment: scoring of image files, timed or with their maps.

    python peers_inside.py serve KIND MODEL CORES FIRST_IMAGE
    python peers_inside.py maps KIND MODEL CORES OUT
    python peers_inside.py scores KIND MODEL CORES -

`serve` scores the first image and prints the result as a line of JSON, then a line with versions and notes. For each
line of standard input, a JSON list of image files, it scores each file once and prints the milliseconds. For an empty
list it prints the peak memory in MB.

`maps` reads one JSON list of image files from standard input. It writes the anomaly map of each file to
OUT/<number>.npy, float32 (height, width), and all scores to OUT/scores.json.

`scores` answers each line of standard input, a JSON list of image files, with a line of JSON: the scores of each file
by name, and `reject`, 1 or 0.

The environments differ in their packages, so the top of this file imports the standard library only.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

SIDE = 224  # pixels; both sides resize the whole image to SIDE x SIDE

NOTES: list[str] = []
_PACKAGES = ("msc-edge", "anomalib", "openvino", "onnxruntime", "torch", "numpy", "opencv-python", "pillow")


class Scored(NamedTuple):
    """What a contender finds in one image."""

    scores: dict[str, float]
    """By name; `score` is the one that its verdict is made of."""
    verdict: str
    anomaly_map: Any
    """numpy array, float32 (height, width); None if the contender makes none at the size of the image."""


Scorer = Callable[[str], Scored]  # from an image file


def msc_edge_detector(
    model: Path, cores: int, *, precision: Literal["fp32", "int8"] = "fp32", heatmap: bool = False
) -> Scorer:
    """A kit through the Python API. With `heatmap` the map is enlarged to the size of the image."""
    from msc_edge.runtime import Detector  # noqa: PLC0415

    detector = Detector.load(model, threads=cores, precision=precision)

    def score(path: str) -> Scored:
        result = detector.score_file(path, heatmap=heatmap)
        scores = {"score": result.score, "image_score": result.image_score}
        if result.patch_score is not None:
            scores["patch_score"] = result.patch_score
        return Scored(scores, str(result.verdict), result.anomaly_map)

    return score


def openvino_inferencer(model: Path, cores: int, *, precision: str | None = None, by_name: bool = False) -> Scorer:
    """Anomalib's own inferencer. Without `precision` OpenVINO computes in bfloat16 where the processor has it.

    `by_name`: for raw exports, whose score OpenVINO may give two names. The inferencer takes one of them by chance, and
    fails with the other one.
    """
    config: dict[str, object] = {"INFERENCE_NUM_THREADS": cores}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    deploy: Any = import_module("anomalib.deploy")
    inferencer = deploy.OpenVINOInferencer(model / "weights/openvino/model.xml", device="CPU", config=config)
    hint, threads = map(inferencer.model.get_property, ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS"))
    NOTES.append(f"computes in {hint.get_type_name()} on {threads} threads")
    if not by_name:
        return lambda path: _of_prediction(inferencer.predict(path))
    read_image = import_module("anomalib.data.utils").read_image
    outputs = {name: inferencer.model.output(name) for name in ("pred_score", "pred_label", "anomaly_map")}

    def score(path: str) -> Scored:
        found = inferencer.model({"input": inferencer.pre_process(read_image(path, as_tensor=False))})
        return _of_prediction(SimpleNamespace(**{name: found[output] for name, output in outputs.items()}))

    return score


def torch_inferencer(model: Path, cores: int) -> Scorer:
    """Anomalib's inferencer for PyTorch, with antialiasing as in training: its exports resize without."""
    torch: Any = import_module("torch")
    torch.set_num_threads(cores)
    os.environ["TRUST_REMOTE_CODE"] = "1"  # the file is a pickle, which peers_train.py wrote
    deploy: Any = import_module("anomalib.deploy")
    inferencer = deploy.TorchInferencer(model / "weights/torch/model.pt", device="cpu")
    inferencer.model.pre_processor.export_transform = inferencer.model.pre_processor.transform
    return lambda path: _of_prediction(inferencer.predict(path))


def _of_prediction(prediction: Any) -> Scored:
    import numpy as np  # noqa: PLC0415

    label, anomaly_map = prediction.pred_label, np.asarray(prediction.anomaly_map, np.float32)
    return Scored({"score": float(prediction.pred_score.item())}, _verdict(label), anomaly_map.squeeze())


def _verdict(label: Any) -> str:
    return "reject" if label.item() else "ok"


def _session(path: Path, cores: int) -> Any:
    """An onnxruntime session with the options of msc-edge, for both sides."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # msc_edge sets it, and is not installed everywhere
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads = cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def peer_onnx(model: Path, cores: int) -> Scorer:
    """Anomalib's ONNX export in onnxruntime. Pillow and numpy read and scale the pixels as its inferencer does."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    session = _session(model / "weights/onnx/model.onnx", cores)
    outputs = ["pred_score", "pred_label", "anomaly_map", "pred_mask"]

    def score(path: str) -> Scored:
        with Image.open(path) as image:
            pixels = (np.array(image.convert("RGB")) / 255.0).astype(np.float32)
        value, label, anomaly_map, _ = session.run(outputs, {"input": pixels[None].transpose(0, 3, 1, 2)})
        return Scored({"score": float(value.item())}, _verdict(label), anomaly_map.squeeze())

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


def floor(
    model: Path, cores: int, *, precision: Literal["fp32", "int8"]
) -> tuple[Scorer, Callable[[list[str]], list[float]]]:
    """The kit's model alone, on decoded pixels: a lower bound for this model in onnxruntime."""
    from msc_edge.images import read_image  # noqa: PLC0415
    from msc_edge.kit.layout import MODEL_FILES  # noqa: PLC0415

    session = _session(model / MODEL_FILES[precision], cores)

    def times(files: list[str]) -> list[float]:
        each = []
        for file in files:
            feed = {"image": read_image(Path(file))[None]}
            each.append(_milliseconds(lambda feed=feed: session.run(None, feed)))
        return each

    return lambda path: Scored({"score": sum(times([path]))}, "no verdict", None), times


SCORERS: dict[str, Callable[[Path, int], Scorer]] = {
    "detector": msc_edge_detector,
    "detector-heatmap": lambda model, cores: msc_edge_detector(model, cores, heatmap=True),
    "detector-int8": lambda model, cores: msc_edge_detector(model, cores, precision="int8"),
    "detector-int8-heatmap": lambda model, cores: msc_edge_detector(model, cores, precision="int8", heatmap=True),
    "openvino": openvino_inferencer,
    "openvino-raw": lambda model, cores: openvino_inferencer(model, cores, by_name=True),
    "openvino-f32": lambda model, cores: openvino_inferencer(model, cores, precision="f32"),
    "peer-onnx": peer_onnx,
    "peer-torch": torch_inferencer,
}


# Scorers that time a whole pass themselves.
WHOLE: dict[str, Callable[[Path, int], tuple[Scorer, Callable[[list[str]], list[float]]]]] = {
    "floor": lambda model, cores: floor(model, cores, precision="fp32"),
    "floor-int8": lambda model, cores: floor(model, cores, precision="int8"),
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

    found = score(first)
    answer((found.scores, found.verdict))
    installed = {each.metadata["Name"].lower(): each.version for each in metadata.distributions()}
    answer(({name: installed[name] for name in _PACKAGES if name in installed}, "; ".join(NOTES)))
    for line in sys.stdin:
        files = json.loads(line)
        # Not ru_maxrss: it starts at the memory of the parent process.
        status = Path("/proc/self/status").read_text()
        answer(times(files) if files else int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)


def write_maps(kind: str, model: Path, cores: int, out: Path) -> None:
    """See the docstring of the module."""
    import numpy as np  # noqa: PLC0415

    score, rows = SCORERS[kind](model, cores), []
    for number, file in enumerate(json.load(sys.stdin)):
        found = score(file)
        np.save(out / f"{number}.npy", found.anomaly_map)
        rows.append(found.scores | {"reject": float(found.verdict == "reject")})
    (out / "scores.json").write_text(json.dumps(rows))


def answer_scores(kind: str, model: Path, cores: int) -> None:
    """See the docstring of the module."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # as in `serve`
    score = SCORERS[kind](model, cores)
    for line in sys.stdin:
        rows = [found.scores | {"reject": float(found.verdict == "reject")} for found in map(score, json.loads(line))]
        print(json.dumps(rows), file=answers, flush=True)


if __name__ == "__main__":
    command, kind, model, cores, last = sys.argv[1:]
    if command == "serve":
        serve(kind, Path(model), int(cores), last)
    elif command == "scores":
        answer_scores(kind, Path(model), int(cores))
    else:
        write_maps(kind, Path(model), int(cores), Path(last))
