"""The summary of a scored folder, for the terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msc_edge.calibration import Calibration, Limits
from msc_edge.describe import describe_limits
from msc_edge.image_files import IMAGE_SUFFIXES
from msc_edge.kit.model_entry import RegionCalibration
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.runtime.results.summary import Summary
from msc_edge.terminal import STYLES
from msc_edge.text import many, one_line


def show_most_anomalous(to: Console, summary: Summary) -> None:
    """A table of the images with the largest scores."""
    images = summary.most_anomalous
    if not images:
        return
    more = summary.scored > len(images)
    title = f"The {len(images)} most anomalous of {summary.scored} images" if more else "Most anomalous first"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("verdict")
    table.add_column("score", justify="right")
    table.add_column("p-value", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("nearest normal image", overflow="fold", style="dim")
    for image in images:
        assert image.result is not None  # only scored images are kept
        result = image.result
        table.add_row(
            Text(result.verdict, STYLES[result.verdict]),
            f"{result.score:.6f}",
            "" if result.p_value is None else f"{result.p_value:.4f}",
            Text(one_line(image.path)),
            Text(one_line(result.nearest)),
        )
    to.print(table)


def show_summary(to: Console, summary: Summary, *, scored_now: int, seconds: float, other_files: int) -> None:
    """How many images got which verdict, which could not be read, and the speed."""
    earlier = summary.images - scored_now
    before = f"{earlier} from earlier runs, {scored_now} now" if earlier else ""
    speed = f"in {seconds:.1f} s, {scored_now / seconds:.1f} images/s" if scored_now and seconds > 0 else ""
    about = f"{before}, {speed}" if before and speed else before or speed
    to.print(Text(f"{many(summary.images, 'image')}{': ' if before else ' '}{about}", "bold"))
    for verdict in ("normal", "warn", "reject"):
        _show_count(to, verdict, summary.verdicts[verdict], summary.images)
    if summary.unreadable:
        _show_count(to, "unreadable", summary.unreadable, summary.images)
        _show_unreadable(to, summary.first_unreadable[:5], summary.unreadable)
    if other_files:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        to.print(f"{many(other_files, 'other file')} skipped: the name does not end in {suffixes}")


def _show_count(to: Console, name: str, count: int, total: int) -> None:
    share = f"{100 * count / total:5.1f} %" if total else ""
    to.print(Text(f"  {name:<10} {count:>8}  {share}", STYLES[name] if count else ""))


def _show_unreadable(to: Console, images: list[ImageResult], count: int) -> None:
    for image in images:
        to.print(Text(f"      {one_line(image.path)}: {one_line(image.error or '')}"))
    if count > len(images):
        to.print(f"      ... and {count - len(images)} more")


def show_limits(to: Console, limits: Limits, calibration: Calibration, regions: RegionCalibration | None) -> None:
    """The limits in use and their expected rates, and the limit of the anomaly map if there is one."""
    to.print("limits")
    for name, text in describe_limits(limits, calibration, regions):
        to.print(Text.assemble("  ", (f"{name:<10}", STYLES.get(name, "")), f" {text}"))
