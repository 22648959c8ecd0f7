"""Preprocessing in the graph: the resize in bands beside ONNX's own operator, as torch.onnx exports it.

    python benchmarks/resize.py [--rounds 41]

A random frame in memory, both graphs in turns, median. Also how far each is from torch, in grey levels.
"""

import argparse
import logging
import time
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.helper import make_model, make_opsetid

from msc_edge.export.onnx_model import OPSET
from msc_edge.export.preprocessing_graph import INPUT, preprocessing_graph
from msc_edge.preprocessing import PresetName, preset
from msc_edge.train.preprocess import Preprocess

SIZES = [(224, 224), (240, 320), (480, 640), (720, 1280), (1080, 1920), (2160, 3840)]


def opened(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session over `model`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # As the detector has it; else the threads of the one session, which still look for work, hold up the other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_resize(module: Preprocess) -> onnx.ModelProto:
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
    """Print a line for each size."""
    spec = preset(name)
    module = Preprocess(spec)
    ours = make_model(preprocessing_graph(spec, opset=OPSET), opset_imports=[make_opsetid("", OPSET)], ir_version=10)
    sessions = {"Resize": opened(with_resize(module), threads), "bands": opened(ours, threads)}
    for height, width in SIZES:
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        theirs = module(torch.from_numpy(image))
        took: dict[str, list[float]] = {each: [] for each in sessions}
        apart = {}
        for number in range(rounds):
            for each, session in sessions.items():
                begun = time.perf_counter()
                pixels = session.run(None, {INPUT: image})[0]
                took[each].append(1000 * (time.perf_counter() - begun))
                if number == 0:
                    apart[each] = float(((torch.from_numpy(pixels) - theirs) * module.std).abs().max())
        medians = {each: float(np.median(times)) for each, times in took.items()}
        statistics = ", ".join(f"{each} {medians[each]:.2f} ms ({apart[each]:.4f} grey levels)" for each in sessions)
        ratio = medians["Resize"] / medians["bands"]
        print(f"{name}, {threads} threads, {width}x{height}: {statistics}, ratio {ratio:.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    for name in ("whole-frame", "paper"):
        for threads in (1, 2):
            measure(name, threads, rounds)


if __name__ == "__main__":
    main()
