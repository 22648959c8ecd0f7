"""The int8 model of a kit: a model that agrees with fp32, or the reason why there is none.

An int8 embedding differs from the fp32 embedding of the same image. For a small network the difference is two thirds
of the distance between a normal image and its nearest normal images. Most of that difference is the same for all
images, so int8 embeddings are compared with an int8 memory bank. Gates then check that both models give held-out normal
images and synthetic anomalies made from them the same ranks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.model_entry import Agreement, Outputs, Quantization, Target
from msc_edge.preprocessing import Preprocessing, Region
from msc_edge.progress import Report
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.processor import usable_cores
from msc_edge.train.seeds import numpy_generator_of
from msc_edge.train.synthetic import KINDS

MIN_RANK_CORRELATION = 0.99
MAX_AUROC_LOSS = 0.005
_RANGE_IMAGES = 64  # images of the memory bank that set the activation ranges
_MAX_HELD_OUT = 64  # normal images to compare the two models on
_MIN_ANOMALIES = 96  # synthetic anomalies: the rank correlation of fewer scores is unreliable
_MAX_BANK_ROWS = 512
_SENSITIVITY_IMAGES = 8  # normal images that, with their anomalies, rank the layers
_SENSITIVITY_BYTES = 512 << 20  # the most memory for these images
_MAX_FLOAT_LAYERS = 0.5  # of all layers: with more float layers int8 is hardly faster

MakeAnomaly = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Int8Rejected:
    """Why a kit has no int8 model."""

    agreement: Agreement
    float_layers: int
    layers: int

    def __str__(self) -> str:
        found = self.agreement
        return (
            f"no int8 model: with {self.float_layers} of {self.layers} layers in float, the rank correlation with fp32 "
            f"is {found.rank_correlation:.3f} (required: {MIN_RANK_CORRELATION}), and the AUROC on synthetic anomalies "
            f"is {found.auroc:.3f} (fp32: {found.auroc_fp32:.3f}; at most {MAX_AUROC_LOSS} less is allowed)"
        )


def passes_gates(agreement: Agreement) -> bool:
    """Whether the int8 model may be used in place of fp32."""
    return (
        agreement.rank_correlation >= MIN_RANK_CORRELATION and agreement.auroc >= agreement.auroc_fp32 - MAX_AUROC_LOSS
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
    seed: int = 0,
) -> tuple[Quantization, Agreement] | Int8Rejected:
    """Write the int8 model `path` from the fp32 `model`, which has these outputs and the memory bank `bank`.

    While the gates fail, more layers stay in float: first the stem, where float is as fast, then also the layers that
    int8 harms most: one, two, four, ... of them, up to half of all layers. If no attempt passes the gates, there is no
    file `path`, and the result is Int8Rejected with the agreement of the last attempt.
    """
    report = images.report
    with TemporaryDirectory(prefix="msc-edge-int8-", ignore_cleanup_errors=True) as scratch:
        range_images = evenly(images.in_bank, _RANGE_IMAGES)
        quantizer = Quantizer(
            model,
            lambda: (image for _, image in images.decoded(range_images, "int8: activation ranges")),
            target=target,
            scratch=Path(scratch),
        )
        layers = list(quantizer.layers)
        test = AgreementTest(model, outputs, bank, spec, images, seed=seed)
        agreement, float_layers = None, []
        for float_layers in _attempts(quantizer, lambda: _by_harm(quantizer, test, Path(scratch), report)):
            quantizer.write(path, float_layers=float_layers)
            int8 = test.open(path)
            agreement = test.agreement(int8)
            if passes_gates(agreement):
                check_embedding = [round(float(value), 7) for value in int8.run(check_image(spec)).embedding]
                return (
                    Quantization(
                        target=target,
                        images=len(range_images),
                        layers=len(layers),
                        float_layers=sorted(float_layers, key=layers.index),
                        check_embedding=check_embedding,
                    ),
                    agreement,
                )
        path.unlink()
        assert agreement is not None  # there is at least one attempt
        return Int8Rejected(agreement, len(float_layers), len(layers))


def _attempts(quantizer: Quantizer, by_harm: Callable[[], list[str]]) -> Iterator[list[str]]:
    """The float layers of each attempt. `by_harm` ranks the layers behind the stem; it is slow and called last."""
    stem, most = quantizer.stem, int(len(quantizer.layers) * _MAX_FLOAT_LAYERS) - len(quantizer.stem)
    yield []
    if stem:
        yield stem
    if most > 0:
        ranked = by_harm()
        yield from ([*stem, *ranked[: 2**power]] for power in range(int(math.log2(most)) + 1))


class AgreementTest:
    """Compares int8 models with the fp32 model on held-out normal images and their synthetic anomalies.

    All models are compared on the same images. `agreement` and `embeddings` decode them at each call, a few at a time;
    `error` decodes its own, smaller set once and keeps it.
    """

    def __init__(
        self, model: Path, outputs: Outputs, bank: Bank, spec: Preprocessing, images: RunImages, *, seed: int = 0
    ) -> None:
        self._outputs, self._k = outputs, bank.k
        self._spec, self._images, self._seed = spec, images, seed
        self._held_out = evenly(images.held_out, _MAX_HELD_OUT)
        self._anomalies = list(KINDS.values()) * math.ceil(_MIN_ANOMALIES / (len(KINDS) * len(self._held_out)))
        rows = evenly(range(len(images.in_bank)), _MAX_BANK_ROWS)
        self._in_bank = [images.in_bank[row] for row in rows]
        self._float = self.embeddings(self.open(model))
        self._float_bank = np.ascontiguousarray(bank.embeddings[rows])
        self._sensitivity: list[list[np.ndarray]] = []

    def open(self, model: Path) -> OnnxRuntimeBackend:
        """Open an exported model."""
        return OnnxRuntimeBackend(model, outputs=self._outputs, threads=usable_cores())

    def agreement(self, int8: OnnxRuntimeBackend) -> Agreement:
        """Compare the ranking of the images by fp32 and by an int8 model, each with its own memory bank."""
        decoded = self._images.decoded(self._in_bank, "int8: comparing with fp32")
        bank = np.stack([int8.run(image).embedding for _, image in decoded])
        fp32_scores = self._scores(self._float_bank, self._float)
        int8_scores = self._scores(bank, self.embeddings(int8))
        anomalous = np.arange(len(fp32_scores)) % (1 + len(self._anomalies)) > 0
        return Agreement(
            normal_images=int((~anomalous).sum()),
            synthetic_anomalies=int(anomalous.sum()),
            auroc_fp32=float(roc_auc_score(anomalous, fp32_scores)),
            auroc=float(roc_auc_score(anomalous, int8_scores)),
            rank_correlation=float(spearmanr(fp32_scores, int8_scores).statistic),  # pyright: ignore[reportAttributeAccessIssue]
        )

    def error(self, int8: OnnxRuntimeBackend) -> float:
        """Mean squared distance of the two models' embeddings, without the part that is the same for all images."""
        if not self._sensitivity:  # decoded once for all layers
            self._sensitivity = self._sensitivity_images()
        rows = np.stack([int8.run(image).embedding for group in self._sensitivity for image in group])
        difference = rows - self._float[: len(rows)]
        return float(np.square(difference - difference.mean(axis=0)).sum(axis=1).mean())

    def embeddings(self, model: OnnxRuntimeBackend) -> np.ndarray:
        """Unit embeddings, float32 (n, dim): of each held-out image, followed by those of its anomalies."""
        return np.stack([model.run(image).embedding for group in self._groups(self._held_out) for image in group])

    def _sensitivity_images(self) -> list[list[np.ndarray]]:
        """The first groups of the held-out images, as many as _SENSITIVITY_BYTES hold, but at least one."""
        kept: list[list[np.ndarray]] = []
        for group in self._groups(self._held_out[:_SENSITIVITY_IMAGES]):
            kept.append(group)
            if (len(kept) + 1) * sum(image.nbytes for image in group) > _SENSITIVITY_BYTES:
                break
        return kept

    def _groups(self, names: list[str]) -> Iterator[list[np.ndarray]]:
        """For each name one group: the image and its anomalies. A group does not depend on the names after it."""
        rng = numpy_generator_of(self._seed, 3, 0)
        for _, image in self._images.decoded(names, "int8: comparing with fp32"):
            yield [image, *(_anomaly(image, make, rng, self._spec.region) for make in self._anomalies)]

    def _scores(self, bank: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        searched = Bank(bank, k=self._k)
        return np.array([searched.score(embedding) for embedding in embeddings])


def _anomaly(image: np.ndarray, make: MakeAnomaly, rng: np.random.Generator, region: Region | None) -> np.ndarray:
    """A copy of an image with a synthetic anomaly within the region of interest."""
    copy = image.copy()
    visible = copy[region.y : region.y + region.height, region.x : region.x + region.width] if region else copy
    changed = make(visible, rng)
    visible[: changed.shape[0], : changed.shape[1]] = changed  # `jumbled` drops an odd last row or column
    return copy


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
