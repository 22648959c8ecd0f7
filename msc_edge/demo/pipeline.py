"""The whole pipeline on drawn parts: train, export, score, and a contact sheet."""

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sklearn.metrics import roc_auc_score

from msc_edge.calibration import Limit
from msc_edge.demo.contact_sheet import Cell, contact_sheet, write_contact_sheet
from msc_edge.demo.drawn_images import Sizes, draw_data_set
from msc_edge.demo.parts import DEFECTS
from msc_edge.errors import SourceError, UsageError, writing
from msc_edge.export.pack import export
from msc_edge.images import read_image
from msc_edge.overlay import overlay
from msc_edge.progress import Report, silent
from msc_edge.runtime.batch import score_folder
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import usable_cores
from msc_edge.runtime.results.image_result import ImageResult
from msc_edge.train.options import TrainingOptions
from msc_edge.train.training import train

DATA, RUN, KIT, SCORES, SHEET = "data", "run", "kit", "scores.csv", "contact-sheet.png"
_MARK = ".msc-edge-demo"  # marks a folder that a demo may replace
SIZES = Sizes()
STEPS = 10  # trains in a minute
_SHOWN = 8
_HOLDOUT = 0.25


@dataclass(frozen=True)
class Alarms:
    """`count` of `images` normal images were flagged; `interval`: the 90 % interval of that count."""

    count: int
    images: int
    expected_rate: float
    interval: tuple[int, int]


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo on its test images."""

    auroc: float
    auroc_of: dict[str, float]
    """AUROC of each defect type against all normal images."""
    rejected_of: dict[str, tuple[int, int]]
    """Rejected images and all images of each defect type."""
    warned: Alarms
    rejected: Alarms
    milliseconds: float
    """Median wall time to read, decode and score one image, on one core."""


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

    Writes data/ (MVTec-AD layout), run/, kit/, scores.csv and contact-sheet.png. With `overwrite`, these files of an
    earlier demo are replaced; other files in `out` stay. UsageError for a folder that is not an earlier demo.
    """
    _prepare(out, overwrite=overwrite)
    draw_data_set(out / DATA, seed=seed, sizes=sizes, threads=usable_cores(), report=report)
    train(out / DATA, out / RUN, TrainingOptions(holdout=_HOLDOUT, steps=steps, seed=seed), report=report)
    export(out / RUN, out / KIT, name="demo", precision="fp32", report=report)  # int8 takes longer than the rest

    images: list[ImageResult] = []
    done = score_folder(out / KIT, [out / DATA / "test"], out / SCORES, on_result=[images.append], report=report)
    _write_sheet(out, images)
    return _measure(images, done.detector)


def _prepare(out: Path, *, overwrite: bool) -> None:
    with writing(out):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not (out / _MARK).is_file():
                raise UsageError(f"{out}: exists and is not an earlier demo; choose another name")
            if not overwrite:
                raise UsageError(f"{out}: contains an earlier demo; choose another name, or pass --overwrite")
            for name in (DATA, RUN, KIT, SCORES, SHEET):
                _remove(out / name)
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).touch()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():  # the target of a link is not part of the demo
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _measure(images: Sequence[ImageResult], detector: Detector) -> DemoResult:
    results = {
        name: [image.result for image in images if image.result and Path(image.path).parent.name == name]
        for name in ("good", *DEFECTS)
    }
    normal = results["good"]

    def auroc(names: Sequence[str]) -> float:
        anomalous = [result for name in names for result in results[name]]
        truth = [0] * len(normal) + [1] * len(anomalous)
        return float(roc_auc_score(truth, [result.score for result in (*normal, *anomalous)]))

    def alarms(limit: Limit, verdicts: tuple[str, ...]) -> Alarms:
        interval = detector.calibration.alarm_interval(limit, len(normal))
        assert limit.expected_rate is not None, "the kit's own limits have an expected rate"
        assert interval is not None
        return Alarms(
            count=sum(result.verdict in verdicts for result in normal),
            images=len(normal),
            expected_rate=limit.expected_rate,
            interval=interval,
        )

    return DemoResult(
        auroc=auroc(DEFECTS),
        auroc_of={name: auroc([name]) for name in DEFECTS},
        rejected_of={
            name: (sum(result.verdict == "reject" for result in results[name]), len(results[name])) for name in DEFECTS
        },
        warned=alarms(detector.limits.warn, ("warn", "reject")),
        rejected=alarms(detector.limits.reject, ("reject",)),
        milliseconds=statistics.median(image.milliseconds or 0 for image in images),
    )


def _write_sheet(out: Path, images: Sequence[ImageResult]) -> None:
    ranked = sorted(images, key=lambda image: image.result.score if image.result else 0)
    sections = [
        (f"most anomalous of {len(images)} images", [_cell(out, image) for image in ranked[::-1][:_SHOWN]]),
        ("most normal", [_cell(out, image) for image in ranked[:_SHOWN]]),
    ]
    write_contact_sheet(out / SHEET, contact_sheet(sections))


def _cell(out: Path, image: ImageResult) -> Cell:
    if image.result is None:
        raise SourceError(f"{image.path}: was just drawn and cannot be read ({image.error}); check the disk")
    path, grid_map = Path(image.path), image.result.grid_map
    pixels = read_image(path)
    return Cell(
        image=pixels if grid_map is None else overlay(pixels, grid_map),
        nearest=read_image(out / DATA / "train" / "good" / image.result.nearest),
        name=f"{path.parent.name}/{path.stem}",
        result=image.result,
    )
