"""`msc-edge compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msc_edge.runtime.tools.evaluate.label_options import Abnormal, Dataset, Normal, labelled_images

if TYPE_CHECKING:
    from msc_edge.runtime.tools.compare.comparison import ComparedImage, Comparison

_SHOWN = 20  # images with different verdicts


def compare(
    first: Annotated[Path, typer.Argument(metavar="KIT1", help="A kit: a folder or a .zip.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="KIT2", help="The kit to compare it with.", show_default=False)],
    dataset: Dataset = None,
    normal: Normal = None,
    abnormal: Abnormal = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="File for the figures and the results of each image.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples for the interval.")] = 1000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out.")] = False,
) -> None:
    """Compare two kits on the same labelled images: AUROC, verdicts at their own limits, and time.

    Images with different verdicts are listed, those with the largest difference of the p-values first.
    The exit codes are those of evaluate.
    """
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.compare.run import compare as compare_kits

    images = labelled_images(dataset, normal, abnormal)
    with progress_bars() as report:
        comparison = compare_kits(
            first, second, images, out=out, resamples=resamples, overwrite=overwrite, report=report
        )
    _show(comparison, (first, second), out)


def _show(comparison: "Comparison", paths: tuple[Path, Path], out: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from msc_edge.terminal import console, printing
    from msc_edge.text import many, one_line

    table = Table()
    for heading in ("", *map(str, paths)):
        table.add_column(Text(one_line(heading)), justify="right" if heading else "left", overflow="fold")
    kits = comparison.kits
    for name, values in (
        ("name", [one_line(kit.name) for kit in kits]),
        ("backbone, model", [f"{kit.backbone}, {kit.model}" for kit in kits]),
        ("AUROC", [f"{kit.auroc:.4f}" for kit in kits]),
        ("average precision", [f"{kit.average_precision:.4f}" for kit in kits]),
        ("rejected: false alarms, misses", [f"{kit.reject.false_alarms}, {kit.reject.missed}" for kit in kits]),
        ("warned or rejected: false alarms, misses", [f"{kit.warn.false_alarms}, {kit.warn.missed}" for kit in kits]),
        ("time of an image, one thread", [f"{kit.milliseconds:.1f} ms" for kit in kits]),
    ):
        table.add_row(name, *map(Text, values))
    counts = (
        f"{many(comparison.normal_images, 'normal image')} and {many(comparison.anomalous_images, 'anomalous image')}"
    )
    left_out = f"; left out: {many(comparison.unreadable, 'unreadable image')}" if comparison.unreadable else ""
    difference = comparison.auroc_difference
    if difference.low <= 0 <= difference.high:
        better = "these images do not show which kit has the higher AUROC"
    else:
        better = f"{one_line(str(paths[difference.value > 0]))} has the higher AUROC"
    differing = [comparison.images[position] for position in comparison.differing]
    with printing():
        to = console(stderr=False)
        to.print(table)
        to.print(f"{counts}{left_out}")
        to.print(
            f"AUROC of the second kit minus that of the first: {difference.value:+.4f}, 95 % interval "
            f"{difference.low:+.4f} to {difference.high:+.4f}: {better}"
        )
        more = f", the first {_SHOWN}" if len(differing) > _SHOWN else ""
        to.print(f"different verdicts: {many(len(differing), 'image')}{more}")
        least = kits[0].least_p_value, kits[1].least_p_value
        for image in differing[:_SHOWN]:
            to.print(f"  {one_line(_line(image, least))}")
        if out:
            to.print(f"results of each image: {one_line(str(out))}")


def _line(image: "ComparedImage", least: tuple[float, float]) -> str:
    p_values = [
        f"p at most {bound:.3g}" if value <= bound else f"p {value:.3g}"
        for value, bound in zip(image.p_values, least, strict=True)
    ]
    said = "; ".join(f"{verdict}, {p_value}" for verdict, p_value in zip(image.verdicts, p_values, strict=True))
    return f"{said}; {image.label}: {image.name}"
