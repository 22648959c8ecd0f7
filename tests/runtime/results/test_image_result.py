"""Score files: the rows of image files, written and read again."""

import json
from pathlib import Path

import jsonschema
import pytest

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.errors import OtherColumnsError, UsageError
from msc_edge.runtime.results.fields import row_schema
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, ImageResult, read_score_file, score_file_format
from msc_edge.runtime.results.result import NearestImage
from msc_edge.runtime.results.row_file import RowFile

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
UNREADABLE = ImageResult("b.png", None, error="the file is empty")


def written(path: Path, *images: ImageResult) -> Path:
    with RowFile.create(path, score_file_format(path), overwrite=True) as file:
        for image in images:
            file.write(image)
    return path


def test_the_columns_are_those_of_the_contract():
    names = "path,score,image_score,patch_score,p_value,verdict,limit,regions,nearest,nearest_images,model,kit,"
    names += "milliseconds,error,score_to_limit,learned,learned_sha256"
    assert ",".join(field.name for field in IMAGE_FIELDS) == names


@SUFFIXES
def test_rows_are_read_to_the_written_digits(tmp_path, scored, suffix):
    image = scored("ü\n.png", score=0.12345678, limit=1 / 30)
    first, second = read_score_file(written(tmp_path / f"s{suffix}", image, UNREADABLE))
    assert first == scored(
        "ü\n.png",
        milliseconds=2.3,
        score=0.123457,
        image_score=0.091235,
        patch_score=1.234568,
        p_value=0.076923,
        limit=0.033333,
        regions=(AnomalousRegion(8, 9, 30, 40, 777, 1.234568, 11, 12, 21, 22),),
        nearest_images=(NearestImage(3, "n.png", 0.1), NearestImage(0, "o.png", 0.146913)),
    )
    assert second == UNREADABLE


@SUFFIXES
def test_a_thumbnail_is_not_written(tmp_path, scored, suffix):
    image = scored()
    with_thumbnail = ImageResult(image.path, image.result, image.milliseconds, thumbnail=b"jpeg")
    written(tmp_path / f"a{suffix}", image)
    written(tmp_path / f"b{suffix}", with_thumbnail)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_real_rows_are_valid_under_the_schema(detector, photos, tmp_path):
    validator = jsonschema.Draft202012Validator(row_schema(IMAGE_FIELDS, title="a row"))
    image = ImageResult("warn.png", detector.score_file(photos / "warn.png"), 1.0)
    for line in written(tmp_path / "s.jsonl", image, UNREADABLE).read_text().splitlines():
        validator.validate(json.loads(line))


@SUFFIXES
def test_a_row_carries_the_kit_and_the_model_that_scored(detector, photos, toy_kit, tmp_path, suffix):
    path = written(tmp_path / f"s{suffix}", ImageResult("warn.png", detector.score_file(photos / "warn.png"), 1.0))
    (image,) = read_score_file(path)
    assert image.result
    assert image.result.kit == (toy_kit / "manifest.sha256").read_text().split()[0]
    assert image.result.model == "fp32"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",reject,", ",,"),
        ("a.png,", ","),
        (",n.png,", ",o.png,"),  # not the first of nearest_images
        ('""row""', '""rank""'),
        ('""peak""', '""top""'),
        ('{""row"": 3, ""path"": ""n.png"", ""distance"": 0.1}, ', ""),
        (",n.png,", ",,"),
        ("the file is empty", ""),
        (",,the file is empty", ",1.0,the file is empty"),
        (",normal,", ";normal;"),
        ("\n", "\r\n"),
    ],
)
def test_an_edited_row_is_refused_and_the_options_are_named(tmp_path, scored, old, new):
    target = written(tmp_path / "s.csv", scored(), scored("c.png", verdict="normal"), UNREADABLE)
    target.write_bytes(target.read_bytes().replace(old.encode(), new.encode()))
    before = target.read_bytes()
    with pytest.raises(UsageError, match=r"row \d is damaged or was edited .*--overwrite|not a row file"):
        list(read_score_file(target))
    assert target.read_bytes() == before


@pytest.mark.parametrize("nearest", [[], [1], ["n.png"], [{"row": "x", "path": "n.png", "distance": 0.1}], {}, None])
def test_a_row_with_other_nearest_images_is_refused(tmp_path, scored, nearest):
    target = written(tmp_path / "s.jsonl", scored())
    target.write_text(json.dumps({**json.loads(target.read_text()), "nearest_images": nearest}) + "\n")
    with pytest.raises(UsageError, match="row 1 is damaged or was edited"):
        list(read_score_file(target))


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_a_score_file_of_0_1_0_has_other_columns(written_by_0_1_0, name):
    with pytest.raises(OtherColumnsError):
        list(read_score_file(written_by_0_1_0 / name))
