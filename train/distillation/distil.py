"""Distil a student from a teacher: read, start, train, write."""

import hashlib
import importlib.metadata
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
from msc_edge.train.backbones import EDGE_SMALL, Backbone, build_backbone
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.devices import Accelerator, Precision, launched_fabric, precision_of
from msc_edge.train.distillation.crops import batch_of, make_crops
from msc_edge.train.distillation.loop import distil_into
from msc_edge.train.distillation.pruning import initialise_pruned, is_pruned_version
from msc_edge.train.distillation.settings import Distillation
from msc_edge.train.distillation.student_file import write_student
from msc_edge.train.distillation.unlabelled import find_unlabelled, read_unlabelled
from msc_edge.train.loading import training_copy
from msc_edge.train.named import Named
from msc_edge.train.preprocess import Preprocess
from msc_edge.train.run_folder import exclusive_run_folder
from msc_edge.train.run_record import BACKBONE, PACKAGES, read_record
from msc_edge.train.seeds import seed_of_torch
from msc_edge.train.weights import bundled_weights, load_into, pretrained_weights, weights_from_file

DISTIL_RECORD = "distil.json"
FEWEST = 32
_HELD_OUT_EVERY, _HELD_OUT_AT_MOST = 10, 64
_CHUNK = 16
_PRUNED, _FROM_SCRATCH = "thinned", "from scratch"  # how a student starts
_LEARNING_RATE, _LEARNING_RATES = 2e-4, {_FROM_SCRATCH: 1e-3}
_TEACHER = Named("--teacher-backbone", "--teacher-weights", "--teacher-stop-at")
_STUDENT = Named("--student", "--student-weights")
_TO_START = 128  # crops, for the least squares of a thinner student


@dataclass(frozen=True, kw_only=True)
class DistilOptions:
    """What a user can choose. The teacher is a backbone with weights, or what a run has learned."""

    teacher_run: Path | None = None
    teacher_backbone: str | None = None
    teacher_weights: Path | None = None
    teacher_stop_at: str | None = None
    student: str = EDGE_SMALL
    student_weights: Path | None = None
    steps: int = 2000
    batch: int = 64
    learning_rate: float | None = None
    image_size: int | None = None
    half: bool = False
    seed: int = 0
    accelerator: Accelerator = "auto"
    devices: int = 1
    precision: Precision = "auto"
    measure_every: int = 100


class DistilRecord(BaseModel):
    """The whole of distil.json: where a student's weights come from."""

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
    """Distil on the images of all `images` (folders, zips, files), and write the student's weights to `out`.

    Metrics, checkpoint and record go to the folder `work_folder(out)`. `unreadable` is told (name, reason) of
    images that are left out. Raises SourceError when too few remain, UsageError for options that cannot be met.
    On several devices the processes beside the first return None.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a name that ends in .safetensors")
    folder = work_folder(out)
    with writing(out):
        begun_here = resume and any((folder / name).is_file() for name in (CHECKPOINT, DISTIL_RECORD))
        # With --resume too: it may be somebody else's weights. A link that leads nowhere is somebody's as well.
        if out.is_dir() or (os.path.lexists(out) and not begun_here):
            raise UsageError(f"{out}: exists already; choose another name")
    with exclusive_run_folder(folder, record=DISTIL_RECORD, then=f"its student is {out}", resume=resume):
        return _distil(images, out, folder, options, resume=resume, report=report, unreadable=unreadable)


def work_folder(out: Path) -> Path:
    """Where a distillation to `out` keeps its metrics, checkpoint and record."""
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
    fabric = launched_fabric(options.accelerator, options.devices, options.precision)
    if not fabric.is_global_zero:
        report, unreadable = silent, None

    teacher, teacher_origin, image_size = _teacher(options)
    teacher.to(fabric.device).requires_grad_(False)
    student, start = _student(options, teacher)
    student.to(fabric.device)

    frame = Preprocess(preset("whole-frame", image_size=image_size)).to(fabric.device)
    copies, held_out, digests = _read(images, frame, report=report, unreadable=unreadable)
    settings = Distillation(
        steps=options.steps,
        batch=min(options.batch, len(copies) // (2 * options.devices) * 2 * options.devices),
        learning_rate=_LEARNING_RATES.get(start, _LEARNING_RATE)
        if options.learning_rate is None
        else options.learning_rate,
        image_size=image_size,
        precision=precision_of(options.accelerator, options.precision),
        seed=options.seed,
    )
    if start == _PRUNED:
        initialise_pruned(student, teacher, _to_start(copies, frame, settings), report=report)
    fingerprint = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    result = distil_into(
        fabric,
        student,
        teacher,
        frame,
        copies,
        held_out,
        settings,
        from_scratch=start == _FROM_SCRATCH,
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
        images=len(copies),
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


def _teacher(options: DistilOptions) -> tuple[Backbone, Weights, int]:
    """The teacher, where its weights come from, and the side of the frames that it shall see."""
    if (options.teacher_run is None) == (options.teacher_backbone is None):
        raise UsageError("name one teacher: --teacher RUN, or --teacher-backbone NAME")
    if options.teacher_run:
        if options.teacher_weights or options.teacher_stop_at:
            raise UsageError("--teacher RUN has its own weights and stage; leave out --teacher-weights and -stop-at")
        record = read_record(options.teacher_run)
        backbone = build_backbone(record.backbone, stop_at=record.stop_at)
        pretrained = weights_from_file(options.teacher_run / BACKBONE, named=_TEACHER)
        image_size = record.preprocessing.image_size
    else:
        assert options.teacher_backbone
        backbone = build_backbone(options.teacher_backbone, stop_at=options.teacher_stop_at, named=_TEACHER)
        pretrained = pretrained_weights(options.teacher_backbone, options.teacher_weights, named=_TEACHER)
        image_size = 224
    load_into(backbone, pretrained.state, source=pretrained.origin.source)
    return backbone, pretrained.origin, image_size if options.image_size is None else options.image_size


def _student(options: DistilOptions, teacher: Backbone) -> tuple[Backbone, str]:
    """The student and how it starts: from a file, thinned from the teacher, from its own weights, or from scratch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of_torch(options.seed))
        student = build_backbone(options.student, named=_STUDENT)
    if options.student_weights:
        pretrained = weights_from_file(options.student_weights, named=_STUDENT)
        load_into(student, pretrained.state, source=pretrained.origin.source)
        return student, f"{pretrained.origin.source} ({pretrained.origin.sha256})"
    if is_pruned_version(student, teacher):
        return student, _PRUNED
    if options.student == EDGE_SMALL:
        pretrained = bundled_weights()
        load_into(student, pretrained.state, source=pretrained.origin.source)
        return student, f"{pretrained.origin.source} ({pretrained.origin.sha256})"
    return student, _FROM_SCRATCH


def _fingerprint(data: str, student: str, start: str, teacher: Weights) -> str:
    return hashlib.sha256(f"{data} {student} {start} {teacher.sha256}".encode()).hexdigest()


def _read(
    images: Sequence[str | Path],
    frame: Preprocess,
    *,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Small copies to cut crops from; normalised frames, evenly spread over the images and held out; all SHA-256."""
    shape = preset("paper", image_size=frame.spec.image_size)  # copies keep the ratio of their sides
    failed: list[str] = []

    def note(name: str, reason: str) -> None:
        failed.append(f"{name}: {reason}")
        if unreadable:
            unreadable(name, reason)

    found = find_unlabelled(images, unopened=note)
    every = max(_HELD_OUT_EVERY, math.ceil(len(found) / _HELD_OUT_AT_MOST))
    copies: list[Tensor] = []
    frames: list[Tensor] = []
    digests: list[str] = []
    for digest, image in read_unlabelled(found, report=report, unreadable=note):
        if len(digests) % every == 0:
            frames.append(frame(torch.from_numpy(image)[None].to(frame.mean.device)))
        else:
            copies.append(training_copy(image, shape))
        digests.append(digest)
    if len(digests) < FEWEST:
        why = f" ({len(failed)} left out, the first: {failed[0]})" if failed else ""
        raise SourceError(
            f"of {len(found)} images found, {len(digests)} can be read and are no copies of others{why}; at least "
            f"{FEWEST} are needed, and a thousand are a good start"
        )
    return copies, torch.cat(frames), digests


def _to_start(copies: Sequence[Tensor], frame: Preprocess, settings: Distillation) -> list[Tensor]:
    """Crops, as the steps see them, by which a thinner student starts."""
    chunks: list[Tensor] = []
    for step in range(math.ceil(_TO_START / settings.batch)):
        chosen, draws = batch_of(
            step, images=len(copies), batch=settings.batch, image_size=settings.image_size, seed=settings.seed
        )
        whole = slice(0, settings.batch)
        crops = make_crops([copies[i] for i in chosen], draws, whole, device=frame.mean.device)
        chunks += frame.normalise(crops).split(_CHUNK)
    return chunks
