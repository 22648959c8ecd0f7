"""The result of one image file, and its row in a score file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.errors import UsageError
from msc_edge.runtime.results.fields import Field, later_fields, result_fields
from msc_edge.runtime.results.formats import RowFormat, format_of
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.results.row_file import read_rows


@dataclass(frozen=True, slots=True)
class ImageResult:
    """An image file that was scored, or that could not be read."""

    path: str
    result: Result | None
    """None where the image could not be read."""
    milliseconds: float | None = None
    """Time to read, decode and score the image; None where it could not be read."""
    error: str | None = None
    """Why the image could not be read; None where it was scored."""
    thumbnail: bytes | None = None
    """A JPEG of the image for reports, made on request by `score_images`. Rows do not contain it."""
    overlay: bytes | None = None
    """The thumbnail with the anomaly map drawn over it; None for a kit that compares whole images only."""


IMAGE_FIELDS: tuple[Field[ImageResult], ...] = (
    Field(name="path", type="text", description="the image file, as it was found", value=lambda image: image.path),
    *result_fields(lambda image: image.result),
    Field(
        name="milliseconds",
        type="number",
        decimals=1,
        unit="milliseconds",
        description="time to read, decode and score the image",
        value=lambda image: image.milliseconds,
    ),
    Field(
        name="error",
        type="text",
        description="why the image could not be read; the fields of the result are then empty",
        value=lambda image: image.error,
    ),
    *later_fields(lambda image: image.result),
)


def score_file_format(path: Path) -> RowFormat[ImageResult]:
    """The format of a score file, by its suffix. UsageError for another suffix than .csv and .jsonl."""
    return format_of(path, IMAGE_FIELDS)


def read_score_file(path: str | Path) -> Iterator[ImageResult]:
    """The complete rows of a score file, in its order; numbers have the digits that were written.

    Raises UsageError when the file is not a score file of this version.
    """
    path = Path(path)
    for number, row in enumerate(read_rows(path, score_file_format(path)), start=1):
        try:
            yield _from_row(row)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"{path}: row {number} is damaged or was edited ({error}); pass another --out, or --overwrite to "
                "replace the file"
            ) from error


# Of a result: kits without patches, limits that were set by hand, limits that are not above 0, nothing learned.
_MAY_BE_EMPTY = ("patch_score", "p_value", "score_to_limit", "learned_sha256")


def _from_row(row: Mapping[str, Any]) -> ImageResult:
    scored = [row[field.name] for field in IMAGE_FIELDS if field.name not in ("path", "error", *_MAY_BE_EMPTY)]
    if row["error"] is not None:
        if any(value is not None for value in scored):
            raise ValueError("a score and an error")
        return ImageResult(row["path"], None, error=row["error"])
    if row["path"] is None or any(value is None for value in scored):
        raise ValueError("no score")
    return ImageResult(row["path"], result_from_row(row), row["milliseconds"])


def result_from_row(row: Mapping[str, Any]) -> Result:
    """The result in a decoded row of a score file or of a stream. ValueError where its values contradict each other."""
    nearest = tuple(
        NearestImage(row=int(each["row"]), path=str(each["path"]), distance=float(each["distance"]))
        for each in row["nearest_images"]
    )
    if nearest[0].path != row["nearest"]:
        raise ValueError("nearest is not the first of nearest_images")
    if not -1e-5 <= row["image_score"] <= 2:  # of an image in the bank, rounding may be below 0
        raise ValueError("image_score is not in [0, 2]")
    if row["learned"] < 0 or (row["learned"] == 0) != (row["learned_sha256"] is None):
        raise ValueError("learned contradicts learned_sha256")
    # Both may be rounded to the same digits.
    if row["score"] != row["limit"] and (row["verdict"] == "reject") != (row["score"] > row["limit"]):
        raise ValueError("verdict contradicts score and limit")
    return Result(
        score=row["score"],
        image_score=row["image_score"],
        patch_score=row["patch_score"],
        p_value=row["p_value"],
        verdict=row["verdict"],
        limit=row["limit"],
        regions=tuple(AnomalousRegion(**each) for each in row["regions"]),
        nearest_images=nearest,
        model=row["model"],
        kit=row["kit"],
        learned=row["learned"],
        learned_sha256=row["learned_sha256"],
    )
