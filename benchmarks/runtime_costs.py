"""Times behind decisions of the runtime: decoding a JPEG, searching while other cores are busy, opening a session.

    python benchmarks/runtime_costs.py PHOTOGRAPHS.zip KIT [--parts decoding searching opening]

Decoding: a photograph of the zip, enlarged, on one thread of OpenCV. The image is embedded before each call, as in use.
Searching: random rows, the product of BLAS compared with numpy's `vecdot`, with idle cores and while other processes
keep cores busy; in a separate process with the default number of BLAS threads.
Opening: the models of the kit, and the same models as optimised by onnxruntime.
"""

import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import cv2
import numpy as np
import onnxruntime as ort
from common import models_of, parser_of, read_zipped, zipped_images
from timing import as_text, medians

from msc_edge.runtime import Detector
from msc_edge.runtime.processor import usable_cores

PARTS = ("decoding", "searching", "opening")


def _decode(data: np.ndarray, flags: int, conversion: int | None) -> np.ndarray:
    decoded = cv2.imdecode(data, flags)
    assert decoded is not None
    return decoded if conversion is None else cv2.cvtColor(decoded, conversion)


def decoding(photographs: Path, detector: Detector) -> None:
    """Print the time to decode a colour and a grey JPEG with several flags of OpenCV."""
    cv2.setNumThreads(1)
    with zipfile.ZipFile(photographs) as archive:
        source = read_zipped(archive, zipped_images(archive)[0])[..., ::-1]
    for size in ((1920, 1080), (4000, 3000)):
        photograph = cv2.resize(source, size, interpolation=cv2.INTER_CUBIC)
        for kind, image in (("colour", photograph), ("grey", cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY))):
            data = cv2.imencode(".jpg", image)[1]
            flags: dict[str, tuple[int, int | None]] = {
                "colour, then RGB": (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, cv2.COLOR_BGR2RGB)
            }
            if kind == "grey":
                flags["grey, then RGB"] = (cv2.IMREAD_GRAYSCALE, cv2.COLOR_GRAY2RGB)
            else:
                flags |= {
                    "RGB": (cv2.IMREAD_COLOR_RGB, None),
                    "1/2": (cv2.IMREAD_REDUCED_COLOR_2, cv2.COLOR_BGR2RGB),
                    "1/4": (cv2.IMREAD_REDUCED_COLOR_4, cv2.COLOR_BGR2RGB),
                }
            actions = {name: partial(_decode, data, *each) for name, each in flags.items()}
            # A detector takes three channels, so the grey JPEG follows an embedding of the colour image too.
            found = medians(actions, rounds=25, before=partial(detector.embed, photograph))
            print(f"{kind} JPEG of {size[0]}x{size[1]}: {as_text(found)}", flush=True)


_SEARCH = """
import sys
import numpy as np
from timing import samples
rows, dim = int(sys.argv[1]), int(sys.argv[2])
bank = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
query = bank[3].copy()
# Not in turns: the threads of BLAS may still be awake after its product.
for name, search in (("BLAS", lambda: bank @ query), ("vecdot", lambda: np.vecdot(bank, query))):
    p50, p95 = np.percentile(samples({name: search}, rounds=31)[name], (50, 95))
    print(f"{name} {p50:.2f} ms (p95 {p95:.2f})", end="; ")
"""


def searching() -> None:
    """Print the time of exact search with BLAS and without it, with idle and with busy cores."""
    for rows, dim in ((600, 1280), (5_000, 512), (100_000, 512)):
        for busy in range(usable_cores() + 1):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                command = [sys.executable, "-c", _SEARCH, str(rows), str(dim)]
                folder = Path(__file__).parent  # of `timing`
                found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            print(f"{rows} rows of {dim}, {busy} of {usable_cores()} cores busy: {found}", flush=True)


def opening(kit: Path) -> None:
    """Print the time to open a session, from the kit's model and from the optimised model that onnxruntime writes."""
    with models_of(kit) as models, tempfile.TemporaryDirectory() as scratch:
        for precision, model in models.items():
            optimised = f"{scratch}/{precision}.onnx"
            options = ort.SessionOptions()
            options.log_severity_level, options.optimized_model_filepath = 4, optimised
            ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

            actions = {
                "the kit's": partial(_session, str(model), ort.GraphOptimizationLevel.ORT_ENABLE_ALL),
                "optimised": partial(_session, optimised, ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
            }
            print(f"opening {precision}: {as_text(medians(actions, rounds=9))}", flush=True)


def _session(file: str, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = 1, 4, level
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure the parts and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("photographs", type=Path, metavar="PHOTOGRAPHS.zip", help="a zip with a colour JPEG")
    parser.add_argument("kit", type=Path, metavar="KIT")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; default: all")
    options = parser.parse_args()
    if "decoding" in options.parts:
        detector = Detector.load(options.kit, threads=1, precision="fp32", backend="onnxruntime")
        decoding(options.photographs, detector)
    if "searching" in options.parts:
        searching()
    if "opening" in options.parts:
        opening(options.kit)


if __name__ == "__main__":
    main()
