"""What the detector needs of a backend, and how backends are named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np

from msc_edge.errors import KitError
from msc_edge.kit.model_entry import Outputs

BackendName = Literal["onnxruntime", "openvino"]
BackendChoice = Literal["auto", "onnxruntime", "openvino"]

INPUT = "image"
EMBEDDING = "embedding"
PATCH_DISTANCES = "patch_distances"
PATCH_EMBEDDINGS = "patch_embeddings"


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a model computes from one image."""

    embedding: np.ndarray
    """Unit length, float32 (dim,)."""
    patch_distances: np.ndarray | None
    """Float32 (rows, columns); None for a model that compares whole images only."""
    patch_embeddings: np.ndarray | None = None
    """What the distances are distances of, float32 (rows, columns, dim); None for kits of an earlier msc-edge, too."""


class Backend(Protocol):
    """An open model. Safe to use from several threads."""

    def run(self, image: np.ndarray) -> ModelOutput:
        """Compute the outputs for an image, uint8 (height, width, 3), RGB.

        Raises MemoryError, SourceError when the model cannot process an image of this size, KitError for outputs of
        other shapes than the manifest states.
        """
        ...


def installed_backends() -> tuple[BackendName, ...]:
    """The backends that are installed."""
    return ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)


def output_of(file: str, shapes: Mapping[str, list[int]], computed: Sequence[Any]) -> ModelOutput:
    """What a model computed, in the order of `shapes`. KitError where a library gives other shapes: it only warns."""
    for (name, shape), value in zip(shapes.items(), computed, strict=True):
        if (list(value.shape), value.dtype) != (shape, np.float32):
            raise KitError(f"{file}: {name} is {value.dtype} {value.shape}, expected float32 {tuple(shape)}")
    embedding, distances, embeddings, *_ = (*(value[0] for value in computed), None, None)
    return ModelOutput(embedding, distances, embeddings)


def output_shapes(outputs: Outputs) -> dict[str, list[int]]:
    """The outputs of a model and their shapes, in the order of `ModelOutput`."""
    shapes = {EMBEDDING: [1, outputs.embedding.dim]}
    if patches := outputs.patch_distances:
        shapes[PATCH_DISTANCES] = [1, patches.rows, patches.columns]
        if embeddings := outputs.patch_embeddings:
            shapes[PATCH_EMBEDDINGS] = [1, patches.rows, patches.columns, embeddings.dim]
    return shapes
