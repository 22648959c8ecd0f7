"""`msc-edge bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msc_edge.progress import Report
    from msc_edge.runtime.tools.bench.suite import Bench


def bench(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="Folder of images to read, decode and score; may be repeated.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Number of threads to measure; may be repeated.", show_default="1, 2, 4, ... all cores"
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Time for each measurement.", show_default=True)
    ] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Measure what a kit costs on this machine: each stage, each model, start and memory.

    A frame in memory is scored alternately with msc-edge and with bare onnxruntime; the ratio is
    the cost of msc-edge itself. With --images, reading and decoding files is measured too.

    Close other programs before you measure.

    Exit codes: 0 done, 2 usage, 3 images cannot be found or read, 4 the kit cannot be used,
    5 output cannot be written.
    """
    from msc_edge.progress import progress_bars
    from msc_edge.runtime.tools.bench.tables import as_json, show
    from msc_edge.terminal import console, printing

    with progress_bars() as report:
        result = _measure(kit, images, threads, seconds, report)
    with printing():
        if json:
            print(as_json(result), flush=True)  # noqa: T201
        else:
            show(console(stderr=False), result)


def _measure(
    path: Path, images: list[str] | None, threads: list[int] | None, seconds: float, report: "Report"
) -> "Bench":
    from msc_edge.image_files import find_images
    from msc_edge.kit.opening import Kit
    from msc_edge.runtime.processor import usable_cores
    from msc_edge.runtime.tools.bench.suite import measure_kit

    paths = list(find_images(images).paths) if images else []
    cores = usable_cores()
    powers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
    with Kit.open(path) as kit:
        return measure_kit(kit, paths, threads=sorted(set(threads or [*powers, cores])), seconds=seconds, report=report)
