import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from msc_edge.errors import KitError, SourceError
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend

MODEL = MODEL_FILES["fp32"]


def test_a_model_of_another_dimension_is_refused(toy_kit):
    with pytest.raises(KitError, match=r"model\.onnx.*\[1, 512\]"):
        OnnxRuntimeBackend(toy_kit / MODEL, outputs=Outputs(embedding=EmbeddingOutput(dim=512)), threads=1)


def test_an_image_that_the_model_cannot_process_is_a_source_error(toy_kit, tmp_path):
    model = onnx.load(toy_kit / MODEL)
    # Requires 40x40 pixels: the Resize of the toy model then gets a fixed size.
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 40, 40]), "shape"))
    model.graph.node.insert(2, helper.make_node("Reshape", ["planes", "shape"], ["cut"]))
    model.graph.node[3].input[0] = "cut"
    onnx.save(model, tmp_path / MODEL)
    opened = OnnxRuntimeBackend(tmp_path / MODEL, outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    assert opened.run(np.full((40, 40, 3), 9, np.uint8)).embedding.shape == (192,)
    with pytest.raises(SourceError, match="41x39"):
        opened.run(np.full((39, 41, 3), 9, np.uint8))


def test_the_errors_of_onnxruntime_are_raised_and_not_printed(toy_kit, tmp_path, capfd):
    model = onnx.load(toy_kit / MODEL)
    # More elements than a size can count: reported by the logger that belongs to no session.
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**62]), "length"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["length"], ["large"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["large"], ["none"], keepdims=0))
    model.graph.node[-3].output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "none"], ["embedding"]))
    onnx.save(model, tmp_path / MODEL)
    opened = OnnxRuntimeBackend(tmp_path / MODEL, outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    with pytest.raises((SourceError, MemoryError)):
        opened.run(np.full((40, 40, 3), 9, np.uint8))
    assert capfd.readouterr() == ("", "")


MEMORY_RUNS_OUT = """
import resource, sys
from pathlib import Path
import numpy as np
from msc_edge.runtime import Detector
from msc_edge.runtime.batch import score_images

kit, small, large = sys.argv[1:]
detector = Detector.load(kit, threads=1)
detector.score_file(small)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
# Enough for the stacks of a few threads, and too little for an image of 60 MB.
resource.setrlimit(resource.RLIMIT_AS, (used + (110 << 20), resource.RLIM_INFINITY))
for image in score_images(detector, [Path(small), Path(large), Path(small)], threads=1):
    print(image.result and image.result.verdict, image.error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space and reads /proc")
def test_an_image_too_large_for_the_memory_gets_an_error_and_the_next_one_is_scored(toy_kit, photos, save, tmp_path):
    large = save(tmp_path / "large.png", np.zeros((4000, 5000, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_RUNS_OUT, str(toy_kit), str(photos / "good_100.png"), str(large)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # otherwise each thread reserves 64 MB of addresses
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert first == third == "normal None"
    assert second.startswith("None ")
    assert "memory" in second
