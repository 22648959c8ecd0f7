"""The whole of `msc-edge compare`, for Python users: score, compute, write."""

from collections.abc import Sequence
from pathlib import Path

from msc_edge.arguments import check_functions, path_argument, whole_argument
from msc_edge.errors import UsageError
from msc_edge.files import written_whole
from msc_edge.progress import Report, silent
from msc_edge.runtime.tools.compare.comparison import Comparison, compute_comparison
from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset, labelled_dataset
from msc_edge.runtime.tools.evaluate.metrics import RESAMPLES
from msc_edge.runtime.tools.report.report_path import check_file


def compare(
    first: str | Path,
    second: str | Path,
    dataset: LabelledDataset | str | Path,
    *,
    out: str | Path | None = None,
    resamples: int = RESAMPLES,
    overwrite: bool = False,
    report: Report = silent,
) -> Comparison:
    """Score labelled images with two kits, each with its own limits, and write the results to the file `out`, JSON.

    `dataset` is a data set in the MVTec-AD layout (`test/good`, `test/<defect type>`), or the result of
    `labelled_folders`. Images that one of the kits cannot read are left out. `overwrite` replaces an existing file.
    Raises KitError, SourceError without readable normal or anomalous images, UsageError when `out` is taken or lies
    within a kit, MissingExtraError without scikit-learn, and OutputError when `out` cannot be written.
    """
    kits = path_argument("first", first, "'kit'"), path_argument("second", second, "'kit'")
    whole_argument("resamples", resamples, least=1)
    check_functions(report=report)
    target = None if out is None else path_argument("out", out, "'comparison.json'")
    if target:
        _check_out(target, kits, overwrite=overwrite)
    if not isinstance(dataset, LabelledDataset):
        dataset = labelled_dataset(path_argument("dataset", dataset, "'dataset'"))
    found = compute_comparison(kits, dataset, resamples=resamples, report=report)
    if target:
        with written_whole(target) as partial:
            partial.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return found


def _check_out(out: Path, kits: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse, before hours of work, a file that cannot be written or would change a kit."""
    for kit in kits:
        if out.resolve().is_relative_to(kit.resolve()):
            raise UsageError(f"--out {out}: lies within {kit}, which is an input; choose another place")
    check_file("--out", out, (".json",), overwrite=overwrite)
