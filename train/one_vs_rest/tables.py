"""The tables of the benchmark: table.md to read and publish, table.csv and curves.csv to compute with."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from msc_edge.files import written_whole
from msc_edge.train.one_vs_rest.protocol import METHODS, Job


def write_tables(folder: Path, jobs: Iterable[Job]) -> str:
    """Write curves.csv, table.csv and table.md, by class, method and seed; the text of the last."""
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
        writer.writerow(("class", "method", "seed", "selected_step", "auroc", "best_step", "best_auroc"))
        writer.writerows(
            (
                job.label,
                job.method,
                job.seed,
                job.kept.step,
                f"{job.kept.auroc:.6f}",
                job.best.step,
                f"{job.best.auroc:.6f}",
            )
            for job in jobs
        )
    table = f"{_results(jobs)}\n{_choices(jobs)}"
    with written_whole(folder / "table.md") as path:
        path.write_text(table, encoding="utf-8")
    return table


def _results(jobs: Sequence[Job]) -> str:
    """AUROC of each class and method: mean, and standard deviation over the seeds."""
    labels = list(dict.fromkeys(job.label for job in jobs))
    methods = [method for method in METHODS if any(job.method == method for job in jobs)]
    cells = {
        (label, method): [job.kept.auroc for job in jobs if (job.label, job.method) == (label, method)]
        for label in labels
        for method in methods
    }
    lines = [f"| class | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    lines += [
        f"| {_safe(label)} | {' | '.join(_cell(cells[label, method]) for method in methods)} |" for label in labels
    ]
    # Means of different classes do not compare: while some are not finished, the mean is over those that all have.
    common = [label for label in labels if all(cells[label, method] for method in methods)]
    if common:
        name = "mean" if len(common) == len(labels) else f"mean of {len(common)} that all have"
        means = [np.mean([np.mean(cells[label, method]) for label in common]) for method in methods]
        lines.append(f"| {name} | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def _safe(label: str) -> str:
    return label.replace("|", "\\|")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _choices(jobs: Sequence[Job]) -> str:
    """What the step that counts keeps of what the best step, known to the test labels alone, would have gained."""
    lines = ["| class | method | seed | frozen | kept step | AUROC | best step | AUROC | of its gain kept |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for job in jobs:
        if job.method == "dn2":
            continue
        frozen, kept, best = job.curve[0].auroc, job.kept, job.best
        share = f"{(kept.auroc - frozen) / (best.auroc - frozen):.0%}" if best.auroc > frozen else "nothing to gain"
        lines.append(
            f"| {_safe(job.label)} | {job.method} | {job.seed} | {frozen:.4f} | {kept.step} | {kept.auroc:.4f} "
            f"| {best.step} | {best.auroc:.4f} | {share} |"
        )
    return "\n".join(lines) + "\n"
