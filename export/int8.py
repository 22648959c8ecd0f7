"""The int8 part of a kit: a model that agrees with float, with a bank and limits of its own, or the reason why not.

An int8 embedding is not the float one: for a small network it lies two thirds as far from it as a good part from its
nearest normals. Most of that is the same for all images, so int8 embeddings are compared with int8 embeddings: the
bank is embedded anew. Whether the ranking of images stays is then measured, on held-out good images and spoiled
copies of them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.manifest import Agreement, Quantization, Target
from msc_edge.preprocessing import Preprocessing, Region
from msc_edge.progress import Report
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend, usable_cores
from msc_edge.runtime.backends.selection import check_image
from msc_edge.train.seeds import numpy_generator_of
from msc_edge.train.synthetic import KINDS

LEAST_RANK_CORRELATION = 0.99
MOST_AUROC_LOST = 0.005
_RANGES = 64  # images of the bank whose activations set the ranges
_MOST_HELD_OUT = 64  # good images that the two precisions are compared on
_LEAST_SPOILED = 96  # spoiled copies: over fewer the ranks say little
_MOST_IN_BANK = 512  # rows that they are compared with
_SENSITIVITY = 8  # good images, and their spoiled copies, by which layers are ranked
_MOST_IN_FLOAT = 0.5  # of the layers: with more of them there is little to gain

Spoil = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Int8Rejected:
    """Why a kit has no int8 model."""

    agreement: Agreement
    in_float: int
    layers: int

    def __str__(self) -> str:
        of = self.agreement
        return (
            f"int8 is not worth it here: with {self.in_float} of {self.layers} layers left in float, the scores' rank "
            f"correlation with float is {of.rank_correlation:.3f} (at least {LEAST_RANK_CORRELATION} is asked for), "
            f"and spoiled images are told by an AUROC of {of.auroc_int8:.3f}, where float has {of.auroc_fp32:.3f} "
            f"(at most {MOST_AUROC_LOST} less)"
        )


def agree(agreement: Agreement) -> bool:
    """Whether int8 may stand for float."""
    return (
        agreement.rank_correlation >= LEAST_RANK_CORRELATION
        and agreement.auroc_int8 >= agreement.auroc_fp32 - MOST_AUROC_LOST
    )


def quantised_model(
    model: Path,
    path: Path,
    bank: Bank,
    spec: Preprocessing,
    images: RunImages,
    *,
    target: Target,
    seed: int = 0,
) -> tuple[Quantization, Agreement] | Int8Rejected:
    """Write the int8 model `path` from the float `model`, whose `bank` is of the run's `images`.

    As long as the two do not agree, layers are left in float: the stem where that costs no time, then those that do
    most harm too, one, two, four, ... of them, up to half of all. Where they never do, nothing is written.
    """
    report = images.report
    with TemporaryDirectory(prefix="msc-edge-int8-", ignore_cleanup_errors=True) as scratch:
        ranges = evenly(images.in_bank, _RANGES)
        quantizer = Quantizer(
            model,
            lambda: (image for _, image in images.decoded(ranges, "finding the ranges for int8")),
            target=target,
            scratch=Path(scratch),
        )
        layers = list(quantizer.layers)
        score_embedding = AgreementTest(model, bank, spec, images, seed=seed)
        agreement, left = None, []
        for left in _attempts(quantizer, lambda: _by_harm(quantizer, score_embedding, Path(scratch), report)):
            quantizer.write(path, in_float=left)
            int8 = score_embedding.opened(path)
            agreement = score_embedding.agreement(int8)
            if agree(agreement):
                return (
                    Quantization(
                        target=target,
                        images=len(ranges),
                        layers=len(layers),
                        in_float=sorted(left, key=layers.index),
                        check=[round(float(value), 7) for value in int8.embed(check_image(spec))],
                    ),
                    agreement,
                )
        path.unlink()
        assert agreement is not None  # at least one was tried
        return Int8Rejected(agreement, len(left), len(layers))


def _attempts(quantizer: Quantizer, by_harm: Callable[[], list[str]]) -> Iterator[list[str]]:
    """Which layers to leave in float, in turn; `by_harm` ranks those behind the stem, and takes its time."""
    stem, most = quantizer.stem, int(len(quantizer.layers) * _MOST_IN_FLOAT) - len(quantizer.stem)
    yield []
    if stem:
        yield stem
    if most > 0:
        ranked = by_harm()
        yield from ([*stem, *ranked[: 2**power]] for power in range(int(math.log2(most)) + 1))


def embeddings_of(model: Path, dim: int, images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    """Unit embeddings, float32 (n, dim), of named decoded images, by an exported model."""
    embed = OnnxRuntimeBackend(model, dim=dim, threads=usable_cores()).embed
    return np.stack([embed(image) for _, image in images])


class AgreementTest:
    """Float's embeddings of the bank, of held-out images and of spoiled copies; and how another model compares."""

    def __init__(
        self,
        model: Path,
        bank: Bank,
        spec: Preprocessing,
        images: RunImages,
        *,
        seed: int = 0,
    ) -> None:
        self._dim, self._k = bank.embeddings.shape[1], bank.k
        self._spec, self._images, self._seed = spec, images, seed
        self._held_out = evenly(images.held_out, _MOST_HELD_OUT)
        self._spoils = list(KINDS.values()) * math.ceil(_LEAST_SPOILED / (len(KINDS) * len(self._held_out)))
        rows = evenly(range(len(images.in_bank)), _MOST_IN_BANK)
        self._in_bank = [images.in_bank[row] for row in rows]
        self._float = self.embedded(self.opened(model))
        self._float_bank = np.ascontiguousarray(bank.embeddings[rows])

    def opened(self, model: Path) -> OnnxRuntimeBackend:
        """A model, ready."""
        return OnnxRuntimeBackend(model, dim=self._dim, threads=usable_cores())

    def agreement(self, int8: OnnxRuntimeBackend) -> Agreement:
        """How the two rank the same images."""
        bank = np.stack([int8.embed(image) for _, image in self._images.decoded(self._in_bank, "trying int8")])
        ours = self._scores(self._float_bank, self._float)
        theirs = self._scores(bank, self.embedded(int8))
        spoiled = np.arange(len(ours)) % (1 + len(self._spoils)) > 0
        return Agreement(
            good=int((~spoiled).sum()),
            spoiled=int(spoiled.sum()),
            auroc_fp32=float(roc_auc_score(spoiled, ours)),
            auroc_int8=float(roc_auc_score(spoiled, theirs)),
            rank_correlation=float(spearmanr(ours, theirs).statistic),  # pyright: ignore[reportAttributeAccessIssue]
        )

    def error(self, int8: OnnxRuntimeBackend) -> float:
        """Mean squared distance between the embeddings of the two, less what is the same for all images."""
        theirs = self.embedded(int8, _SENSITIVITY)
        apart = theirs - self._float[: len(theirs)]
        return float(np.square(apart - apart.mean(axis=0)).sum(axis=1).mean())

    def embedded(self, model: OnnxRuntimeBackend, most: int = _MOST_HELD_OUT) -> np.ndarray:
        """Held-out images, and behind each its spoiled copies, of every kind: the same ones at every call."""
        rng = numpy_generator_of(self._seed, 3, 0)
        rows = []
        for _, image in self._images.decoded(self._held_out[:most], "comparing with float"):
            rows.append(model.embed(image))
            rows += [model.embed(_spoiled(image, spoil, rng, self._spec.region)) for spoil in self._spoils]
        return np.stack(rows)

    def _scores(self, bank: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        searched = Bank(bank, k=self._k)
        return np.array([searched.score(embedding) for embedding in embeddings])


def _spoiled(image: np.ndarray, spoil: Spoil, rng: np.random.Generator, region: Region | None) -> np.ndarray:
    """A copy that is spoiled where the model looks."""
    copy = image.copy()
    seen = copy[region.y : region.y + region.height, region.x : region.x + region.width] if region else copy
    spoiled = spoil(seen, rng)
    seen[: spoiled.shape[0], : spoiled.shape[1]] = spoiled  # the last row or column may be left out
    return copy


def _by_harm(quantizer: Quantizer, score_embedding: AgreementTest, scratch: Path, report: Report) -> list[str]:
    """The layers behind the stem, the one first that int8 harms most.

    That is by how much the error falls when it alone stays in float.
    """
    trial = scratch / "trial.onnx"
    layers = [layer for layer in quantizer.layers if layer not in quantizer.stem]

    def error_without(layer: str, done: int) -> float:
        quantizer.write(trial, in_float=[*quantizer.stem, layer])
        report("measuring which layers int8 harms", done, len(layers))
        return score_embedding.error(score_embedding.opened(trial))

    errors = {layer: error_without(layer, done) for done, layer in enumerate(layers, start=1)}
    return sorted(errors, key=lambda layer: errors[layer])
