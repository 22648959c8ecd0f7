"""The rows that a score file has from earlier runs: which images need none, and whether new rows belong with them."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from msc_edge.errors import OtherColumnsError, UsageError
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.formats import path_as_written, rounded
from msc_edge.runtime.results.image_result import read_score_file
from msc_edge.runtime.results.row_file import move_aside

_LOG = logging.getLogger("msc_edge")


def images_without_rows(images: Iterable[Path], done: Counter[str]) -> Iterator[Path]:
    """The images without a row. Two names that are no valid text may be written alike: each row stands for one."""
    left = Counter(done)
    for path in images:
        if left[written := path_as_written(path)]:
            left[written] -= 1
        else:
            yield path


def rows_of(out: Path, detector: Detector, images: Iterable[Path]) -> Counter[str]:
    """The paths that a score file has rows of. UsageError where another kit, model or limit, or other additions,
    gave a row.

    A file of another version, whose rows do not state their kit, is moved aside: all images are then scored again.
    """
    if not out.exists():
        return Counter()
    done: Counter[str] = Counter()
    limit = rounded(detector.limits.reject.score, 6)
    try:
        for image in read_score_file(out):
            done[image.path] += 1
            if (result := image.result) is None:
                continue
            for name, written, now in (
                ("kit", result.kit[:12], detector.kit.sha256[:12]),
                ("model", result.model, detector.model),
                ("limit", rounded(result.limit, 6), limit),
                ("what was learned", _learned(result.learned_sha256), _learned(detector.additions.sha256)),
            ):
                if written != now:
                    raise UsageError(
                        f"{out}: {image.path} was scored with {name} {written}, and now {name} {now} is given; use the "
                        "same kit, --precision, --learned and limits, pass another --out, or --overwrite to start again"
                    )
    except OtherColumnsError:
        aside = move_aside(out)
        _LOG.warning("%s: written by another version of msc-edge; moved to %s, all images are scored again", out, aside)
        return Counter()
    expected = Counter(map(path_as_written, images))
    for path, rows in done.items():
        if rows > max(1, expected[path]):
            raise UsageError(
                f"{out}: has {rows} rows of {path}; it was edited, or two runs wrote it at once. Pass another --out, "
                "or --overwrite to replace it"
            )
    return done


def _learned(sha256: str | None) -> str:
    return f"SHA-256 {sha256[:12]}" if sha256 else "nothing"
