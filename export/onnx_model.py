"""The network as one ONNX file, preprocessing included."""

import logging
import warnings
from pathlib import Path

import torch

from msc_edge.train.network import EmbeddingNetwork

OPSET = 20  # the first whose Resize knows antialias and keeps uint8 outside


def export_onnx(network: EmbeddingNetwork, path: Path) -> None:
    """Write `network` to `path`: `image` uint8 (1, height, width, 3) of any size -> `embedding` float32 (1, dim).

    One file, without external data. Height and width stay symbolic.
    """
    network = network.cpu().eval()
    # Sizes that no figure of the preprocessing equals, so that none is taken for a constant.
    region = network.preprocess.spec.region
    height = 331 + (region.y + region.height if region else 0)
    width = 457 + (region.x + region.width if region else 0)
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["embedding"],
                dynamic_shapes={"image": {1: dynamic, 2: dynamic}},
                external_data=False,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None  # with dynamo=True it is a program
    program.save(str(path), external_data=False)
