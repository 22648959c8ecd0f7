"""Learning curves of `msc-edge benchmark one-vs-rest`, a pair of plots for each class.

    python benchmarks/class_curves.py OUT [OUT ...] --out FILE.svg

OUT: folders with curves.csv, such as one for each backbone or learning rate. Left: AUROC of the test images by step.
Right: the collapse gauge, the mean pairwise cosine of the training images' embeddings; at 1 all of them are equal. A
line is the mean over the seeds of one method in one folder.
"""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from common import parser_of

from msc_edge.axes import Axes
from msc_edge.figures import Line, figure, line_plot

GAUGES = ("AUROC", "mean pairwise cosine")

Points = dict[int, list[tuple[float, float]]]
"""AUROC and mean pairwise cosine of each seed, by step."""
Classes = Mapping[str, Mapping[str, Points]]
"""By class, and by method."""


def read(folders: list[Path]) -> Classes:
    """The points of each class and method. The frozen backbone is step 0 of each method."""
    found: dict[str, dict[str, Points]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for folder in folders:
        with (folder / "curves.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["method"] == "dn2":
                    continue
                name = row["method"] if len(folders) == 1 else f"{folder.name}: {row['method']}"
                values = float(row["auroc"]), float(row["mean_pairwise_cosine"])
                found[row["class"]][name][int(row["step"])].append(values)
    return found


def plot(of_class: str, methods: Mapping[str, Points], styles: Mapping[str, int], gauge: int) -> str:
    """One plot of one class; `gauge`: place in GAUGES."""
    means = {
        method: [(step, float(np.mean([each[gauge] for each in points[step]]))) for step in sorted(points)]
        for method, points in methods.items()
    }
    values = [value for points in means.values() for _, value in points]
    margin = 0.1 * (max(values) - min(values)) or 0.01
    up = (min(values) - margin, max(values) + margin) if gauge == 0 else (0.0, 1.0)
    axes = Axes((0, max(step for points in means.values() for step, _ in points)), up)
    lines = [Line(method, points, styles[method]) for method, points in means.items()]
    return line_plot(axes, lines, below="step", beside=f"{of_class}: {GAUGES[gauge]}")


def draw(classes: Classes, out: Path) -> None:
    """Draw the curves of all classes."""
    names = dict.fromkeys(method for methods in classes.values() for method in methods)
    styles = {method: number for number, method in enumerate(names)}
    plots = [
        plot(name, methods, styles, gauge) for name, methods in sorted(classes.items()) for gauge in range(len(GAUGES))
    ]
    ends = "; ".join(
        f"{name}, {method}: AUROC {np.mean(points[min(points)], axis=0)[0]:.3f} at the first step, "
        f"{np.mean(points[max(points)], axis=0)[0]:.3f} at the last"
        for name, methods in sorted(classes.items())
        for method, points in methods.items()
    )
    title = "AUROC and mean pairwise cosine by step of fine-tuning, for each class"
    out.write_text(figure(plots, title=title, description=f"{ends}."), encoding="utf-8")


def main() -> None:
    """Draw, and print the values of the first and the last step."""
    parser = parser_of(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="OUT")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG file to write")
    options = parser.parse_args()
    classes = read(options.folders)
    draw(classes, options.out)
    for name, methods in sorted(classes.items()):
        for method, points in methods.items():
            ends = [np.mean(points[step], axis=0) for step in (min(points), max(points))]
            print(f"{name}, {method}:", " -> ".join(f"AUROC {auroc:.4f}, cosine {cos:.4f}" for auroc, cos in ends))


if __name__ == "__main__":
    main()
