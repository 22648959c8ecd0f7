"""The measurements of `msc-edge bench` as tables and as JSON."""

import dataclasses
import json
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from msc_edge.runtime.tools.bench.measure import Spread
from msc_edge.runtime.tools.bench.suite import Bench
from msc_edge.text import many, one_line


def as_json(bench: Bench) -> str:
    """All measurements as JSON; docs/integrate.md describes the fields."""
    data = dataclasses.asdict(bench)
    for written, measured in zip(data["frames"], bench.frames, strict=True):
        written["ratio"] = measured.ratio
    for written, measured in zip(data["starts"], bench.starts, strict=True):
        written["seconds"] = measured.seconds
    return json.dumps(data, indent=2)


def show(to: Console, bench: Bench) -> None:
    """All measurements as tables."""
    machine, kit = bench.machine, bench.kit
    bank = many(int(kit["bank"] or 0), "normal image")
    patches = f", {many(int(kit['patches']), 'patch', 'patches')} of normal images" if kit["patches"] else ""
    to.print(one_line(f"kit: {kit['name']}: {kit['backbone']}, {bank}, {kit['search']} search{patches}"))
    versions = ", ".join(f"{name} {machine[name]}" for name in machine if name not in ("processor", "cores", "system"))
    to.print(one_line(f"machine: {machine['processor']}, {many(int(machine['cores']), 'core')}, {machine['system']}"))
    to.print(one_line(f"versions: msc-edge {bench.msc_edge}, {versions}"))
    if bench.not_measured:
        to.print(f"caution: {bench.not_measured}", style="bold yellow")
    for table in _tables(bench):
        to.print()
        to.print(table)


def _tables(bench: Bench) -> Iterator[Table]:
    frames = _table(
        "One image in memory: milliseconds",
        "model",
        "image",
        "threads",
        "p50",
        "p95",
        "p99",
        "embed",
        "search",
        "floor",
        "ratio",
    )
    frames.caption = (
        "embed (the network), search (nearest normal images), floor: medians.\n"
        "floor: bare onnxruntime on the same tensor, alternately"
    )
    for each in bench.frames:
        frames.add_row(
            each.precision,
            f"{each.width}x{each.height}",
            str(each.threads),
            *_spread(each.score),
            _ms(each.embed.p50),
            _ms(each.search.p50),
            _ms(each.floor.p50),
            f"{each.ratio:.3f}",
        )
    yield frames
    yield from _heatmaps(bench)
    if bench.files:
        first = bench.files[0]
        incomplete = first.files + first.unreadable < first.given
        measured = f", {first.files} of them measured" if incomplete else ""
        unreadable = f", {first.unreadable} cannot be scored" if first.unreadable else ""
        files = _table(
            f"{many(first.given, 'image file')}{measured}{unreadable}, one by one on one thread: milliseconds",
            "model",
            "stage",
            "p50",
            "p95",
            "p99",
        )
        for each in bench.files:
            stages = {"read": each.read, "decode": each.decode, "embed": each.embed, "search": each.search}
            for stage, spread in (stages | ({"regions": each.regions} if each.regions else {})).items():
                files.add_row(each.precision, stage, *_spread(spread))
        yield files
    what = "Image files" if bench.files else "Images in memory"
    rates = _table(f"{what}, several at once", "model", "threads", "images/s")
    for each in bench.throughput:
        rates.add_row(each.precision, str(each.threads), f"{each.images_per_second:.1f}")
    yield rates
    starts = _table(
        "A new process: seconds, without the start of Python itself",
        "model",
        "threads",
        "import",
        "load",
        "first score",
        "sum",
        "resident MiB",
    )
    for each in bench.starts:
        starts.add_row(
            each.precision,
            str(each.threads),
            f"{each.importing:.2f}",
            f"{each.load:.2f}",
            f"{each.first:.2f}",
            f"{each.seconds:.2f}",
            "unknown" if each.resident is None else f"{each.resident:.0f}",
        )
    yield starts


def _heatmaps(bench: Bench) -> Iterator[Table]:
    """What patches add to the images in memory; nothing for a kit that compares whole images only."""
    if not any(each.heatmap for each in bench.frames):
        return
    table = _table(
        "Heatmap of one image in memory: milliseconds (medians)",
        "model",
        "image",
        "threads",
        "regions",
        "score",
        "map",
        "score + map",
        "overlay",
    )
    table.caption = (
        "regions: a part of each score, next to none for an image without a region.\n"
        "map: the anomaly map at each pixel of the image (heatmap=True).\n"
        "overlay: the image with its heatmap in colour, in addition to the score"
    )
    for each in bench.frames:
        if found := each.heatmap:
            spreads = (found.regions, each.score, found.anomaly_map, found.score, found.overlay)
            size = f"{each.width}x{each.height}"
            table.add_row(each.precision, size, str(each.threads), *(_ms(spread.p50) for spread in spreads))
    yield table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # fits 80 columns
    table.title_justify = table.caption_justify = "left"
    for name in columns:
        table.add_column(name, justify="left" if name in ("model", "image", "stage") else "right")
    return table


def _spread(of: Spread) -> tuple[str, str, str]:
    return _ms(of.p50), _ms(of.p95), _ms(of.p99)


def _ms(milliseconds: float) -> str:
    decimals = 2 if milliseconds < 100 else 1 if milliseconds < 1000 else 0  # five characters fit into 80 columns
    return f"{milliseconds:.{decimals}f}"
