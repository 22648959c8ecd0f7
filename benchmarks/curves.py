"""AUROC over the steps of fine-tuning, from the curves of `msc-edge benchmark one-vs-rest`, as one plot.

    python benchmarks/curves.py 'NAME=FOLDER:METHOD' ... --out FILE.svg [--title TEXT]

A line for each NAME: the mean, over the classes and seeds in FOLDER/curves.csv, of one method's AUROC at each step.
"""

import argparse
import csv
from collections import defaultdict
from itertools import cycle
from pathlib import Path

import numpy as np

from msc_edge.runtime.tools.report.axes import LEFT, LETTER, Axes, svg, text

COLOURS = ("#1f77b4", "#c62828", "#2e7d32", "#b26a00", "#6a1b9a")


def curve_of(folder: Path, method: str) -> dict[int, float]:
    """Step -> mean AUROC, of the steps that all classes and seeds have."""
    at: dict[int, list[float]] = defaultdict(list)
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["method"] == method:
                at[int(row["step"])].append(float(row["auroc"]))
    jobs = max(map(len, at.values()))
    return {step: float(np.mean(values)) for step, values in sorted(at.items()) if len(values) == jobs}


def main() -> None:
    """Parse, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", metavar="NAME=FOLDER:METHOD")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="AUROC over the steps of fine-tuning")
    options = parser.parse_args()
    curves = {}
    for line in options.lines:
        name, _, rest = line.partition("=")
        folder, _, method = rest.rpartition(":")
        curves[name] = curve_of(Path(folder), method)
    values = [auroc for curve in curves.values() for auroc in curve.values()]
    room = 0.08 * (max(values) - min(values))
    axes = Axes((0, max(max(curve) for curve in curves.values())), (min(values) - room, max(values) + room))
    parts = [axes.frame("steps", "AUROC of the test images", percent=(False, False))]
    for row, ((name, curve), colour) in enumerate(zip(curves.items(), cycle(COLOURS), strict=False)):
        points = " ".join(f"{axes.x(step):.1f},{axes.y(auroc):.1f}" for step, auroc in curve.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for step, auroc in curve.items():
            parts.append(f'<circle cx="{axes.x(step):.1f}" cy="{axes.y(auroc):.1f}" r="3" fill="{colour}"/>')
        across, down = LEFT + (row % 2) * 26 * LETTER, 14 + 18 * (row // 2)
        parts.append(f'<rect x="{across:.1f}" y="{down - 9}" width="11" height="11" fill="{colour}"/>')
        parts.append(text(across + 16, down, name, fill="#222"))
        print(name, " ".join(f"{step}:{auroc:.4f}" for step, auroc in curve.items()))
    drawn = svg("".join(parts), options.title)
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    whole = str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f">{background}", 1)
    options.out.write_text(whole + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
