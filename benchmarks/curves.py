"""One plot of AUROC by fine-tuning step, from the curves of `msc-edge benchmark one-vs-rest`.

    python benchmarks/curves.py 'NAME=FOLDER:METHOD' ... --out FILE.svg [--title TEXT]

Each NAME is a line: the AUROC of one method at each step, the mean over the classes and seeds in FOLDER/curves.csv.
There are at most five. docs/collapse.svg:

    python benchmarks/curves.py 'mean-shifted, v2, 3e-4=benchmarks/figures/collapse:v2' \\
        'plain contrastive, 3e-4=benchmarks/figures/collapse:contrastive' \\
        'plain contrastive, 1e-4=benchmarks/figures/collapse:contrastive-1e-4' --out docs/collapse.svg \\
        --title 'AUROC over the steps of fine-tuning: CIFAR-10 airplane, cat and horse against the rest, MobileNetV2'
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import parser_of

from msc_edge.axes import Axes
from msc_edge.figures import Line, figure, line_plot


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
    lines = [Line(name, list(curve.items()), number) for number, (name, curve) in enumerate(curves.items())]
    described = (
        f"{line.name}: {line.points[0][1]:.3f} at the start, at most {max(auroc for _, auroc in line.points):.3f}, "
        f"{line.points[-1][1]:.3f} after {line.points[-1][0]} steps"
        for line in lines
    )
    plot = line_plot(axes, lines, below="steps", beside="AUROC of the test images")
    drawn = figure([plot], title=options.title, description=f"{'. '.join(described)}.")
    options.out.write_text(drawn, encoding="utf-8")
    for name, curve in curves.items():
        print(name, " ".join(f"{step}:{auroc:.4f}" for step, auroc in curve.items()))


if __name__ == "__main__":
    main()
