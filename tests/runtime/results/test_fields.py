"""The fields of a result: every record, file and schema takes them from one list."""

from dataclasses import fields

import jsonschema
import pytest

from msc_edge.runtime.results.fields import (
    LATER_FIELDS,
    RESULT_FIELDS,
    Field,
    description_of,
    result_fields,
    row_schema,
)
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, ImageResult
from msc_edge.runtime.results.result import Result

NAMES = ["score", "image_score", "patch_score", "p_value", "verdict", "limit", "regions"]
NAMES += ["nearest", "nearest_images", "model", "kit"]


def test_the_names_are_those_of_the_contract():
    assert [field.name for field in RESULT_FIELDS] == NAMES


def test_every_attribute_of_a_result_has_a_field_of_its_name():
    assert {field.name for field in fields(Result)} - {"grid_map", "anomaly_map", "embedding"} <= {
        field.name for field in (*RESULT_FIELDS, *LATER_FIELDS)
    }


def test_each_field_takes_the_attribute_of_its_name(scored):
    result = scored().result
    for field in RESULT_FIELDS:
        if field.type != "objects":
            assert field.value(result) == getattr(result, field.name)
    (regions,) = [field.value(result) for field in RESULT_FIELDS if field.name == "regions"]
    box = {"x": 8, "y": 9, "width": 30, "height": 40, "area": 777}
    assert regions == [box | {"peak": 1.234568, "peak_x": 11, "peak_y": 12, "center_x": 21, "center_y": 22}]
    (nearest,) = [field.value(result) for field in RESULT_FIELDS if field.name == "nearest_images"]
    assert nearest == [
        {"row": 3, "path": "n.png", "distance": 0.1},
        {"row": 0, "path": "o.png", "distance": 0.146913},
    ]


def result_of(image: ImageResult) -> Result | None:
    return image.result


def test_a_record_without_a_result_has_no_value_of_it():
    unreadable = ImageResult("a.png", None, error="the file is empty")
    assert [field.value(unreadable) for field in result_fields(result_of)] == [None] * len(NAMES)


def test_a_field_of_an_inner_record_keeps_its_description():
    for inner, outer in zip(RESULT_FIELDS, result_fields(result_of), strict=True):
        for name in ("name", "type", "decimals", "unit", "choices", "description"):
            assert getattr(outer, name) == getattr(inner, name)


def test_descriptions_are_found_by_name():
    assert "cosine distance" in description_of("image_score")
    with pytest.raises(KeyError):
        description_of("points")


class TestSchema:
    @pytest.fixture
    def validator(self) -> jsonschema.Draft202012Validator:
        schema = row_schema(IMAGE_FIELDS, title="a row")
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    def values(self, image: ImageResult) -> dict:
        return {field.name: field.value(image) for field in IMAGE_FIELDS}

    def test_scored_and_unreadable_rows_are_valid(self, validator, scored):
        validator.validate(self.values(scored()))
        validator.validate(self.values(ImageResult("a.png", None, error="the file is empty")))

    @pytest.mark.parametrize(
        "change",
        [{"verdict": "fine"}, {"score": "0.1"}, {"model": "fp16"}, {"points": 1}, {"nearest_images": "n.png"}],
        ids=str,
    )
    def test_other_rows_are_not(self, validator, scored, change):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(self.values(scored()) | change)

    def test_every_field_is_required(self, validator, scored):
        for name in self.values(scored()):
            with pytest.raises(jsonschema.ValidationError, match=name):
                validator.validate({key: value for key, value in self.values(scored()).items() if key != name})

    def test_units_are_in_the_descriptions(self):
        field = Field(name="age", type="number", unit="seconds", description="age of the frame", value=float)
        assert row_schema([field], title="x")["properties"] == {
            "age": {"type": ["number", "null"], "description": "age of the frame, in seconds"}
        }
