"""Preprocessing in the graph: the banded resize compared with ONNX's `Resize`, as torch.onnx exports it.

    python benchmarks/resize.py [--rounds 41]

Time: a random frame in memory, both graphs in turns, median. Accuracy: the largest difference of each from torch, in
grey levels.
"""

import logging
import warnings
from functools import partial

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnx
import onnxruntime as ort
import torch
from common import parser_of, random_frame
from onnx.helper import make_model, make_opsetid
from timing import medians

from msc_edge.export.onnx_model import OPSET
from msc_edge.export.preprocessing_graph import INPUT, preprocessing_graph
from msc_edge.preprocessing import PresetName, preset
from msc_edge.train.preprocess import Preprocess

SIZES = [(224, 224), (240, 320), (480, 640), (720, 1280), (1080, 1920), (2160, 3840)]


def session_of(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """An onnxruntime session with `model`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # As in the detector. Otherwise the spinning threads of one session slow the other one down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def exported(module: Preprocess) -> onnx.ModelProto:
    """Preprocessing as torch.onnx exports it, with ONNX's `Resize`."""
    logging.disable(logging.WARNING)
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(1, 331, 457, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            dynamic_shapes={"image": {1: dynamic, 2: dynamic}},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def measure(name: PresetName, threads: int, rounds: int) -> None:
    """Print a line for each size of the frame."""
    spec = preset(name)
    module = Preprocess(spec)
    banded = make_model(preprocessing_graph(spec, opset=OPSET), opset_imports=[make_opsetid("", OPSET)], ir_version=10)
    sessions = {"Resize": session_of(exported(module), threads), "banded": session_of(banded, threads)}
    for height, width in SIZES:
        feed = {INPUT: random_frame(width, height)[None]}
        reference = module(torch.from_numpy(feed[INPUT]))
        found = medians({each: partial(session.run, None, feed) for each, session in sessions.items()}, rounds=rounds)
        cells = []
        for each, session in sessions.items():
            pixels = np.asarray(session.run(None, feed)[0])
            difference = float(((torch.from_numpy(pixels) - reference) * module.std).abs().max())
            cells.append(f"{each} {found[each]:.2f} ms ({difference:.4f} grey levels)")
        ratio = found["Resize"] / found["banded"]
        print(f"{name}, {threads} threads, {width}x{height}: {', '.join(cells)}, ratio {ratio:.2f}", flush=True)


def main() -> None:
    """Measure both presets on one and two threads."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=41, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    for name in ("whole-frame", "paper"):
        for threads in (1, 2):
            measure(name, threads, rounds)


if __name__ == "__main__":
    main()
