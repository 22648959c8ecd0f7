"""`msc-edge distil`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer


def distil(
    images: Annotated[
        list[str],
        typer.Option(metavar="DIR", help="Folder or .zip of unlabelled images, in any nesting; may be repeated."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Weights of the student to write, .safetensors.")],
    teacher: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Teach what this run of msc-edge train has learned.")
    ] = None,
    teacher_backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or teach what this pretrained backbone knows.")
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its weights, .safetensors or .pth, instead of its own.")
    ] = None,
    teacher_stop_at: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Teach the features of this stage, such as layer3.")
    ] = None,
    student: Annotated[
        str, typer.Option(metavar="NAME", help="edge-small, a torchvision network, or a narrower one: resnet50_x0.5.")
    ] = "edge-small",
    student_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start the student from these weights.", show_default="see docs/train.md"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2000,
    batch: Annotated[int, typer.Option(min=2, help="Crops a step, over all devices; even.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", show_default="2e-4; from scratch 1e-3", help="Of AdamW.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", show_default="224, or the run's", help="Side of the frames that the student will see."
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16: half the size.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same student.")] = 0,
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where to train.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or processes on the CPU.")] = 1,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Of the training steps; auto: bf16 where the device has it.")
    ] = "auto",
    measure_every: Annotated[
        int, typer.Option(min=1, help="Steps between rows of metrics.csv, and between checkpoints.")
    ] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a distillation that was broken off.")] = False,
) -> None:
    """Teach a small network to see as a large one does, from unlabelled images."""
    from msc_edge.errors import explain_missing_extra
    from msc_edge.progress import progress_bars
    from msc_edge.text import one_line

    with explain_missing_extra():
        from msc_edge.train.distillation.distil import DistilOptions, work_folder
        from msc_edge.train.distillation.distil import distil as distil_student
        from msc_edge.train.learning_rate import check_learning_rate

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
        precision=precision,
        measure_every=measure_every,
    )
    unread: list[str] = []

    def left_out(name: str, reason: str) -> None:
        unread.append(name)
        if len(unread) <= 5:  # at once, and not hours later
            typer.echo(one_line(f"left out, unreadable: {name}: {reason}"), err=True)

    with progress_bars() as report:
        record = distil_student(images, out, options, resume=resume, report=report, unreadable=left_out)
    if record is None:
        return
    if len(unread) > 5:
        typer.echo(f"left out, unreadable: and {len(unread) - 5} more", err=True)
    unexplained = record.result["unexplained"]
    share = "" if unexplained is None else f"{1 - unexplained:.1%} of the teacher's embedding explained, "
    correlation = record.result["rank_correlation"]
    ranks = "" if correlation is None else f"rank correlation {correlation:.3f}, "
    typer.echo(
        f"{out}: {record.student} ({record.start}), "
        f"{record.settings.steps} steps on {record.images} images; {share}"
        f"{ranks}on {record.held_out} held out; "
        f"see {work_folder(out)}\n"
        f"next: msc-edge train --backbone {record.student} --weights {shlex.quote(str(out))} --normal DIR --out RUN"
    )
