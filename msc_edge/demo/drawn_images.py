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
    """Numbers of images of each kind of part."""

    train: int = 240
    test: int = 40
    each_defect: int = 8


@dataclass(frozen=True)
class _Drawing:
    path: Path
    kind: Kind
    defect: Defect | None
    seed: tuple[int, ...]


def draw_data_set(folder: Path, *, seed: int = 0, sizes: Sizes, threads: int = 1, report: Report = silent) -> None:
    """Draw the data set into the new folder `folder`. A seed gives the same images with any number of threads."""
    parts: list[tuple[str, Defect | None, int, tuple[int, ...]]] = [
        ("train/good", None, sizes.train, (0,)),
        ("test/good", None, sizes.test, (1,)),
        *((f"test/{name}", name, sizes.each_defect, (2, i)) for i, name in enumerate(DEFECTS)),
    ]
    drawings = [
        _Drawing(folder / part / f"{kind}_{number:03d}.png", kind, defect, (seed, kind_number, *part_seed, number))
        for kind_number, kind in enumerate(KINDS)
        for part, defect, count, part_seed in parts
        for number in range(count)
    ]
    with writing(folder):
        for place in {drawing.path.parent for drawing in drawings}:
            place.mkdir(parents=True)
        for done, _ in enumerate(ordered_map(_draw, drawings, workers=threads), start=1):
            report("drawing parts", done, len(drawings))


def _draw(drawing: _Drawing) -> None:
    image = draw_part(drawing.kind, np.random.default_rng(drawing.seed), drawing.defect)
    drawing.path.write_bytes(encode_image(image, ".png"))
