"""The command `msc-edge train`."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from msc_edge.train import option_types
from msc_edge.train.registry_help import RECIPES


def train(
    normal: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Folder of normal images, with any subfolders, or a data set that contains train/good."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder to write.")],
    backbone: option_types.Backbone = "edge-small",
    weights: option_types.BackboneWeights = None,
    stop_at: option_types.StopAt = None,
    recipe: Annotated[str, typer.Option(metavar="NAME", help=f"The loss, and what belongs to it. {RECIPES}.")] = "v2",
    preset: option_types.Preset = "whole-frame",
    image_size: option_types.ImageSize = 224,
    roi: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Region of interest, in pixels: use only this part of images.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            metavar="ROWSxCOLUMNS",
            help="Cut large images into overlapping tiles, each of --image-size pixels, for small defects: 1x8 for a "
            "line-scan camera. Each tile takes about as long as an image.",
        ),
    ] = None,
    ignore_mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An image of the size of the frames: its white parts are not inspected."),
    ] = None,
    bit_depth: Annotated[
        int,
        typer.Option(
            metavar="BITS", help="Significant bits of 16-bit files: 10, 12, 14 or 16; with 8, such files are refused."
        ),
    ] = 8,
    reduced_jpeg: Annotated[
        bool,
        typer.Option(
            "--reduced-jpeg",
            help="Decode large JPEG files at a reduced size, in training and in the kit. Faster; for kits that score "
            "JPEG files, not cameras.",
        ),
    ] = False,
    holdout: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.9,
            help="Share of the images held out of the fine-tuning. They set the limits of a fine-tuned network and "
            "decide about int8; with the pretrained network all images set the limits, each held out in turn.",
        ),
    ] = 0.2,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Which images show the same part, and are held out together. 'similar': found by their embeddings, "
            "names and times. 'folder': those in one folder. 'none': each image shows another part. Or a regular "
            "expression whose one group, searched for in the path, is equal for images of one part, such as "
            "'part_([0-9]+)'.",
        ),
    ] = "similar",
    steps: option_types.Steps = None,
    batch: option_types.Batch = 64,
    learning_rate: option_types.LearningRate = None,
    freeze_to: option_types.FreezeTo = None,
    select: option_types.SelectCheckpoint = None,
    scores: Annotated[
        Literal["image", "patch", "both"] | None,
        typer.Option(
            show_default="both; with --preset paper, image",
            help="What a score is made of. image: the whole image. patch: the most anomalous part, with a heatmap. "
            "both: the larger of the two, each in standard deviations of normal images.",
        ),
    ] = None,
    patch_rows: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Rows of the patch bank. More take longer per image.")
    ] = 4000,
    seed: option_types.Seed = 0,
    accelerator: option_types.Accelerator = "auto",
    devices: option_types.Devices = 1,
    dtype: option_types.Dtype = "auto",
    precision: option_types.DeprecatedPrecision = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 20,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted training.")] = False,
) -> None:
    """Train on normal images: fine-tune a backbone, and write its memory bank and calibration scores."""
    from msc_edge.errors import UsageError, explain_missing_extra
    from msc_edge.preprocessing import Region, Tiles
    from msc_edge.progress import progress_bars
    from msc_edge.terminal import echo

    with explain_missing_extra("train"):
        from msc_edge.train.options import TrainingOptions, check_learning_rate
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
        tiles=Tiles.parse(tiles, image_size=image_size) if tiles else None,
        ignore_mask=ignore_mask,
        bit_depth=bit_depth,
        reduced_jpeg=reduced_jpeg,
        holdout=holdout,
        group_by=None if group_by == "none" else group_by,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        frozen_up_to=freeze_to,
        select=select,
        scores=scores,
        patch_rows=patch_rows,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        dtype=dtype if precision is None else precision,
        checkpoint_every=checkpoint_every,
    )
    default_selection = select is None and preset == "whole-frame"
    failed: list[str] = []
    with progress_bars() as report:
        record = train_run(
            normal,
            out,
            options,
            resume=resume,
            report=report,
            unreadable=lambda name, reason: failed.append(f"{name}: {reason}"),
            note=lambda line: echo(line, err=True),
        )
    if record is not None:
        _print_summary(out, record, failed, default_selection=default_selection)


def _print_summary(out: Path, record: Any, failed: list[str], *, default_selection: bool) -> None:
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line
    from msc_edge.train.dataset import read_image_table
    from msc_edge.train.run_record import IMAGE_TABLE
    from msc_edge.train.split import Split

    images = read_image_table(out / IMAGE_TABLE)
    roles = [image.role for image in images]
    split = Split.of(images, in_turn=record.in_turn, trained=record.trained)
    groups, count = len(set(split.groups or ())), len(split.calibration)
    of_groups = f", {many(groups, 'part')}" if groups < count else ""
    which = f"{count} of the images" if record.in_turn else f"{count} other images"
    held_out = f"{'each image held out in turn' if split.all_calibrate else f'{which} held out'}{of_groups}"
    for line in failed[:5]:
        echo(one_line(f"skipped: {line}"), err=True)
    if len(failed) > 5:
        echo(f"skipped: {len(failed) - 5} more, see {out / IMAGE_TABLE}", err=True)
    if duplicates := roles.count("duplicate"):
        echo(f"skipped: {many(duplicates, 'duplicate')} of other images", err=True)
    settings = record.fine_tuning
    training = (
        f"{many(settings.steps, 'step')} of {settings.recipe} in {settings.dtype}" if settings.steps else "frozen"
    )
    if selection := record.selection:
        training += f", step {selection.selected_step} selected" if selection.selected_step else ", undone"
        echo(_selection_line(selection), err=True)
    elif settings.steps and default_selection:
        echo("no checkpoint selection: there are too few images; the weights are those of the last step", err=True)
    patches = f", {many(record.patch_rows, 'patch', 'patches')} in the patch bank" if record.patch_rows else ""
    echo(
        f"{out}: {record.backbone}, {training}; {len(split.bank)} images in the memory bank{patches}, "
        f"{held_out}\nnext: msc-edge export {shlex.quote(str(out))} --out KIT"
    )


def _selection_line(selection: Any) -> str:
    """The AUROC before and after training, and what was selected."""
    aurocs = {candidate.step: candidate.auroc for candidate in selection.candidates}
    step = selection.selected_step
    if step:
        result = f"{aurocs[step]:.3f} after step {step}; step {step} is selected"
    else:
        best = max(auroc for candidate, auroc in aurocs.items() if candidate)
        result = f"at best {best:.3f} after training, no clear improvement; the backbone stays frozen"
    return f"checkpoint selection: AUROC with synthetic anomalies {aurocs[0]:.3f} frozen, {result}"
