import numpy as np
import pytest

from msc_edge.kit.model_entry import EmbeddingOutput, Outputs
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend


def test_the_committed_kit_opens_and_is_small(toy_kit):
    with Kit.open(toy_kit) as kit:
        assert kit.embeddings("fp32").shape == (12, 192)
        assert len(kit.normal_images()) == 12
    assert sum(path.stat().st_size for path in toy_kit.rglob("*") if path.is_file()) < 150_000


def test_making_it_again_gives_the_same_kit(toy, toy_kit, tmp_path):
    made = toy.make(tmp_path / "again.kit")
    with Kit.open(toy_kit) as kit:
        committed = kit.manifest
    new, old = made.models["fp32"], committed.models["fp32"]
    np.testing.assert_allclose(new.calibration.scores, old.calibration.scores, rtol=0, atol=1e-6)
    assert new.banks == old.banks

    # The bytes are the same on one machine; on another one the last bits of the embeddings may not be.
    assert toy.make(tmp_path / "and again.kit").files == made.files


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 640), (48, 64), (101, 77), (480, 641)])
def test_the_model_computes_what_its_reference_in_numpy_computes(toy, toy_kit, height, width):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    model = OnnxRuntimeBackend(toy_kit / "model.onnx", outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    np.testing.assert_allclose(model.run(image).embedding, toy.reference_embedding(image), rtol=0, atol=2e-6)
