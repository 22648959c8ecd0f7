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

from msc_edge.export.preprocessing_graph import OUTPUT, images_of, preprocessing_graph
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs, PatchDistancesOutput, PatchEmbeddingsOutput
from msc_edge.runtime.backends.interface import output_shapes
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.network import PatchNetwork

OPSET = 20


def export_onnx(network: EmbeddingNetwork, path: Path, *, head: PatchHead | None = None) -> Outputs:
    """Write `network` to `path` as a single file, without external data, and return its outputs.

    Input `image`: uint8 (1, height, width, 3), RGB, any size. Output `embedding`: float32 (1, dim), unit length. With
    a patch head also the outputs `patch_distances`, float32 (1, rows, columns), and `patch_embeddings`, (1, rows,
    columns, patch dim).
    """
    network = network.cpu().eval()
    spec = network.preprocess.spec
    example = torch.zeros(images_of(spec) if head else 1, 3, spec.input_side, spec.input_side)
    module = PatchNetwork(network.backbone, head.cpu(), spec) if head else _Embedding(network.backbone)
    with torch.no_grad():
        embedding, *patches = module(example) if head else (module(example),)
    outputs = Outputs(embedding=EmbeddingOutput(dim=embedding.shape[1]))
    if head:
        (_, rows, columns, dim), stride = patches[1].shape, head.taps[-1].stride
        grid = PatchDistancesOutput(rows=rows, columns=columns, stride=stride)
        of_patches = {"patch_distances": grid, "patch_embeddings": PatchEmbeddingsOutput(dim=dim)}
        outputs = outputs.model_copy(update=of_patches)
    network_model = _traced(module, example, list(output_shapes(outputs)))
    preprocessing = preprocessing_graph(spec, opset=OPSET, tiles=head is not None)
    # Both graphs name their inner values val_1, val_2, ...: a prefix keeps them apart.
    preprocessing = add_prefix_graph(preprocessing, "preprocessing/", rename_inputs=False, rename_outputs=False)
    graph = merge_graphs(preprocessing, network_model.graph, io_map=[(OUTPUT, OUTPUT)], name="msc-edge")
    model = make_model(graph, opset_imports=network_model.opset_import, ir_version=network_model.ir_version)
    onnx.save(model, path)
    return outputs


class _Embedding(nn.Module):
    """The network behind preprocessing: float32 (1, 3, input_side, input_side) -> unit embedding (1, dim)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.backbone(pixels), dim=1)


def _traced(module: nn.Module, example: Tensor, outputs: list[str]) -> onnx.ModelProto:
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
                output_names=outputs,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # None only without dynamo
    return program.model_proto
