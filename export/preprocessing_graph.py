"""Preprocessing as an ONNX graph: the result of `msc_edge.train.preprocess`, computed fast on a CPU.

onnxruntime's kernel for the ONNX operator `Resize`, antialiased, takes 8 ms for a 1080p frame, longer than a whole
small network. This graph resizes each axis by a product with a matrix of weights. The matrices are banded, so each
product covers a few output pixels and reads only the input lines that these depend on. Rows are resized first, because
they are contiguous in memory and stay uint8 until their band is read.
"""

import numpy as np
import onnx
from onnxscript import OpBuilder, build_graph, ir

from msc_edge.export.graph_ops import array, as_float, as_int, half_to_even, resized_size
from msc_edge.preprocessing import Preprocessing

INPUT, OUTPUT = "image", "pixels"
_BAND = 4  # output pixels in a band: larger bands multiply more zeros, smaller products are slower
_BANDS_PER_PRODUCT = 4  # fewer nodes, and the lines of a product still fit into the processor's cache


def images_of(spec: Preprocessing) -> int:
    """How many images the network computes for a frame: the whole view, and the tiles."""
    return 1 + spec.tiles.count if spec.tiles else 1


def preprocessing_graph(spec: Preprocessing, *, opset: int, tiles: bool = False) -> onnx.GraphProto:
    """Preprocessing as a graph: `image`, uint8 (1, height, width, 3), RGB, any size -> `pixels`.

    Output `pixels`: float32 (1, 3, input_side, input_side), normalised, within 0.001 grey levels of the torch module.
    With `tiles`, those of the frame follow, if it has any: (1 + tiles, 3, input_side, input_side).
    """
    side = spec.input_side
    graph = build_graph(
        lambda op, image: _preprocessed(op, image, spec, tiles=tiles),
        inputs=[ir.val(INPUT, ir.DataType.UINT8, [1, "height", "width", 3])],
        outputs=[ir.val(OUTPUT, ir.DataType.FLOAT, [images_of(spec) if tiles else 1, 3, side, side])],
        opset_imports={"": opset},
        name="preprocessing",
    )
    return ir.to_proto(graph)


def _preprocessed(op: OpBuilder, image: ir.Value, spec: Preprocessing, *, tiles: bool) -> ir.Value:
    if region := spec.region:
        ends = [region.y + region.height, region.x + region.width]
        image = op.Slice(image, [region.y, region.x], ends, [1, 2])
    height, width = op.Shape(image, start=1, end=2), op.Shape(image, start=2, end=3)
    side = spec.image_size
    to_height, to_width = resized_size(op, spec, height, width)

    def resized(to: tuple[ir.Value, ir.Value], size: tuple[int, int], kept: np.ndarray | None) -> ir.Value:
        """The middle `size` of the image resized to the size `to`, normalised, with the margin: (1, 3, *size)."""
        rows = op.Reshape(image, op.Concat(height, [-1], axis=0))  # (height, width * 3)
        rows = _resized(op, rows, height, to[0], size[0])  # (rows, width * 3)
        columns = op.Reshape(op.Transpose(rows, perm=[1, 0]), op.Concat(width, [3 * size[0]], axis=0))
        columns = _resized(op, columns, width, to[1], size[1])  # (columns, 3 * rows)
        mean, std = (255 * np.array(each, np.float32).reshape(1, 1, 3, 1) for each in (spec.mean, spec.std))
        pixels = op.Div(op.Sub(op.Reshape(columns, [1, size[1], 3, size[0]]), array(op, mean)), array(op, std))
        pixels = op.Transpose(pixels, perm=[0, 2, 3, 1])
        if kept is not None:
            pixels = op.Mul(pixels, array(op, kept.astype(np.float32)[None, None]))
        return op.Pad(pixels, array(op, np.array(2 * [0, 0, spec.margin, spec.margin]))) if spec.margin else pixels

    whole = resized((to_height, to_width), (side, side), spec.kept_pixels(whole=True))
    if not (tiles and spec.tiles):
        return whole
    to_canvas = array(op, np.array(spec.canvas[:1])), array(op, np.array(spec.canvas[1:]))
    canvas = resized(to_canvas, spec.canvas, spec.kept_pixels(whole=False))
    seen = spec.input_side
    corners = spec.tiles.corners(side)
    cut = [op.Slice(canvas, [top, left], [top + seen, left + seen], [2, 3]) for top, left in corners]
    return op.Concat(whole, *cut, axis=0)


def _resized(op: OpBuilder, lines: ir.Value, count: ir.Value, to: ir.Value, side: int) -> ir.Value:
    """Resize `count` lines to `to` lines and keep the middle `side`: uint8 or float32 (count, n) -> float32 (side, n).

    Antialiased bilinear, as in PyTorch: an output line is the weighted mean of the input lines around its centre. The
    weights form a triangle, which reaches as far as the centres of two output lines are apart, but at least one input
    line. `count` and `to` are int64 (1,).
    """
    bands = -(-side // _BAND)
    within = np.minimum(np.arange(bands * _BAND), side - 1).reshape(bands, _BAND, 1)  # pads the last band
    first = half_to_even(op, op.Sub(to, [side]))
    scale = op.Div(as_float(op, count), as_float(op, to))
    reach = op.Max(scale, [1.0])
    lines_out = as_float(op, op.Add(first, array(op, within)))
    centres = op.Mul(op.Add(lines_out, [0.5]), scale)  # (bands, _BAND, 1), in input lines

    # Every band reads the same number of lines: all that its triangles reach, and two more for rounding.
    reads = op.Add(as_int(op, op.Add(op.Mul(scale, [float(_BAND - 1)]), op.Mul(reach, [2.0]))), [2])
    reads = op.Min(reads, count)
    start = as_int(op, op.Floor(op.Sub(op.Slice(centres, [0], [1], [1]), reach)))  # (bands, 1, 1)
    start = op.Max(op.Min(start, op.Sub(count, reads)), [0])
    read = op.Add(start, op.Range(0, op.Squeeze(reads), 1))  # (bands, 1, reads)
    apart = op.Abs(op.Sub(op.Add(as_float(op, read), [0.5]), centres))
    weights = op.Relu(op.Sub([1.0], op.Div(apart, reach)))  # (bands, _BAND, reads)
    weights = op.Div(weights, op.ReduceSum(weights, [2]))

    products = -(-bands // _BANDS_PER_PRODUCT)
    bands_read = _split(op, op.Squeeze(read, [1]), products)
    resized = [
        op.MatMul(of_bands, as_float(op, op.Gather(lines, lines_read, axis=0)))
        for of_bands, lines_read in zip(_split(op, weights, products), bands_read, strict=True)
    ]
    resized = op.Reshape(op.Concat(*resized, axis=0), [bands * _BAND, -1])
    return resized if bands * _BAND == side else op.Slice(resized, [0], [side], [0])


def _split(op: OpBuilder, value: ir.Value, parts: int) -> list[ir.Value]:
    return [value] if parts == 1 else list(op.Split(value, num_outputs=parts, axis=0, _outputs=parts))
