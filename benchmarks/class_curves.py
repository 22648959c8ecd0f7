"""Learning curves of `msc-edge benchmark one-vs-rest`, a pair of plots for each class.

    python benchmarks/class_curves.py OUT [OUT ...] --out FILE.svg

OUT: folders with curves.csv, such as one for each backbone or learning rate. Above: AUROC of the test images by step.
Below: the collapse gauge, the mean pairwise cosine of the training images' embeddings; at 1 all of them are equal.
A line is the mean over the seeds of one method in one folder; the band reaches from the lowest seed to the highest.
"""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from common import parser_of
from matplotlib import pyplot as plt

COLOURS = {"contrastive": "#c62828", "v1": "#1f77b4", "v2": "#2e7d32"}  # the methods that are in the product
OTHER_COLOURS = ("#6a1b9a", "#b26a00", "#00838f")
MARKERS = "os^Dv<>p"  # of the methods: they differ without their colours, too
STYLES = ("-", "--", ":", "-.")  # of the folders
ACROSS = 5  # classes side by side


class Line(NamedTuple):
    """One method in one folder."""

    label: str
    folder: int
    method: str


Points = dict[int, list[tuple[float, float]]]
"""AUROC and mean pairwise cosine of each seed, by step."""


def read(folders: list[Path]) -> dict[str, dict[Line, Points]]:
    """The points of each class and line. The frozen backbone is step 0 of each line."""
    found: dict[str, dict[Line, Points]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for number, folder in enumerate(folders):
        with (folder / "curves.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["method"] == "dn2":
                    continue
                name = row["method"] if len(folders) == 1 else f"{folder.name}: {row['method']}"
                values = float(row["auroc"]), float(row["mean_pairwise_cosine"])
                found[row["class"]][Line(name, number, row["method"])][int(row["step"])].append(values)
    return found


def draw(classes: dict[str, dict[Line, Points]], out: Path) -> None:
    """Draw the curves of all classes."""
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "msc-edge", "font.size": 9, "axes.grid": True}
    across = min(ACROSS, len(classes))
    down = -(-len(classes) // across)
    methods = list(dict.fromkeys(line.method for lines in classes.values() for line in lines))
    others = [method for method in methods if method not in COLOURS]
    colours = COLOURS | dict(zip(others, OTHER_COLOURS, strict=False))
    figure, grid = plt.subplots(
        2 * down,
        across,
        figsize=(2.3 * across + 0.6, 3.9 * down + 0.4),
        layout="constrained",
        sharex=True,
        squeeze=False,
        height_ratios=[3, 2] * down,
    )
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        axes.set_visible(False)
    for number, (name, lines) in enumerate(sorted(classes.items())):
        row, column = 2 * (number // across), number % across
        pair = grid[row][column], grid[row + 1][column]
        for axes in pair:
            axes.set_visible(True)
            axes.grid(alpha=0.3)
        pair[0].set_title(name, fontsize=10)
        pair[1].set_xlabel("steps")
        pair[1].set_ylim(0, 1)
        if column == 0:
            pair[0].set_ylabel("AUROC")
            pair[1].set_ylabel("mean pairwise cosine")
        for line, points in lines.items():
            steps = sorted(points)
            style = {"color": colours.get(line.method, "#444"), "linestyle": STYLES[line.folder % len(STYLES)]}
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            for kind, axes in enumerate(pair):
                values = [[each[kind] for each in points[step]] for step in steps]
                marker = MARKERS[methods.index(line.method) % len(MARKERS)]
                (drawn,) = axes.plot(steps, list(map(np.mean, values)), marker=marker, markersize=4, **style)
                axes.fill_between(steps, list(map(min, values)), list(map(max, values)), **band)
                handles[line.label] = drawn
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 4))
    plt.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draw, and print the values of the first and the last step."""
    parser = parser_of(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG file to write")
    options = parser.parse_args()
    classes = read(options.folders)
    draw(classes, options.out)
    for name, lines in sorted(classes.items()):
        for line, points in lines.items():
            ends = [np.mean(points[step], axis=0) for step in (min(points), max(points))]
            print(f"{name}, {line.label}:", " -> ".join(f"AUROC {auroc:.4f}, cosine {cos:.4f}" for auroc, cos in ends))


if __name__ == "__main__":
    main()
