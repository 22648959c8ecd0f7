"""The whole way on drawn parts: train, export, score, and look."""

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sklearn.metrics import roc_auc_score

from msc_edge.calibration import alarm_count_interval
from msc_edge.demo.contact_sheet import Cell, contact_sheet, write_contact_sheet
from msc_edge.demo.drawn_images import Sizes, draw_data_set
from msc_edge.demo.parts import DEFECTS
from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.export.pack import export
from msc_edge.images import find_images, read_image
from msc_edge.progress import Report, silent
from msc_edge.runtime.backends.onnxruntime_backend import usable_cores
from msc_edge.runtime.batch import Row, score_files
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.table import ScoreTable
from msc_edge.train.training import TrainingOptions, train

DATA, RUN, KIT, SCORES, SHEET = "data", "run", "kit", "scores.csv", "contact-sheet.png"
_MARK = ".msc-edge-demo"  # lies in a folder that a demo may replace
SIZES = Sizes()
STEPS = 10  # enough to see it train, in a minute
_SHOWN = 8
_HOLDOUT = 0.25


@dataclass(frozen=True)
class Alarms:
    """Of `images` good parts `count` were flagged; `band` is where 90 % of such counts lie, by the kit's promise."""

    count: int
    images: int
    expected_rate: float
    band: tuple[int, int]


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured on its test images."""

    auroc: float
    auroc_of: dict[str, float]
    """Of each kind of defect against all good parts."""
    caught: dict[str, tuple[int, int]]
    """(rejected, all) of each kind of defect."""
    warned: Alarms
    rejected: Alarms
    milliseconds: float
    """Median wall time of reading, decoding and scoring one image, on one core."""


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    sizes: Sizes = SIZES,
    steps: int = STEPS,
    overwrite: bool = False,
    report: Report = silent,
) -> DemoResult:
    """Draw parts, train, export and score below the folder `out`; needs no network.

    Leaves data/ (MVTec-AD layout), run/, kit/, scores.csv and contact-sheet.png. `overwrite` replaces these of an
    earlier demo, and touches nothing else. Raises UsageError when `out` is taken.
    """
    _make_room(out, overwrite=overwrite)
    draw_data_set(out / DATA, seed=seed, sizes=sizes, threads=usable_cores(), report=report)
    train(out / DATA, out / RUN, TrainingOptions(holdout=_HOLDOUT, steps=steps, seed=seed), report=report)
    export(out / RUN, out / KIT, precision="fp32", report=report)  # int8 is for a line; here it would take longer

    detector = Detector.load(out / KIT, threads=1)
    images = find_images([out / DATA / "test"]).paths
    rows: list[Row] = []
    with ScoreTable.create(out / SCORES) as table:
        for row in score_files(detector, images):
            table.write(row)
            rows.append(row)
            report("scoring", len(rows), len(images))
    _write_sheet(out, rows)
    return _measured(rows, detector)


def _make_room(out: Path, *, overwrite: bool) -> None:
    with writing(out):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not (out / _MARK).is_file():
                raise UsageError(f"{out}: exists, and is not an earlier demo; choose another name")
            if not overwrite:
                raise UsageError(f"{out}: holds an earlier demo; choose another name, or pass --overwrite")
            for name in (DATA, RUN, KIT, SCORES, SHEET):
                _remove(out / name)
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).touch()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():  # what a link leads to is not of the demo
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _measured(rows: Sequence[Row], detector: Detector) -> DemoResult:
    of = {name: [row for row in rows if Path(row.path).parent.name == name] for name in ("good", *DEFECTS)}

    def auroc(bad: Sequence[Row]) -> float:
        truth = [0] * len(of["good"]) + [1] * len(bad)
        return float(roc_auc_score(truth, [row.score for row in (*of["good"], *bad)]))

    def alarms(rate: float, verdicts: tuple[str, ...]) -> Alarms:
        count, held_out = len(of["good"]), detector.calibration.scores.size
        return Alarms(
            count=sum(row.verdict in verdicts for row in of["good"]),
            images=count,
            expected_rate=rate,
            band=alarm_count_interval(round(rate * (held_out + 1)), held_out, count),
        )

    limits = detector.limits
    return DemoResult(
        auroc=auroc([row for name in DEFECTS for row in of[name]]),
        auroc_of={name: auroc(of[name]) for name in DEFECTS},
        caught={name: (sum(row.verdict == "reject" for row in of[name]), len(of[name])) for name in DEFECTS},
        warned=alarms(limits.warn.expected_rate or 0, ("warn", "reject")),
        rejected=alarms(limits.reject.expected_rate or 0, ("reject",)),
        milliseconds=statistics.median(row.milliseconds or 0 for row in rows),
    )


def _write_sheet(out: Path, rows: Sequence[Row]) -> None:
    ranked = sorted(rows, key=lambda row: row.score or 0)
    sections = [
        (f"most anomalous of {len(rows)} images", [_cell(out, row) for row in ranked[::-1][:_SHOWN]]),
        ("most normal", [_cell(out, row) for row in ranked[:_SHOWN]]),
    ]
    write_contact_sheet(out / SHEET, contact_sheet(sections))


def _cell(out: Path, row: Row) -> Cell:
    if row.score is None or row.verdict is None or row.nearest is None:
        raise SourceError(f"{row.path}: drawn a moment ago, and cannot be read ({row.error}); check the disk")
    path = Path(row.path)
    return Cell(
        image=read_image(path),
        nearest=read_image(out / DATA / "train" / "good" / row.nearest),
        name=f"{path.parent.name}/{path.stem}",
        score=row.score,
        verdict=row.verdict,
    )
