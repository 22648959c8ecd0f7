"""The single file of a kit: its model and its scoring as one ONNX graph, with all that an integrator must know."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix_graph

from msc_edge import __version__
from msc_edge.calibration import Limit
from msc_edge.export.fused.scoring_graph import (
    LABELS,
    REJECT_LIMIT,
    WARN_LIMIT,
    BankType,
    Scored,
    scoring_graph,
)
from msc_edge.kit.manifest import Manifest, Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.interface import EMBEDDING
from msc_edge.runtime.detector import Detector

FORMAT = "1"
_PREFIX = "scoring/"


@dataclass(frozen=True)
class SingleFile:
    """The single file of a kit, not yet on disk."""

    model: onnx.ModelProto
    detector: Detector
    """Of the kit, with the same model: what the file must score as."""
    bank: BankType
    properties: dict[str, Any]
    """What an integrator must know, by name."""

    @cached_property
    def content(self) -> bytes:
        """The ONNX file."""
        return self.model.SerializeToString()


def fuse(kit: Kit, *, precision: Precision | None = None, bank: BankType = "float32") -> SingleFile:
    """The model of a kit and its scoring in one ONNX graph; docs/embed.md is the specification.

    `precision`: the model, by default the kit's default model. `bank`: how the rows of the memory bank are stored;
    `float16` and `int8` round them, and move scores. KitError for a kit without this model.
    """
    detector = Detector.of(kit, precision=precision, backend="onnxruntime", search="exact")
    entry = kit.model(detector.model)
    model = onnx.load_from_string(kit.file(entry.file).read_bytes())
    opset = next(each.version for each in model.opset_import if each.domain == "")
    scored = Scored(
        outputs=entry.outputs,
        rows=kit.embeddings(detector.model),
        k=entry.banks.images.k,
        scoring=detector.scoring,
        calibration=detector.calibration,
        limits=detector.limits,
        preprocessing=kit.manifest.preprocessing,
        bank=bank,
    )
    _join(
        model.graph,
        add_prefix_graph(scoring_graph(scored, opset=opset), _PREFIX, rename_inputs=False, rename_outputs=False),
    )
    _add_limits(model.graph, scored)
    _keep_what_outputs_need(model.graph)  # not patch_embeddings
    properties = _properties(kit.manifest, detector, bank)
    helper.set_model_props(model, {f"msc_edge.{name}": _text(value) for name, value in properties.items()})
    model.producer_name, model.producer_version = "msc-edge", __version__
    onnx.checker.check_model(model)
    return SingleFile(model, detector, bank, properties)


def _join(graph: onnx.GraphProto, scoring: onnx.GraphProto) -> None:
    """Append the graph of the scoring, whose inputs are outputs and the input of the model."""
    graph.node.extend(scoring.node)
    graph.initializer.extend(scoring.initializer)
    kept = [each for each in graph.output if each.name == EMBEDDING]
    del graph.output[:]
    graph.output.extend([*scoring.output, *kept])


def _add_limits(graph: onnx.GraphProto, scored: Scored) -> None:
    """The limits as inputs with a default: an input that is also an initializer may be omitted."""
    limits = {WARN_LIMIT: scored.limits.warn, REJECT_LIMIT: scored.limits.reject}
    for name, limit in limits.items():
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]))
        graph.initializer.append(numpy_helper.from_array(np.array([limit.score]), name))


def _keep_what_outputs_need(graph: onnx.GraphProto) -> None:
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    used = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(used)
    described = [each for each in graph.value_info if each.name in needed]
    del graph.value_info[:]
    graph.value_info.extend(described)


def _properties(manifest: Manifest, detector: Detector, bank: BankType) -> dict[str, Any]:
    """What an integrator must know: `metadata_props`, and kit.json of the web demo."""
    entry, spec = manifest.models[detector.model], manifest.preprocessing
    check = detector.score(check_image(spec))
    return {
        "format": FORMAT,
        "msc_edge_version": __version__,
        "kit_name": manifest.name,
        "kit_sha256": detector.kit.sha256,
        "model": detector.model,
        "bank": {"rows": entry.banks.images.count, "k": entry.banks.images.k, "type": bank},
        "score": entry.scoring.kind,
        "labels": LABELS,
        "limits": {name: _described(getattr(detector.limits, name)) for name in ("warn", "reject")},
        "map_limit": entry.calibration.regions and _described(entry.calibration.regions.limit),
        "calibration_images": len(detector.calibration.scores),
        "least_p_value": detector.calibration.least_p_value,
        "decode": manifest.decode.model_dump(mode="json"),
        "preprocessing": spec.model_dump(mode="json", exclude={"ignore"}),
        "check_image": {"score": check.score, "verdict": check.verdict},
        "weights": manifest.provenance.weights.model_dump(mode="json"),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _described(limit: Limit) -> dict[str, float | None]:
    return {"score": limit.score, "target_rate": limit.target_rate, "expected_rate": limit.expected_rate}
