"""`msc-edge train`."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def train(
    normal: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Folder of images of good parts, in any nesting, or a data set with train/good."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder to write.")],
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="edge-small, which is here already, or a torchvision network, such as resnet18.",
        ),
    ] = "edge-small",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Pretrained weights, .safetensors or .pth, instead of the backbone's own."),
    ] = None,
    stop_at: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Keep the backbone up to this stage, such as layer3 or features.13."),
    ] = None,
    recipe: Annotated[
        Literal["v1", "v2"], typer.Option(help="v2: mean-shifted loss. v1: with the angular center loss.")
    ] = "v2",
    preset: Annotated[
        Literal["whole-frame", "paper"],
        typer.Option(help="whole-frame: every pixel counts. paper: Resize and CenterCrop, and the paper's settings."),
    ] = "whole-frame",
    image_size: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the square that the backbone sees, in pixels.")
    ] = 224,
    roi: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="In pixels: look at this part of each image alone.")
    ] = None,
    bit_depth: Annotated[
        int,
        typer.Option(
            metavar="BITS", help="Bits that hold the signal in 16-bit files: 10, 12, 14 or 16; 8 refuses them."
        ),
    ] = 8,
    reduced_jpeg: Annotated[
        bool,
        typer.Option(
            "--reduced-jpeg",
            help="Decode large JPEG files at a reduced size, here and at the line: faster, for kits that score JPEG "
            "files and no cameras.",
        ),
    ] = False,
    holdout: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the images held out, to set the limits by.")
    ] = 0.2,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            show_default="blocks in the order of the files",
            help="Hold out whole groups of images: 'folder', or a regular expression whose one group, searched for "
            "in the path, is the same for images of one part, such as 'part_([0-9]+)'.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="80, at most 10 epochs of full batches; with --preset paper, the paper's epochs",
            help="Training steps; 0 keeps the backbone as it is.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="Images a step, over all devices.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", show_default="3e-4; with --preset paper, 1e-5", help="Of SGD.")
    ] = None,
    freeze_to: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            show_default="the last at stride 8; with --preset paper, layer2 of a ResNet-152",
            help="Keep the stages up to this one as they are, such as layer2; none: all of them train.",
        ),
    ] = None,
    select: Annotated[
        Literal["synthetic", "last"] | None,
        typer.Option(
            show_default="synthetic; with --preset paper, or fewer images than a batch has, last",
            help="Which step's weights are kept. synthetic: those that best tell held-out images from copies with a "
            "defect drawn into them; it may be those of step 0.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same run.")] = 0,
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Where to train.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or processes on the CPU.")] = 1,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Of the training steps; auto: bf16 where the device has it.")
    ] = "auto",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was broken off.")] = False,
) -> None:
    """Learn from images of good parts: fine-tune a backbone, and keep what normal looks like."""
    from msc_edge.errors import UsageError, explain_missing_extra
    from msc_edge.preprocessing import Region
    from msc_edge.progress import progress_bars

    with explain_missing_extra():
        from msc_edge.train.learning_rate import check_learning_rate
        from msc_edge.train.training import TrainingOptions
        from msc_edge.train.training import train as train_run

    if bit_depth not in (8, 10, 12, 14, 16):
        raise UsageError(f"--bit-depth {bit_depth}: expected 8, 10, 12, 14 or 16")
    check_learning_rate(learning_rate)
    options = TrainingOptions(
        backbone=backbone,
        weights=weights,
        stop_at=stop_at,
        recipe=recipe,
        preset=preset,
        image_size=image_size,
        region=Region.parse(roi) if roi else None,
        bit_depth=bit_depth,
        reduced_jpeg=reduced_jpeg,
        holdout=holdout,
        group_by=group_by,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        frozen_up_to=freeze_to,
        select=select,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        precision=precision,
        checkpoint_every=checkpoint_every,
    )
    unread: list[str] = []
    with progress_bars() as report:
        record = train_run(
            normal,
            out,
            options,
            resume=resume,
            report=report,
            unreadable=lambda name, reason: unread.append(f"{name}: {reason}"),
        )
    if record is not None:
        _print_summary(out, record, unread, asked_for_none=steps == 0)


def _print_summary(out: Path, record: Any, unread: list[str], *, asked_for_none: bool) -> None:
    from msc_edge.text import one_line
    from msc_edge.train.dataset import groups_of, read_image_table
    from msc_edge.train.run_record import IMAGE_TABLE

    images = read_image_table(out / IMAGE_TABLE)
    roles = [image.role for image in images]
    groups = ""
    if record.group_by is not None:
        held_out, all_used = (
            set(groups_of([image.path for image in images if image.role in used], record.group_by))
            for used in (("calibration",), ("bank", "calibration"))
        )
        groups = f": {len(held_out)} of {len(all_used)} groups"
    for line in unread[:5]:
        typer.echo(one_line(f"left out, unreadable: {line}"), err=True)
    if len(unread) > 5:
        typer.echo(f"left out, unreadable: and {len(unread) - 5} more, see {out / IMAGE_TABLE}", err=True)
    if copies := roles.count("copy"):
        typer.echo(f"left out, exact copies of others: {copies}", err=True)
    settings = record.fine_tuning
    what = f"{settings.steps} steps of {settings.recipe} in {settings.precision}" if settings.steps else "frozen"
    if selection := record.selection:
        kept = selection.selected_step
        what += f", step {kept} kept" if kept else ", undone"
        at = {candidate.step: candidate.auroc for candidate in selection.candidates}
        trained = max(auroc for step, auroc in at.items() if step)
        after = f"{at[kept]:.3f} after step {kept}" if kept else f"no better after training ({trained:.3f} at best)"
        typer.echo(
            f"held-out normals told from spoiled copies of them: AUROC {at[0]:.3f} frozen, {after}; "
            + ("that step is kept" if kept else "the backbone stays as it is"),
            err=True,
        )
    if not settings.steps and not asked_for_none:
        typer.echo(
            "the backbone stays as it is: there are fewer images to train on than a batch has, too few to fine-tune "
            "well; --steps N does it all the same",
            err=True,
        )
    typer.echo(
        f"{out}: {record.backbone}, {what}; {roles.count('bank')} normals in the bank, "
        f"{roles.count('calibration')} held out{groups}\nnext: msc-edge export {shlex.quote(str(out))} --out KIT"
    )
