"""The models of a kit: fp32, and int8 if it passes its gates.

The gates need images that are in no memory bank. If the images of the run were held out in turn, the gates compare
trial models whose banks lack the images that training held out once; the kit then gets the int8 model with the same
float layers, and with all images in its banks.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol

import numpy as np
import torch

from msc_edge.bank import Bank
from msc_edge.calibration import Rates
from msc_edge.errors import UsageError
from msc_edge.export.accuracy_loss import accuracy_loss
from msc_edge.export.entry import ScorePlan, model_entry, outputs_of
from msc_edge.export.int8 import Int8Rejected, quantised_again, quantised_model
from msc_edge.export.onnx_model import export_onnx
from msc_edge.export.run_images import RunImages
from msc_edge.kit.layout import MODEL_FILES, NORMAL_IMAGES, Precision
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import Model, Outputs
from msc_edge.kit.quantization import MIN_HELD_OUT, Agreement, Quantization, Target
from msc_edge.kit.writing import seal
from msc_edge.runtime.detector import Detector
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.head import PatchHead

Precisions = Literal["both", "fp32", "int8"]


class ManifestOf(Protocol):
    """Makes the manifest of a kit with these models."""

    def __call__(self, models: dict[Precision, Model], *, default: Precision, normal_images: int) -> Manifest:
        """`normal_images`: in the memory bank."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the models of a kit are made of."""

    network: EmbeddingNetwork
    bank: Bank
    head: PatchHead | None
    plan: ScorePlan
    images: RunImages
    rates: Rates
    seed: int

    def held_out_once(self) -> "Parts":
        """The same with a part of the images held out once: in no bank."""
        if not self.images.split.in_turn:
            return self
        held_out = [image for image in self.images.split.bank if image.role != "bank"]
        kept = [image.role == "bank" for image in self.images.split.bank]
        head = self.head and self.head.without(torch.tensor([image.group for image in held_out]))
        plan = ScorePlan.of(self.plan.kind, self.plan.map, head, may_move=self.plan.may_move)
        bank = Bank(self.bank.embeddings[kept], k=self.bank.k)
        return replace(self, bank=bank, head=head, plan=plan, images=self.images.held_out_once())


def write_models(
    kit: Path,
    parts: Parts,
    manifest_of: ManifestOf,
    *,
    precision: Precisions,
    target: Target,
    note: Callable[[str], None],
) -> tuple[dict[Precision, Model], Precision]:
    """Write the files of the models, and the list of normal images. Returns their entries and the default model.

    See `export` for the arguments. UsageError if int8 is required and fails its gates.
    """
    outputs, fp32 = _write_fp32(kit, parts)
    if precision == "fp32":
        return {"fp32": fp32}, "fp32"
    if parts.images.split.in_turn:
        with TemporaryDirectory(prefix="msc-edge-trial-", ignore_cleanup_errors=True) as trial:
            once = parts.held_out_once()
            _, own = _write_fp32(Path(trial), once)
            int8 = _write_int8(Path(trial), outputs, own, once, manifest_of, target=target)
    else:
        int8 = _write_int8(kit, outputs, fp32, parts, manifest_of, target=target)
    if isinstance(int8, Int8Rejected):
        if precision == "int8":
            raise UsageError(f"{int8}; export with --precision fp32")
        note(str(int8))
        return {"fp32": fp32}, "fp32"
    assert int8.quantization is not None
    assert int8.agreement is not None
    if parts.images.split.in_turn:
        quantization = quantised_again(
            kit / MODEL_FILES["fp32"],
            kit / MODEL_FILES["int8"],
            outputs,
            parts.network.preprocess.spec,
            parts.images.held_out_once(),
            int8.quantization,
        )
        int8 = _int8_entry(kit, outputs, parts, quantization, int8.agreement)
    loss = int8.agreement and int8.agreement.loss
    is_default = precision == "int8" or (loss is not None and loss.is_small)
    return {"fp32": fp32, "int8": int8}, "int8" if is_default else "fp32"


def _write_fp32(folder: Path, parts: Parts) -> tuple[Outputs, Model]:
    report = parts.images.report
    report("exporting the model", 0, 1)
    outputs = export_onnx(parts.network, folder / MODEL_FILES["fp32"], head=parts.head)
    report("exporting the model", 1, 1)
    (folder / NORMAL_IMAGES).write_text(json.dumps(parts.images.in_bank, indent=0) + "\n", encoding="utf-8")
    entry = model_entry(
        folder, "fp32", outputs, parts.bank, parts.plan, parts.images, rates=parts.rates, seed=parts.seed
    )
    return outputs, entry


def _write_int8(
    folder: Path, outputs: Outputs, fp32: Model, parts: Parts, manifest_of: ManifestOf, *, target: Target
) -> Model | Int8Rejected:
    """Write the files of the int8 model beside those of fp32 and return its entry, or the reason why there is none."""
    images = parts.images
    quantised = quantised_model(
        folder / MODEL_FILES["fp32"],
        folder / MODEL_FILES["int8"],
        outputs,
        parts.bank,
        parts.network.preprocess.spec,
        images,
        target=target,
        maps=parts.plan.map,
        seed=parts.seed,
    )
    if isinstance(quantised, Int8Rejected):
        return quantised
    int8 = _int8_entry(folder, outputs, parts, *quantised)
    if len(images.held_out) < MIN_HELD_OUT:
        return int8
    seal(folder, manifest_of({"fp32": fp32, "int8": int8}, default="fp32", normal_images=len(images.in_bank)))
    precisions: tuple[Precision, Precision] = ("fp32", "int8")
    own, compared = (Detector.load(folder, precision=each, backend="onnxruntime") for each in precisions)
    loss = accuracy_loss(own, compared, images, seed=parts.seed)
    agreement = quantised[1].model_copy(update={"loss": loss})
    return int8.model_copy(update={"agreement": agreement})


def _int8_entry(
    folder: Path, outputs: Outputs, parts: Parts, quantization: Quantization, agreement: Agreement
) -> Model:
    """The entry of the int8 model, which has a memory bank of its own."""
    images = parts.images
    in_bank = outputs_of(folder / MODEL_FILES["int8"], outputs, images.decoded(images.in_bank, "int8: memory bank"))
    bank = Bank(np.stack([each.embedding for each in in_bank]), k=parts.bank.k)
    model = model_entry(folder, "int8", outputs, bank, parts.plan, images, rates=parts.rates, seed=parts.seed)
    return model.model_copy(update={"quantization": quantization, "agreement": agreement})
