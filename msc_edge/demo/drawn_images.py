"""The drawn data set, as files in the MVTec-AD layout: train/good, test/good and test/<defect>."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msc_edge.demo.parts import DEFECTS, KINDS, Defect, Kind, draw_part
from msc_edge.drawing import encode_image
from msc_edge.errors import writing
from msc_edge.parallel import ordered_map
from msc_edge.progress import Report, silent


@dataclass(frozen=True)
class Sizes:
    """How many images of each kind of part there are."""

    train: int = 240
    test: int = 40
    each_defect: int = 8


@dataclass(frozen=True)
class _Drawing:
    path: Path
    kind: Kind
    defect: Defect | None
    stream: tuple[int, ...]


def draw_data_set(folder: Path, *, seed: int = 0, sizes: Sizes, threads: int = 1, report: Report = silent) -> None:
    """Draw the data set into `folder`. The same seed gives the same images, in any number of threads."""
    parts: list[tuple[str, Defect | None, int, tuple[int, ...]]] = [
        ("train/good", None, sizes.train, (0,)),
        ("test/good", None, sizes.test, (1,)),
        *((f"test/{name}", name, sizes.each_defect, (2, i)) for i, name in enumerate(DEFECTS)),
    ]
    drawings = [
        _Drawing(folder / part / f"{kind}_{number:03d}.png", kind, defect, (seed, kind_number, *stream, number))
        for kind_number, kind in enumerate(KINDS)
        for part, defect, count, stream in parts
        for number in range(count)
    ]
    with writing(folder):
        for place in {drawing.path.parent for drawing in drawings}:
            place.mkdir(parents=True)
        for done, _ in enumerate(ordered_map(_draw, drawings, workers=threads), start=1):
            report("drawing parts", done, len(drawings))


def _draw(drawing: _Drawing) -> None:
    image = draw_part(drawing.kind, np.random.default_rng(drawing.stream), drawing.defect)
    drawing.path.write_bytes(encode_image(image, ".png"))
