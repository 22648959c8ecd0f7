"""What several graphs are made of: constants, casts, and the sizes of `Preprocessing.view` for a frame of any size."""

import numpy as np
from onnxscript import OpBuilder, ir

from msc_edge.preprocessing import Preprocessing


def array(op: OpBuilder, value: np.ndarray) -> ir.Value:
    """A constant."""
    return op.Constant(value=ir.tensor(np.ascontiguousarray(value)))


def as_float(op: OpBuilder, value: ir.Value) -> ir.Value:
    """Float32."""
    return op.Cast(value, to=ir.DataType.FLOAT)


def as_int(op: OpBuilder, value: ir.Value) -> ir.Value:
    """Int64, rounded towards 0."""
    return op.Cast(value, to=ir.DataType.INT64)


def resized_size(op: OpBuilder, spec: Preprocessing, height: ir.Value, width: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Height and width, int64 (1,), that the region is resized to before the centre is cut out."""
    if spec.resize == "stretch":
        side = array(op, np.array([spec.resize_to]))
        return side, side
    short = op.Min(height, width)
    return op.Div(op.Mul(height, [spec.resize_to]), short), op.Div(op.Mul(width, [spec.resize_to]), short)


def half_to_even(op: OpBuilder, excess: ir.Value) -> ir.Value:
    """Half of an int64 (1,), halves to even: as `half_to_even` of msc_edge.preprocessing."""
    return op.Div(op.Add(excess, op.Mod(op.Div(excess, [2]), [2])), [2])
