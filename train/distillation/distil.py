"""Distil a student from a teacher: load images, build the networks, train, write the student."""

import hashlib
import importlib.metadata
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat
from torch import Tensor

from msc_edge import __version__
from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.files import sha256_of, written_whole
from msc_edge.kit.manifest import Weights
from msc_edge.preprocessing import preset
from msc_edge.progress import Report, silent
from msc_edge.train.checkpoint import steps_in
from msc_edge.train.devices import launch_fabric, resolve_dtype
from msc_edge.train.distillation.crops import batch_of, make_crops
from msc_edge.train.distillation.loop import distil_into
from msc_edge.train.distillation.networks import FROM_SCRATCH, PRUNED, accept_images_of, build_student, build_teacher
from msc_edge.train.distillation.options import DistilOptions
from msc_edge.train.distillation.pruning import initialise_pruned
from msc_edge.train.distillation.settings import Distillation
from msc_edge.train.distillation.student_file import write_student
from msc_edge.train.distillation.unlabelled import find_unlabelled, read_unlabelled
from msc_edge.train.loading import training_copy
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.run_folder import CHECKPOINT, exclusive_run_folder
from msc_edge.train.run_record import PACKAGES

DISTIL_RECORD = "distil.json"
MIN_IMAGES = 32
_HELD_OUT_EVERY, _MAX_HELD_OUT = 10, 64
_CHUNK = 16
_LEARNING_RATE, _LEARNING_RATES = 2e-4, {FROM_SCRATCH: 1e-3}
_PRUNING_CROPS = 128  # for the least squares of a pruned student


class DistilRecord(BaseModel):
    """The content of distil.json: the origin of a student's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    msc_edge_version: str
    created: str
    student: str
    start: str
    teacher: str
    teacher_stop_at: str | None
    teacher_weights: Weights
    settings: Distillation
    images: int
    held_out: int
    data_fingerprint: str
    result: dict[str, FiniteFloat | None]
    weights_sha256: str
    versions: dict[str, str]


def distil(
    images: Sequence[str | Path],
    out: Path,
    options: DistilOptions,
    *,
    resume: bool = False,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> DistilRecord | None:
    """Distil on all images of `images` (folders, zip archives, files) and write the student's weights to `out`.

    Metrics, checkpoint and record are in the folder `work_folder(out)`. `unreadable` is called with the name and the
    reason of images that are skipped. Raises SourceError for too few images, UsageError for invalid options. With
    several devices, only the first process returns the record; the others return None.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a name that ends in .safetensors")
    folder = work_folder(out)
    with writing(out):
        started = resume and any((folder / name).is_file() for name in (CHECKPOINT, DISTIL_RECORD))
        # Any other file at `out` is not ours, also a dangling link, and also with --resume.
        if out.is_dir() or (os.path.lexists(out) and not started):
            raise UsageError(f"{out}: exists already; choose another name")
    with exclusive_run_folder(
        folder, record=DISTIL_RECORD, hint=f"the student is {out}", resume=resume, steps_in=steps_in
    ):
        return _distil(images, out, folder, options, resume=resume, report=report, unreadable=unreadable)


def work_folder(out: Path) -> Path:
    """The folder with metrics, checkpoint and record of a distillation to `out`."""
    return out.with_name(f"{out.stem}-distil")


def _distil(
    images: Sequence[str | Path],
    out: Path,
    folder: Path,
    options: DistilOptions,
    *,
    resume: bool,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> DistilRecord | None:
    if options.batch % (2 * options.devices):
        raise UsageError(f"--batch {options.batch}: expected an even number of images for each device")
    fabric = launch_fabric(options.accelerator, options.devices, options.dtype)
    if not fabric.is_global_zero:
        report, unreadable = silent, None

    teacher, teacher_origin, image_size = build_teacher(options)
    teacher.to(fabric.device).requires_grad_(False)
    student, start = build_student(options, teacher)
    student.to(fabric.device)

    spec = preset("whole-frame", image_size=image_size, mean=student.architecture.mean, std=student.architecture.std)
    preprocess = Preprocess(spec).to(fabric.device)
    accept_images_of(student, teacher)
    training_copies, held_out, digests = _load(images, preprocess, report=report, unreadable=unreadable)
    settings = Distillation(
        steps=options.steps,
        batch=min(options.batch, len(training_copies) // (2 * options.devices) * 2 * options.devices),
        learning_rate=_LEARNING_RATES.get(start, _LEARNING_RATE)
        if options.learning_rate is None
        else options.learning_rate,
        image_size=image_size,
        dtype=resolve_dtype(options.accelerator, options.dtype),
        seed=options.seed,
    )
    if start == PRUNED:
        initialise_pruned(student, teacher, _pruning_crops(training_copies, preprocess, settings), report=report)
    fingerprint = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    result = distil_into(
        fabric,
        student,
        teacher,
        preprocess,
        training_copies,
        held_out,
        settings,
        from_scratch=start == FROM_SCRATCH,
        fingerprint=_fingerprint(fingerprint, student.name, start, teacher_origin),
        folder=folder,
        resume=resume,
        measure_every=options.measure_every,
        report=report,
    )
    if not fabric.is_global_zero:
        return None
    write_student(out, student, half=options.half, checkpoint=folder / CHECKPOINT)
    record = DistilRecord(
        msc_edge_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        student=student.name,
        start=start,
        teacher=teacher.name,
        teacher_stop_at=teacher.stop_at,
        teacher_weights=teacher_origin,
        settings=settings,
        images=len(training_copies),
        held_out=len(held_out),
        data_fingerprint=fingerprint,
        result={name: value if np.isfinite(value) else None for name, value in asdict(result).items()},
        weights_sha256=sha256_of(out),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )
    with written_whole(folder / DISTIL_RECORD) as path:
        path.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def _fingerprint(data: str, student: str, start: str, teacher: Weights) -> str:
    return hashlib.sha256(f"{data} {student} {start} {teacher.sha256}".encode()).hexdigest()


def _load(
    images: Sequence[str | Path],
    preprocess: Preprocess,
    *,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Training copies; held-out images, preprocessed, spread evenly over all images; SHA-256 of all files."""
    spec = preset("paper", image_size=preprocess.spec.image_size)  # its training copies keep the aspect ratio
    failed: list[str] = []

    def add_failed(name: str, reason: str) -> None:
        failed.append(f"{name}: {reason}")
        if unreadable:
            unreadable(name, reason)

    found = find_unlabelled(images, skipped=add_failed)
    every = max(_HELD_OUT_EVERY, math.ceil(len(found) / _MAX_HELD_OUT))
    training_copies: list[Tensor] = []
    held_out: list[Tensor] = []
    digests: list[str] = []
    for digest, image in read_unlabelled(found, report=report, unreadable=add_failed):
        if len(digests) % every == 0:
            held_out.append(preprocess(torch.from_numpy(image)[None].to(preprocess.mean.device)))
        else:
            training_copies.append(training_copy(image, spec))
        digests.append(digest)
    if len(digests) < MIN_IMAGES:
        skipped = f" ({len(failed)} skipped, the first: {failed[0]})" if failed else ""
        raise SourceError(
            f"of {len(found)} images found, {len(digests)} are readable and not duplicates{skipped}; at least "
            f"{MIN_IMAGES} are needed, a thousand are recommended"
        )
    return training_copies, torch.cat(held_out), digests


def _pruning_crops(training_copies: Sequence[Tensor], preprocess: Preprocess, settings: Distillation) -> list[Tensor]:
    """The crops of the first steps, normalised, in chunks."""
    chunks: list[Tensor] = []
    for step in range(math.ceil(_PRUNING_CROPS / settings.batch)):
        chosen, draws = batch_of(
            step, images=len(training_copies), batch=settings.batch, image_size=settings.image_size, seed=settings.seed
        )
        whole = slice(0, settings.batch)
        crops = make_crops([training_copies[i] for i in chosen], draws, whole, device=preprocess.mean.device)
        chunks += preprocess.normalise(crops).split(_CHUNK)
    return chunks
