"""One plot of AUROC by fine-tuning step, from the curves of `msc-edge benchmark one-vs-rest`.

    python benchmarks/curves.py 'NAME=FOLDER:METHOD' ... --out FILE.svg [--title TEXT]

Each NAME is a line: the AUROC of one method at each step, the mean over the classes and seeds in FOLDER/curves.csv.
"""

import csv
from collections import defaultdict
from itertools import cycle
from pathlib import Path

import numpy as np
from common import parser_of

from msc_edge.axes import LEFT, LETTER, Axes, svg_file, text

COLOURS = ("#1f77b4", "#c62828", "#2e7d32", "#b26a00", "#6a1b9a")


def curve_of(folder: Path, method: str) -> dict[int, float]:
    """Mean AUROC by step, for the steps that all classes and seeds have."""
    at: dict[int, list[float]] = defaultdict(list)
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["method"] == method:
                at[int(row["step"])].append(float(row["auroc"]))
    jobs = max(map(len, at.values()))
    return {step: float(np.mean(values)) for step, values in sorted(at.items()) if len(values) == jobs}


def main() -> None:
    """Draw the plot and print its numbers."""
    parser = parser_of(__doc__)
    parser.add_argument("lines", nargs="+", metavar="NAME=FOLDER:METHOD")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG file to write")
    parser.add_argument("--title", default="AUROC by fine-tuning step", help="default: %(default)s")
    options = parser.parse_args()
    curves = {}
    for line in options.lines:
        name, _, rest = line.partition("=")
        folder, _, method = rest.rpartition(":")
        curves[name] = curve_of(Path(folder), method)
    values = [auroc for curve in curves.values() for auroc in curve.values()]
    margin = 0.08 * (max(values) - min(values))
    axes = Axes((0, max(max(curve) for curve in curves.values())), (min(values) - margin, max(values) + margin))
    parts = [axes.frame("steps", "AUROC of the test images", percent=(False, False))]
    for row, ((name, curve), colour) in enumerate(zip(curves.items(), cycle(COLOURS), strict=False)):
        points = " ".join(f"{axes.x(step):.1f},{axes.y(auroc):.1f}" for step, auroc in curve.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for step, auroc in curve.items():
            parts.append(f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(auroc):.1f}" r="3" fill="{colour}"/>')
        x, y = LEFT + (row % 2) * 26 * LETTER, 14 + 18 * (row // 2)
        parts.append(f'<rect x="{x:.1f}" y="{y - 9}" width="11" height="11" fill="{colour}"/>')
        parts.append(text(x + 16, y, name, fill="#222"))
        print(name, " ".join(f"{step}:{auroc:.4f}" for step, auroc in curve.items()))
    options.out.write_text(svg_file("".join(parts), options.title), encoding="utf-8")


if __name__ == "__main__":
    main()
