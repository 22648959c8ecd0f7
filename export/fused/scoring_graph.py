"""The scoring of a kit as an ONNX graph: from the outputs of its model to score, p-value, verdict and anomaly map.

The same computation as in `msc_edge.bank`, `anomaly_map`, `scoring` and `calibration`, in plain operators: distances
and scores in float64, the map in float32.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnxscript import OpBuilder, build_graph, ir

from msc_edge.anomaly_map import blur_kernel
from msc_edge.bank import SPARE
from msc_edge.calibration import Calibration, Limits
from msc_edge.export.graph_ops import array, as_float, half_to_even, resized_size
from msc_edge.kit.model_entry import Outputs
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.backends.interface import EMBEDDING, INPUT, PATCH_DISTANCES
from msc_edge.scoring import Scale, Scoring

BankType = Literal["float32", "float16", "int8"]

MAP_SIDE = 224
WARN_LIMIT, REJECT_LIMIT = "warn_limit", "reject_limit"
LABELS = ("normal", "warn", "reject")
"""What the numbers of the output `verdict` mean."""
_INT8 = 127


@dataclass(frozen=True)
class Scored:
    """What a graph scores with."""

    outputs: Outputs
    rows: np.ndarray
    """The memory bank, float32 (n, dim), unit rows."""
    k: int
    scoring: Scoring
    calibration: Calibration
    limits: Limits
    preprocessing: Preprocessing
    bank: BankType = "float32"
    """How the rows are stored. They are float32 when they are compared."""


def scoring_graph(scored: Scored, *, opset: int) -> onnx.GraphProto:
    """Inputs `embedding`, `patch_distances` where the model has them, `image`, `warn_limit`, `reject_limit`.

    Outputs: float64 (1,) `score`, `image_score`, `patch_score`, `p_value`; int32 (1,) `verdict`; float32 `anomaly_map`
    (1, rows, columns) and `anomaly_map_224` (1, 224, 224), the map at the frame resized to that size. Without patches
    `patch_score` and the maps are missing.
    """
    outputs, double, single = scored.outputs, ir.DataType.DOUBLE, ir.DataType.FLOAT
    inputs = [
        ir.val(EMBEDDING, single, [1, outputs.embedding.dim]),
        ir.val(INPUT, ir.DataType.UINT8, [1, "height", "width", 3]),
        ir.val(WARN_LIMIT, double, [1]),
        ir.val(REJECT_LIMIT, double, [1]),
    ]
    results = [ir.val(name, double, [1]) for name in ("score", "image_score", "p_value")]
    results.append(ir.val("verdict", ir.DataType.INT32, [1]))
    if grid := outputs.patch_distances:
        inputs.append(ir.val(PATCH_DISTANCES, single, [1, grid.rows, grid.columns]))
        results.append(ir.val("patch_score", double, [1]))
        results.append(ir.val("anomaly_map", single, [1, grid.rows, grid.columns]))
        results.append(ir.val("anomaly_map_224", single, [1, MAP_SIDE, MAP_SIDE]))
    graph = build_graph(
        lambda op, *values: _results(op, scored, *values),
        inputs=inputs,
        outputs=results,
        opset_imports={"": opset},
        name="scoring",
    )
    return ir.to_proto(graph)


def _results(
    op: OpBuilder,
    scored: Scored,
    embedding: ir.Value,
    image: ir.Value,
    warn_limit: ir.Value,
    reject_limit: ir.Value,
    patch_distances: ir.Value | None = None,
) -> list[ir.Value]:
    scoring = scored.scoring
    image_score = score = _image_score(op, scored, embedding)
    patches: list[ir.Value] = []
    if patch_distances is not None and scoring.map is not None:
        grid = _blurred(op, patch_distances, scored.outputs, smoothing=scoring.map.smoothing)
        patch_score = _double(op, op.ReduceMax(op.Reshape(grid, [1, -1]), [1], keepdims=0))
        score = patch_score
        if scoring.image and scoring.patch:
            score = op.Max(_standardised(op, image_score, scoring.image), _standardised(op, patch_score, scoring.patch))
        patches = [patch_score, grid, _at_frame(op, grid, image, scored)]
    verdict = op.Where(
        op.Greater(score, reject_limit), _ints(op, 2), op.Cast(op.Greater(score, warn_limit), to=ir.DataType.INT32)
    )
    return [op.Identity(score), op.Identity(image_score), _p_value(op, score, scored.calibration), verdict, *patches]


def _image_score(op: OpBuilder, scored: Scored, embedding: ir.Value) -> ir.Value:
    """Mean cosine distance to the k nearest rows: candidates by a product in float32, their distances in float64."""
    rows = _stored(op, scored.rows, scored.bank)
    similarity = op.Squeeze(op.MatMul(rows, op.Transpose(embedding, perm=[1, 0])), [1])
    _, candidates = op.TopK(similarity, [min(scored.k + SPARE, len(scored.rows))], _outputs=2)
    products = op.Mul(_double(op, op.Gather(rows, candidates)), _double(op, embedding))
    distances = op.Sub(_doubles(op, 1.0), op.ReduceSum(products, [1], keepdims=0))
    nearest, _ = op.TopK(distances, [scored.k], largest=0, _outputs=2)
    return op.ReduceMean(nearest, [0])


def _stored(op: OpBuilder, rows: np.ndarray, bank: BankType) -> ir.Value:
    if bank == "float32":
        return array(op, rows)
    if bank == "float16":
        return op.Cast(array(op, rows.astype(np.float16)), to=ir.DataType.FLOAT)
    scale = np.abs(rows).max(axis=1) / _INT8
    return op.DequantizeLinear(
        array(op, np.rint(rows / scale[:, None]).astype(np.int8)), array(op, scale.astype(np.float32)), axis=0
    )


def _standardised(op: OpBuilder, score: ir.Value, scale: Scale) -> ir.Value:
    return op.Div(op.Sub(score, _doubles(op, scale.mean)), _doubles(op, scale.deviation))


def _p_value(op: OpBuilder, score: ir.Value, calibration: Calibration) -> ir.Value:
    at_least = op.GreaterOrEqual(array(op, np.array(calibration.scores)), score)
    count = op.ReduceSum(_double(op, at_least), [0])
    weighted = op.Add(op.Div(count, _doubles(op, calibration.alike)), _doubles(op, 1.0))
    return op.Div(weighted, _doubles(op, calibration.independent + 1))


def _blurred(op: OpBuilder, distances: ir.Value, outputs: Outputs, *, smoothing: float) -> ir.Value:
    """The anomaly map, as `msc_edge.anomaly_map.smoothed`: a product with a banded matrix for each axis."""
    assert outputs.patch_distances is not None
    if smoothing == 0:
        return op.Identity(distances)
    kernel = blur_kernel(smoothing)
    down, across = (_blur(count, kernel) for count in (outputs.patch_distances.rows, outputs.patch_distances.columns))
    return op.MatMul(op.MatMul(array(op, down), distances), array(op, across.T.copy()))


def _blur(count: int, kernel: np.ndarray) -> np.ndarray:
    """The blur of `count` values as a matrix, float32 (count, count); the border is repeated."""
    reach = len(kernel) // 2
    matrix = np.zeros((count, count))
    for row in range(count):
        np.add.at(matrix[row], np.clip(np.arange(row - reach, row + reach + 1), 0, count - 1), kernel)
    return matrix.astype(np.float32)


def _at_frame(op: OpBuilder, grid: ir.Value, image: ir.Value, scored: Scored) -> ir.Value:
    """The map at the frame resized to 224 x 224, as `AnomalyMap.at_frame`; 0 where the network sees nothing."""
    spec, patches = scored.preprocessing, scored.outputs.patch_distances
    assert patches is not None
    height, width = op.Shape(image, start=1, end=2), op.Shape(image, start=2, end=3)
    region = spec.region
    seen_height, seen_width = (_longs(op, region.height), _longs(op, region.width)) if region else (height, width)
    to_height, to_width = resized_size(op, spec, seen_height, seen_width)
    (weights_down, inside_down), (weights_across, inside_across) = (
        _interpolation(op, spec, patches.stride, frame=frame, seen=seen, to=to, first=first, canvas=canvas, count=count)
        for frame, seen, to, first, canvas, count in (
            (height, seen_height, to_height, region.y if region else 0, spec.canvas[0], patches.rows),
            (width, seen_width, to_width, region.x if region else 0, spec.canvas[1], patches.columns),
        )
    )
    large = op.MatMul(op.MatMul(weights_down, grid), op.Transpose(weights_across, perm=[1, 0]))
    return op.Mul(large, op.Mul(inside_down, op.Transpose(inside_across, perm=[1, 0])))


def _interpolation(
    op: OpBuilder,
    spec: Preprocessing,
    stride: int,
    *,
    frame: ir.Value,
    seen: ir.Value,
    to: ir.Value,
    first: int,
    canvas: int,
    count: int,
) -> tuple[ir.Value, ir.Value]:
    """Weights of the grid's lines at the lines of the map, (224, count), and which of these are seen, (224, 1).

    `frame`, `seen`, `to`: pixels of the frame, of its region, and of the region resized, int64 (1,). The view is the
    middle `image_size` of the last.
    """
    scale = op.Div(_double(op, seen), _double(op, to))  # pixels of the frame for one of the input
    half = half_to_even(op, op.Sub(to, [spec.image_size]))
    start = op.Add(op.Mul(_double(op, half), scale), _doubles(op, float(first)))
    length = op.Mul(scale, _doubles(op, float(spec.image_size)))
    centres = array(op, (np.arange(MAP_SIDE) + 0.5)[:, None] / MAP_SIDE)
    places = op.Sub(op.Mul(centres, _double(op, frame)), start)  # (224, 1), pixels of the frame from the view
    inside = op.And(op.GreaterOrEqual(places, _doubles(op, 0.0)), op.LessOrEqual(places, length))
    at_input = op.Sub(op.Mul(places, op.Div(_doubles(op, float(canvas)), length)), _doubles(op, 0.5))
    positions = op.Div(op.Sub(at_input, _doubles(op, float(spec.margin))), _doubles(op, float(stride)))
    positions = op.Clip(positions, array(op, np.array(0.0)), array(op, np.array(float(count - 1))))
    apart = op.Abs(op.Sub(positions, array(op, np.arange(count, dtype=np.float64)[None])))
    weights = op.Relu(as_float(op, op.Sub(_doubles(op, 1.0), apart)))
    return weights, as_float(op, inside)


def _doubles(op: OpBuilder, value: float) -> ir.Value:
    return array(op, np.array([value], np.float64))


def _ints(op: OpBuilder, value: int) -> ir.Value:
    return array(op, np.array([value], np.int32))


def _longs(op: OpBuilder, value: int) -> ir.Value:
    return array(op, np.array([value], np.int64))


def _double(op: OpBuilder, value: ir.Value) -> ir.Value:
    return op.Cast(value, to=ir.DataType.DOUBLE)
