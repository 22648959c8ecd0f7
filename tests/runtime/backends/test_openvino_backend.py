"""Without OpenVINO; tests/test_base_install.py (slow) installs it and compares scores."""

import sys

import pytest

from msc_edge.errors import MissingExtraError
from msc_edge.kit.layout import MODEL_FILES
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.interface import installed_backends
from msc_edge.runtime.backends.openvino_backend import OpenVinoBackend


@pytest.fixture(autouse=True)
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)


def test_a_missing_package_is_named_with_its_extra(toy_kit):
    with pytest.raises(MissingExtraError, match=r"pip install 'msc-edge\[openvino\]', or use --backend onnxruntime"):
        OpenVinoBackend(toy_kit / MODEL_FILES["fp32"], outputs=Outputs(embedding=EmbeddingOutput(dim=192)), threads=1)
    with pytest.raises(MissingExtraError):
        Detector.load(toy_kit, backend="openvino")


def test_auto_uses_onnxruntime(toy_kit):
    assert installed_backends() == ("onnxruntime",)
    assert Detector.load(toy_kit, backend="auto").spec.name == "onnxruntime"
