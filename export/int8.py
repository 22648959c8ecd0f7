"""The int8 model of a kit: a model that agrees with fp32, or the reason why there is none.

An int8 embedding differs from the fp32 embedding of the same image. For a small network the difference is two thirds
of the distance between a normal image and its nearest normal images. Most of that difference is the same for all
images, so int8 embeddings are compared with an int8 memory bank. Gates then check that both models give held-out normal
images and synthetic anomalies made from them the same ranks, and that their anomaly maps agree.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from msc_edge.bank import Bank
from msc_edge.export.agreement import AgreementTest, failed_gates, passes_gates
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.quantization import MIN_HELD_OUT, Agreement, Quantization, Target
from msc_edge.preprocessing import Preprocessing
from msc_edge.progress import Report
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.interface import ModelOutput
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.processor import usable_cores
from msc_edge.scoring import MapSettings

_RANGE_IMAGES = 64  # images of the memory bank that set the activation ranges
_MAX_FLOAT_LAYERS = 0.5  # of all layers: with more float layers int8 is hardly faster


@dataclass(frozen=True)
class Int8Rejected:
    """Why a kit has no int8 model: the gates that the last attempt failed."""

    agreement: Agreement
    float_layers: int
    layers: int
    held_out: int
    """Held-out normal images. With fewer than MIN_HELD_OUT the layers were not ranked."""

    def __str__(self) -> str:
        failed = ", and ".join(failed_gates(self.agreement))
        return f"no int8 model: with {self.float_layers} of {self.layers} layers in float {failed}" + (
            f". No other layers were tried: that takes minutes, and needs {MIN_HELD_OUT} held-out images to show which "
            f"ones matter, not {self.held_out}: train with more images or a higher --holdout"
            if self.held_out < MIN_HELD_OUT
            else ""
        )


def quantised_model(
    model: Path,
    path: Path,
    outputs: Outputs,
    bank: Bank,
    spec: Preprocessing,
    images: RunImages,
    *,
    target: Target,
    maps: MapSettings | None = None,
    seed: int = 0,
) -> tuple[Quantization, Agreement] | Int8Rejected:
    """Write the int8 model `path` from the fp32 `model`, which has these outputs and the memory bank `bank`.

    `maps`: how patch distances become maps, which then have gates of their own.

    While the gates fail, more layers stay in float: first the stem, where float is as fast, then also the layers that
    int8 harms most: one, two, four, ... of them, up to half of all layers. With fewer than MIN_HELD_OUT held-out images
    only the stem is tried. If no attempt passes the gates, there is no file `path`, and the result is Int8Rejected with
    the agreement of the last attempt.
    """
    report = images.report
    with TemporaryDirectory(prefix="msc-edge-int8-", ignore_cleanup_errors=True) as scratch:
        quantizer, range_images = _quantizer(model, images, target, Path(scratch))
        test = AgreementTest(model, outputs, bank, spec, images, maps=maps, seed=seed)
        agreement, float_layers = None, []
        by_harm = None
        if len(images.held_out) >= MIN_HELD_OUT:
            by_harm = partial(_by_harm, quantizer, test, Path(scratch), report)
        for float_layers in _attempts(quantizer, by_harm):
            quantizer.write(path, float_layers=float_layers)
            int8 = test.open(path)
            agreement = test.agreement(int8)
            if passes_gates(agreement):
                quantization = _quantization(int8.run(check_image(spec)), target, quantizer, float_layers, range_images)
                return quantization, agreement
        path.unlink()
        assert agreement is not None  # there is at least one attempt
        return Int8Rejected(agreement, len(float_layers), len(quantizer.layers), len(images.held_out))


def quantised_again(
    model: Path, path: Path, outputs: Outputs, spec: Preprocessing, images: RunImages, like: Quantization
) -> Quantization:
    """Write the int8 model `path` from an fp32 `model` with another patch bank, as `like` was written from `images`."""
    with TemporaryDirectory(prefix="msc-edge-int8-", ignore_cleanup_errors=True) as scratch:
        quantizer, range_images = _quantizer(model, images, like.target, Path(scratch))
        quantizer.write(path, float_layers=like.float_layers)
        check = OnnxRuntimeBackend(path, outputs=outputs, threads=usable_cores()).run(check_image(spec))
        return _quantization(check, like.target, quantizer, like.float_layers, range_images)


def _quantizer(model: Path, images: RunImages, target: Target, scratch: Path) -> tuple[Quantizer, list[str]]:
    """The quantiser of a model, and the images that set its ranges."""
    chosen = evenly(images.in_bank, _RANGE_IMAGES)
    task = "int8: activation ranges"
    return Quantizer(
        model, lambda: (image for _, image in images.decoded(chosen, task)), target=target, scratch=scratch
    ), chosen


def _quantization(
    check: ModelOutput, target: Target, quantizer: Quantizer, float_layers: Sequence[str], range_images: Sequence[str]
) -> Quantization:
    layers, patches = list(quantizer.layers), check.patch_distances
    return Quantization(
        target=target,
        images=len(range_images),
        layers=len(layers),
        float_layers=sorted(float_layers, key=layers.index),
        check_embedding=[round(float(value), 7) for value in check.embedding],
        check_patch_distances=None if patches is None else [round(float(value), 5) for value in patches.ravel()],
    )


def _attempts(quantizer: Quantizer, by_harm: Callable[[], list[str]] | None) -> Iterator[list[str]]:
    """The float layers of each attempt.

    `by_harm` ranks the layers behind the stem; it is slow and called last. None: these layers are not tried.
    """
    stem, most = quantizer.stem, int(len(quantizer.layers) * _MAX_FLOAT_LAYERS) - len(quantizer.stem)
    yield []
    if stem:
        yield stem
    if by_harm and most > 0:
        ranked = by_harm()
        yield from ([*stem, *ranked[: 2**power]] for power in range(int(math.log2(most)) + 1))


def _by_harm(quantizer: Quantizer, test: AgreementTest, scratch: Path, report: Report) -> list[str]:
    """The layers behind the stem, most harmful first: those whose return to float lowers the error most."""
    trial = scratch / "trial.onnx"
    layers = [layer for layer in quantizer.layers if layer not in quantizer.stem]

    def error_without(layer: str, number: int) -> float:
        quantizer.write(trial, float_layers=[*quantizer.stem, layer])
        report("int8: measuring the layers", number, len(layers))
        return test.error(test.open(trial))

    errors = {layer: error_without(layer, number) for number, layer in enumerate(layers, start=1)}
    return sorted(errors, key=lambda layer: errors[layer])
