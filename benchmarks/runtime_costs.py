"""What decisions about the runtime rest on: decoding a JPEG, searching beside other work, opening a session.

    python benchmarks/runtime_costs.py PHOTOGRAPHS.zip KIT

Decoding: a photograph of the zip, scaled up, on one thread of OpenCV; before each, the image is embedded, as in use.
Searching: rows drawn at random, BLAS's product beside numpy's vecdot, alone and while other processes keep cores busy;
in a process of its own, with as many BLAS threads as it takes by itself. Opening: the kit's models, and the same as
onnxruntime has optimised them, in turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from msc_edge.images import decode_image
from msc_edge.kit.layout import MODELS
from msc_edge.kit.opening import Kit
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores


def milliseconds(
    actions: Mapping[str, Callable[[], object]], rounds: int = 25, before: Callable[[], object] = lambda: None
) -> str:
    """The medians of some actions, in turns and each after `before`, in words."""
    took: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            before()
            begun = time.perf_counter()
            action()
            took[name].append(1000 * (time.perf_counter() - begun))
    return ", ".join(f"{name} {np.median(each):.2f} ms" for name, each in took.items())


def _read(data: np.ndarray, flags: int, conversion: int | None) -> np.ndarray:
    decoded = cv2.imdecode(data, flags)
    assert decoded is not None
    return decoded if conversion is None else cv2.cvtColor(decoded, conversion)


def decoding(photographs: Path, detector: Detector) -> None:
    """Print how long a colour and a grey JPEG take, by several ways that OpenCV has."""
    cv2.setNumThreads(1)
    with zipfile.ZipFile(photographs) as archive:
        name = next(name for name in archive.namelist() if name.lower().endswith(".jpg"))
        source = decode_image(np.frombuffer(archive.read(name), np.uint8))[..., ::-1]
    for size in ((1920, 1080), (4000, 3000)):
        photograph = cv2.resize(source, size, interpolation=cv2.INTER_CUBIC)
        for words, image in (("colour", photograph), ("grey", cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY))):
            data = cv2.imencode(".jpg", image)[1]

            ways: dict[str, tuple[int, int | None]] = {
                "colours, then RGB": (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, cv2.COLOR_BGR2RGB)
            }
            if words == "grey":
                ways["grey, then RGB"] = (cv2.IMREAD_GRAYSCALE, cv2.COLOR_GRAY2RGB)
            else:
                ways |= {
                    "RGB": (cv2.IMREAD_COLOR_RGB, None),
                    "1/2": (cv2.IMREAD_REDUCED_COLOR_2, cv2.COLOR_BGR2RGB),
                    "1/4": (cv2.IMREAD_REDUCED_COLOR_4, cv2.COLOR_BGR2RGB),
                }
            actions = {way: partial(_read, data, *how) for way, how in ways.items()}
            told = milliseconds(actions, before=lambda image=image: detector.embed(image))
            print(f"{words} JPEG of {size[0]}x{size[1]}: {told}", flush=True)


_SEARCH = """
import sys, time
import numpy as np
rows, dim = int(sys.argv[1]), int(sys.argv[2])
bank = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
query = bank[3].copy()
for name, search in (("BLAS", lambda: bank @ query), ("vecdot", lambda: np.vecdot(bank, query))):
    took = []
    for _ in range(31):
        begun = time.perf_counter()
        search()
        took.append(1000 * (time.perf_counter() - begun))
    print(f"{name} {np.median(took):.2f} ms (p95 {np.percentile(took, 95):.2f})", end="; ")
"""


def searching() -> None:
    """Print how long exact search takes by BLAS and without it, with idle cores and with busy ones."""
    for rows, dim in ((600, 1280), (5_000, 512), (100_000, 512)):
        for busy in range(usable_cores() + 1):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                command = [sys.executable, "-c", _SEARCH, str(rows), str(dim)]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            print(f"{rows} rows of {dim}, {busy} of {usable_cores()} cores busy: {told}", flush=True)


def opening(path: Path) -> None:
    """Print how long a session takes to open, from the kit's model and from what onnxruntime has made of it."""
    with Kit.open(path) as kit, tempfile.TemporaryDirectory() as scratch:
        for precision in kit.manifest.precisions:
            model, optimised = str(kit.path(MODELS[precision])), f"{scratch}/{precision}.onnx"
            options = ort.SessionOptions()
            options.log_severity_level, options.optimized_model_filepath = 4, optimised
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

            actions = {
                "the kit's": partial(_session, model, ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
                "optimised": partial(_session, optimised, ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
            }
            print(f"opening {precision}: {milliseconds(actions, 9)}", flush=True)


def _session(file: str, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = 1, 4, level
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("kit", type=Path)
    options = parser.parse_args()
    decoding(options.photographs, Detector.load(options.kit, threads=1, precision="fp32", backend="onnxruntime"))
    searching()
    opening(options.kit)


if __name__ == "__main__":
    main()
