"""The tables of the benchmark: table.md for readers, table.csv and curves.csv for further computations."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from msc_edge.files import written_whole
from msc_edge.train.one_vs_rest.protocol import METHODS, Job


def write_tables(folder: Path, jobs: Iterable[Job]) -> str:
    """Write curves.csv, table.csv and table.md, sorted by class, method and seed. Returns the text of table.md."""
    jobs = sorted(jobs, key=lambda job: (job.label, METHODS.index(job.method), job.seed))
    with written_whole(folder / "curves.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "method", "seed", "step", "auroc", "mean_pairwise_cosine"))
        for job in jobs:
            writer.writerows(
                (job.label, job.method, job.seed, point.step, f"{point.auroc:.6f}", f"{point.mean_pairwise_cosine:.6f}")
                for point in job.curve
            )
    with written_whole(folder / "table.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "method", "seed", "selected_step", "auroc", "best_step", "best_auroc", "seconds"))
        writer.writerows(
            (
                job.label,
                job.method,
                job.seed,
                job.selected.step,
                f"{job.selected.auroc:.6f}",
                job.best.step,
                f"{job.best.auroc:.6f}",
                "" if job.seconds is None else job.seconds,
            )
            for job in jobs
        )
    table = f"{_results(jobs)}\n{_selections(jobs)}"
    with written_whole(folder / "table.md") as path:
        path.write_text(table, encoding="utf-8")
    return table


def _results(jobs: Sequence[Job]) -> str:
    """AUROC of each class and method: mean and standard deviation over the seeds. Hours: of all jobs of a method."""
    labels = list(dict.fromkeys(job.label for job in jobs))
    methods = [method for method in METHODS if any(job.method == method for job in jobs)]
    cells = {
        (label, method): [job.selected.auroc for job in jobs if (job.label, job.method) == (label, method)]
        for label in labels
        for method in methods
    }
    lines = [f"| class | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    lines += [
        f"| {_escaped(label)} | {' | '.join(_cell(cells[label, method]) for method in methods)} |" for label in labels
    ]
    # Means over different classes are not comparable: average only the classes that all methods have finished.
    common = [label for label in labels if all(cells[label, method] for method in methods)]
    if common:
        name = "mean" if len(common) == len(labels) else f"mean of {len(common)} common classes"
        means = [np.mean([np.mean(cells[label, method]) for label in common]) for method in methods]
        lines.append(f"| {name} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    spent = [[job.seconds for job in jobs if job.method == method] for method in methods]
    lines.append(f"| hours | {' | '.join(map(_hours, spent))} |")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("|", "\\|")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _hours(seconds: Sequence[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{sum(known) / 3600:.1f}" if len(known) == len(seconds) else ""


def _selections(jobs: Sequence[Job]) -> str:
    """Selected and best step of each job, and the share of the best step's gain that the selected step reaches."""
    lines = ["| class | method | seed | frozen | selected step | AUROC | best step | AUROC | share of the best gain |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for job in jobs:
        if job.method == "dn2":
            continue
        frozen, selected, best = job.curve[0].auroc, job.selected, job.best
        share = f"{(selected.auroc - frozen) / (best.auroc - frozen):.0%}" if best.auroc > frozen else "no gain"
        lines.append(
            f"| {_escaped(job.label)} | {job.method} | {job.seed} | {frozen:.4f} | {selected.step} "
            f"| {selected.auroc:.4f} | {best.step} | {best.auroc:.4f} | {share} |"
        )
    return "\n".join(lines) + "\n"
