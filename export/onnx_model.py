"""The network as one ONNX file that includes preprocessing."""

import logging
import warnings
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from onnx.compose import add_prefix_graph, merge_graphs
from onnx.helper import make_model
from torch import Tensor, nn

from msc_edge.export.preprocessing_graph import OUTPUT, preprocessing_graph
from msc_edge.runtime.backends.interface import EMBEDDING
from msc_edge.train.backbones import Backbone
from msc_edge.train.network import EmbeddingNetwork

OPSET = 20


def export_onnx(network: EmbeddingNetwork, path: Path) -> None:
    """Write `network` to `path` as a single file, without external data.

    Input `image`: uint8 (1, height, width, 3), RGB, any size. Output `embedding`: float32 (1, dim), unit length.
    """
    network = network.cpu().eval()
    spec = network.preprocess.spec
    embedding = _traced(_Embedding(network.backbone), torch.zeros(1, 3, spec.image_size, spec.image_size))
    preprocessing = preprocessing_graph(spec, opset=OPSET)
    # Both graphs name their inner values val_1, val_2, ...: a prefix keeps them apart.
    preprocessing = add_prefix_graph(preprocessing, "preprocessing/", rename_inputs=False, rename_outputs=False)
    graph = merge_graphs(preprocessing, embedding.graph, io_map=[(OUTPUT, OUTPUT)], name="msc-edge")
    onnx.save(make_model(graph, opset_imports=embedding.opset_import, ir_version=embedding.ir_version), path)


class _Embedding(nn.Module):
    """The network behind preprocessing: float32 (1, 3, image_size, image_size) -> unit embedding (1, dim)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.backbone(pixels), dim=1)


def _traced(module: nn.Module, example: Tensor) -> onnx.ModelProto:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[OUTPUT],
                output_names=[EMBEDDING],
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # None only without dynamo
    return program.model_proto
