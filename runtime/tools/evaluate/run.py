"""The whole of `msc-edge evaluate`, for Python users: score, compute, write."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from msc_edge.arguments import check_functions, path_argument, whole_argument
from msc_edge.errors import UsageError
from msc_edge.files import folder_written_whole, kind_of
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.progress import Report, silent
from msc_edge.runtime.batch import score_images
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.processor import check_threads
from msc_edge.runtime.results.image_result import ImageResult, score_file_format
from msc_edge.runtime.results.row_file import RowFile
from msc_edge.runtime.tools.evaluate.evaluation import Evaluation, compute_evaluation, match_labels
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, labelled_dataset
from msc_edge.runtime.tools.evaluate.masks import MaskedMaps
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES, sklearn_metrics
from msc_edge.runtime.tools.evaluate.report import EvaluationReport
from msc_edge.runtime.tools.report.report_path import check_writable

JSON, SCORES, REPORT = "evaluation.json", "scores.csv", "report.html"


def evaluate(
    kit: str | Path,
    dataset: LabelledDataset | str | Path,
    out: str | Path,
    *,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    resamples: int = RESAMPLES,
    gallery: int = 12,
    precision: Precision | None = None,
    learned: bool = False,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = silent,
) -> Evaluation:
    """Evaluate a kit on labelled images, and write evaluation.json, scores.csv and report.html into the folder `out`.

    `dataset` is a data set in the MVTec-AD layout (`test/good`, `test/<defect type>`), or the result of
    `labelled_folders`. The folder appears when all of it is written. `overwrite` replaces an earlier evaluation and
    nothing else. `gallery` is the number of images in each gallery of the report; the best and the worst heatmaps share
    one. `threshold` and `false_alarm_rate`: see `Detector.with_limits`. `learned`: see `Detector.load`. Raises
    KitError, SourceError when the images cannot be read, UsageError when `out` is taken or lies within the kit or the
    data set, MissingExtraError without scikit-learn, and OutputError when it cannot be written.
    """
    out = path_argument("out", out, "'evaluation'")
    kit = path_argument("kit", kit, "'kit'")
    check_threads(threads)
    whole_argument("resamples", resamples, least=1)
    whole_argument("gallery", gallery, least=0)
    check_functions(report=report)
    sklearn_metrics()  # missing: known before all images are scored
    if not isinstance(dataset, LabelledDataset):
        dataset = labelled_dataset(path_argument("dataset", dataset, "'dataset'"))
    _check_out(out, (kit, *dataset.folders), overwrite=overwrite)
    with Kit.open(kit) as opened:
        detector = Detector.of(opened, threads=1, precision=precision, learned=learned).with_limits(
            threshold=threshold, false_alarm_rate=false_alarm_rate
        )
        check_writable(out.parent, target=out)
        page = EvaluationReport(detector, dataset, gallery=gallery)
        images: list[ImageResult] = []
        maps = MaskedMaps(dataset)
        if detector.scoring.map:
            maps.refuse_unusable()
        paths = [image.path for image in dataset.images]
        with closing(score_images(detector, paths, threads=threads, thumbnail_if=page.wants_thumbnail)) as results:
            for image in results:
                page.add(image)
                if image.result is not None:
                    maps.add(dataset.images[len(images)], image.result)
                images.append(_without_pixels(image))
                report("scoring", len(images), len(paths))
        scored, unreadable = match_labels(dataset, images)
        masked = maps.result()
        evaluation = compute_evaluation(
            detector,
            dataset,
            scored,
            unreadable,
            maps=masked and masked.evaluation,
            resamples=resamples,
            report=report,
        )
        with folder_written_whole(out, replace=overwrite) as folder:
            _write_scores(folder / SCORES, dataset, images)
            (folder / JSON).write_text(evaluation.model_dump_json(indent=2) + "\n", encoding="utf-8")
            page.write(folder / REPORT, evaluation, scored, opened, masked=masked.images if masked else ())
    return evaluation


def _without_pixels(image: ImageResult) -> ImageResult:
    """What is kept of every image: no thumbnails, no map."""
    result = image.result and replace(image.result, grid_map=None)
    return replace(image, result=result, thumbnail=None, overlay=None)


def _check_out(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a folder that would change or replace an input, or anything but an earlier evaluation."""
    place = out.resolve()
    for folder in map(Path.resolve, inputs):
        if place.is_relative_to(folder):
            raise UsageError(f"--out {out}: lies within {folder}, which is an input; choose another place")
        if folder.is_relative_to(place):
            raise UsageError(f"--out {out}: contains {folder}, which is an input; choose another place")
    kind, _ = kind_of(out)
    if kind == "file":
        raise UsageError(f"--out {out}: is a file; name a folder")
    existing = {path.name for path in out.iterdir()} if kind == "folder" else set()
    if existing and not overwrite:
        raise UsageError(f"--out {out}: exists already; choose another name, or pass --overwrite to replace it")
    if others := existing - {JSON, SCORES, REPORT}:
        raise UsageError(
            f"--out {out}: contains {min(others)}, which is not part of an evaluation, and --overwrite replaces "
            "nothing else; choose another name"
        )


def _write_scores(path: Path, dataset: LabelledDataset, images: Sequence[ImageResult]) -> None:
    named = [replace(image, path=label.name) for label, image in zip(dataset.images, images, strict=True)]
    with RowFile.create(path, score_file_format(path)) as file:
        for image in sorted(named, key=lambda image: image.path):
            file.write(image)
