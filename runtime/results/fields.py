"""The fields of a result, defined once: rows, events, schemas, pages and tables take them from here."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Literal, TypeVar, cast, get_args

from msc_edge.calibration import AT_A_LIMIT, Verdict
from msc_edge.kit.manifest import Precision
from msc_edge.runtime.results.result import Result
from msc_edge.text import many

Record = TypeVar("Record")
Outer = TypeVar("Outer")


@dataclass(frozen=True, kw_only=True)
class Field(Generic[Record]):
    """One value of a record: its name, its type, how it is written, and what it means."""

    name: str
    type: Literal["text", "integer", "number", "objects"]
    """`objects`: a list of JSON objects; CSV writes it as JSON text."""
    description: str
    value: Callable[[Record], Any]
    """Takes the value from the record; None where the record has none."""
    decimals: int | None = None
    """Digits after the point, of a number."""
    unit: str | None = None
    choices: tuple[str, ...] = ()
    """The only values of a text field; empty: any text."""

    def within(self, inner: Callable[[Outer], Record | None]) -> "Field[Outer]":
        """The same field of a larger record, which holds this record or None."""

        def value(outer: Outer) -> Any:
            record = inner(outer)
            return None if record is None else self.value(record)

        return cast("Field[Outer]", replace(self, value=cast("Any", value)))


def _regions(result: Result) -> list[dict[str, object]]:
    return [{**asdict(region), "peak": round(region.peak, 6)} for region in result.regions]


def _nearest_images(result: Result) -> list[dict[str, object]]:
    return [{"row": each.row, "path": each.path, "distance": round(each.distance, 6)} for each in result.nearest_images]


RESULT_FIELDS: tuple[Field[Result], ...] = (
    Field(
        name="score",
        type="number",
        decimals=6,
        description="what the verdict is made of; larger is more anomalous. Depending on the kit: the image score, the "
        "patch score, or the larger of the two, each in standard deviations from the mean of normal images",
        value=lambda result: result.score,
    ),
    Field(
        name="image_score",
        type="number",
        decimals=6,
        description="the image as a whole: mean cosine distance to the k nearest normal images, 0 to 2",
        value=lambda result: result.image_score,
    ),
    Field(
        name="patch_score",
        type="number",
        decimals=6,
        description="the most anomalous part: largest value of the anomaly map; empty where the kit compares whole "
        "images only",
        value=lambda result: result.patch_score,
    ),
    Field(
        name="p_value",
        type="number",
        decimals=6,
        description="share of images with at least this score, among the calibration images and this image; empty "
        "where the limit was set by hand, which has no rate",
        value=lambda result: result.p_value,
    ),
    Field(
        name="verdict",
        type="text",
        choices=get_args(Verdict),
        description=f"normal, warn (score above the warn limit) or reject (above the reject limit); {AT_A_LIMIT}",
        value=lambda result: result.verdict,
    ),
    Field(
        name="limit",
        type="number",
        decimals=6,
        description="reject limit: a larger score is rejected",
        value=lambda result: result.limit,
    ),
    Field(
        name="regions",
        type="objects",
        description="parts of the image above the kit's limit of the anomaly map, in pixels of the image, highest peak "
        "first: bounding box, area, largest value and its position, centroid",
        value=_regions,
    ),
    Field(
        name="nearest",
        type="text",
        description="nearest normal image, as its path in the training folder",
        value=lambda result: result.nearest,
    ),
    Field(
        name="nearest_images",
        type="objects",
        description="the k nearest normal images: row of the memory bank, path, cosine distance; nearest first",
        value=_nearest_images,
    ),
    Field(
        name="model",
        type="text",
        choices=get_args(Precision),
        description="model of the kit that scored the image",
        value=lambda result: result.model,
    ),
    Field(
        name="kit",
        type="text",
        description="SHA-256 of the manifest of the kit that scored the image",
        value=lambda result: result.kit,
    ),
)

LATER_FIELDS: tuple[Field[Result], ...] = (
    Field(
        name="score_to_limit",
        type="number",
        decimals=3,
        description="score divided by the reject limit: above 1 is rejected; empty where the limit is not above 0",
        value=lambda result: result.score_to_limit,
    ),
    Field(
        name="learned",
        type="integer",
        description="number of images that this station had learned for the kit and that counted; 0: the kit alone",
        value=lambda result: result.learned,
    ),
    Field(
        name="learned_sha256",
        type="text",
        description="SHA-256 of what had been learned, images and station limits; empty: nothing",
        value=lambda result: result.learned_sha256,
    ),
)
"""Not in RESULT_FIELDS: in a score file they are the last columns, because they came later."""


def result_fields(inner: Callable[[Outer], Result | None]) -> tuple[Field[Outer], ...]:
    """The fields of a result, for a record that holds one."""
    return tuple(field.within(inner) for field in RESULT_FIELDS)


def later_fields(inner: Callable[[Outer], Result | None]) -> tuple[Field[Outer], ...]:
    """The fields of a result that came later, for a record that holds one."""
    return tuple(field.within(inner) for field in LATER_FIELDS)


def describe_learned(count: int, sha256: str | None) -> str:
    """What had been learned that counted, in words: the values of `learned` and `learned_sha256`."""
    if sha256 is None:
        return "learned: nothing that counts; the kit alone"
    return f"learned: {many(count, 'image')} of this station, SHA-256 {sha256[:12]}"


def description_of(name: str) -> str:
    """What a field of a result means. KeyError for another name."""
    return {field.name: field.description for field in (*RESULT_FIELDS, *LATER_FIELDS)}[name]


_JSON_TYPES = {"text": "string", "integer": "integer", "number": "number", "objects": "array"}


def row_schema(fields: Sequence[Field[Any]], *, title: str) -> dict[str, object]:
    """The JSON schema (draft 2020-12) of one line of a JSON lines file with these fields."""
    properties: dict[str, object] = {}
    for field in fields:
        entry: dict[str, object] = {"type": [_JSON_TYPES[field.type], "null"], "description": field.description}
        if field.unit:
            entry["description"] = f"{field.description}, in {field.unit}"
        if field.choices:
            entry["enum"] = [*field.choices, None]
        if field.type == "objects":
            entry["items"] = {"type": "object"}
        properties[field.name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }
