"""Three classes of small images, and options for jobs that take a fraction of a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.one_vs_rest.protocol import ProtocolOptions

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, save: Callable) -> Path:
    """Three classes with different colours: 40 training and 3 test images of each; read-only."""
    folder = tmp_path_factory.mktemp("classes")
    for name, colour in COLOURS.items():
        for number in range(43):
            noise = np.random.default_rng(number).normal(0, 50, (32, 32, 3))
            part = "train" if number < 40 else "test"
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            save(folder / part / name / f"{number:02d}.png", image)
    return folder


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory, randomise: Callable) -> ProtocolOptions:
    """Train on the first eight images of a class."""
    backbone = build_backbone("mobilenet_v2_x0.1", stop_at="features.6")
    randomise(backbone, 0)
    weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(backbone.state_dict(), weights)
    return ProtocolOptions(
        backbone="mobilenet_v2_x0.1",
        weights=weights,
        stop_at="features.6",
        preset="whole-frame",
        image_size=32,
        images=8,
        steps=2,
        batch=4,
        measure_every=1,
        accelerator="cpu",
        dtype="fp32",
    )
