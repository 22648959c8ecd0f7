"""The command `msc-edge distil`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from msc_edge.train import option_types
from msc_edge.train.registry_help import BACKBONES


def distil(
    images: Annotated[
        list[str],
        typer.Option(metavar="DIR", help="Folder or .zip of unlabelled images, with any subfolders; may be repeated."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the student's weights, .safetensors.")],
    teacher: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Use the fine-tuned backbone of this run as teacher.")
    ] = None,
    teacher_backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this pretrained backbone as teacher, such as resnet50.")
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the teacher, .safetensors or .pth, instead of the default ones."),
    ] = None,
    teacher_stop_at: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Cut the teacher after this stage, such as layer3.")
    ] = None,
    student: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"The network to train. {BACKBONES}."),
    ] = "edge-small",
    student_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Initial weights of the student.", show_default="see docs/train.md"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2000,
    batch: Annotated[
        int, typer.Option(min=2, help="Crops per step, over all devices; an even number for each device.")
    ] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", show_default="2e-4; from scratch 1e-3", help="Learning rate of AdamW."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", show_default="that of the run, or 224", help="Side of the square input, in pixels."
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write the weights as float16: half the size.")] = False,
    seed: option_types.Seed = 0,
    accelerator: option_types.Accelerator = "auto",
    devices: option_types.Devices = 1,
    dtype: option_types.Dtype = "auto",
    precision: option_types.DeprecatedPrecision = None,
    measure_every: Annotated[
        int, typer.Option(min=1, help="Steps between rows of metrics.csv, and between checkpoints.")
    ] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted distillation.")] = False,
) -> None:
    """Distil a small network: train a student to reproduce a larger teacher, from unlabelled images."""
    from msc_edge.errors import explain_missing_extra
    from msc_edge.progress import progress_bars
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line

    with explain_missing_extra("train"):
        from msc_edge.train.distillation.distil import distil as distil_student
        from msc_edge.train.distillation.distil import work_folder
        from msc_edge.train.distillation.options import DistilOptions
        from msc_edge.train.options import check_learning_rate

    check_learning_rate(learning_rate)
    options = DistilOptions(
        teacher_run=teacher,
        teacher_backbone=teacher_backbone,
        teacher_weights=teacher_weights,
        teacher_stop_at=teacher_stop_at,
        student=student,
        student_weights=student_weights,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        image_size=image_size,
        half=half,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        dtype=dtype if precision is None else precision,
        measure_every=measure_every,
    )
    skipped: list[str] = []

    def print_skipped(name: str, reason: str) -> None:
        skipped.append(name)
        if len(skipped) <= 5:  # immediately: the distillation may take hours
            echo(one_line(f"skipped: {name}: {reason}"), err=True)

    with progress_bars() as report:
        record = distil_student(images, out, options, resume=resume, report=report, unreadable=print_skipped)
    if record is None:
        return
    if len(skipped) > 5:
        echo(f"skipped: {len(skipped) - 5} more", err=True)
    unexplained = record.result["unexplained"]
    explained = "" if unexplained is None else f"{1 - unexplained:.1%} of the teacher's embedding explained, "
    correlation = record.result["rank_correlation"]
    ranks = "" if correlation is None else f"rank correlation {correlation:.3f}, "
    echo(
        f"{out}: {record.student} ({record.start}), "
        f"{many(record.settings.steps, 'step')} on {record.images} images; {explained}"
        f"{ranks}on {record.held_out} held-out images; "
        f"see {work_folder(out)}\n"
        f"next: msc-edge train --backbone {record.student} --weights {shlex.quote(str(out))} --normal DIR --out RUN"
    )
