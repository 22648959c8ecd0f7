"""Rows as bytes: CSV and JSON lines. The fields are those of a score file."""

import csv
import io
import json
import math
import os
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.errors import UsageError
from msc_edge.runtime.results.fields import row_schema
from msc_edge.runtime.results.formats import CsvFormat, JsonLinesFormat, format_of, path_as_written
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, ImageResult
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.text import csv_text

CSV, JSON = CsvFormat(IMAGE_FIELDS), JsonLinesFormat(IMAGE_FIELDS)
FORMATS = pytest.mark.parametrize("form", [CSV, JSON], ids=["csv", "jsonl"])
KIT = "ab" * 32
# File names that break naive table writers.
NAMES = [
    'say "cheese".png',
    "a,b;c.png",
    "new\nline.png",
    "carriage\rreturn.png",
    'both\r\n, and a quote".png',
    "line\u2028separator.png",
    "Prüfling 日本 🙂.png",
    os.fsdecode(b"\xff\xfe\x80.png"),
    " space .png ",
    "=1+1.png",
    "back\\slash.png",
    '{"path": 1}.png',
]

texts = st.text(min_size=1, max_size=30).map(path_as_written)
rates = st.integers(0, 10**6).map(lambda n: n / 10**6)
scores = st.integers(-1, 2 * 10**6).map(lambda n: n / 10**6)
pixels = st.integers(0, 9000)
regions = st.builds(AnomalousRegion, *[pixels] * 5, scores, *[pixels] * 4)
results = st.builds(
    Result,
    score=scores,
    image_score=scores,
    patch_score=st.none() | scores,
    p_value=rates,
    verdict=st.sampled_from(["normal", "warn", "reject"]),
    limit=scores,
    regions=st.lists(regions, max_size=3).map(tuple),
    nearest_images=st.lists(
        st.builds(NearestImage, row=st.integers(0, 10**6), path=texts, distance=scores), min_size=1, max_size=3
    ).map(tuple),
    model=st.sampled_from(["fp32", "int8"]),
    kit=st.just(KIT),
)
with_learned = st.builds(replace, results, learned=st.integers(1, 50), learned_sha256=st.just("cd" * 32))
images = st.one_of(
    st.builds(
        ImageResult, path=texts, result=results | with_learned, milliseconds=st.integers(0, 10**7).map(lambda n: n / 10)
    ),
    st.builds(ImageResult, path=texts, result=st.none(), error=texts),
)


def unreadable(path: str = "a.png", error: str = "the file is empty") -> ImageResult:
    return ImageResult(path, None, error=error)


def values(image: ImageResult) -> dict:
    found = {field.name: field.value(image) for field in IMAGE_FIELDS}
    # A quotient: all other numbers of the examples have no more digits than are written.
    times = found["score_to_limit"]
    return found | {"score_to_limit": times if times is None else float(f"{times:.3f}")}


def test_csv_to_the_byte(scored):
    assert CSV.header == (
        b"path,score,image_score,patch_score,p_value,verdict,limit,regions,nearest,nearest_images,model,kit,"
        b"milliseconds,error,score_to_limit,learned,learned_sha256\n"
    )
    regions = (
        b'"[{""x"": 8, ""y"": 9, ""width"": 30, ""height"": 40, ""area"": 777, ""peak"": 1.234568, '
        b'""peak_x"": 11, ""peak_y"": 12, ""center_x"": 21, ""center_y"": 22}]"'
    )
    nearest = (
        b'"[{""row"": 3, ""path"": ""n.png"", ""distance"": 0.1}, '
        b'{""row"": 0, ""path"": ""o.png"", ""distance"": 0.146913}]"'
    )
    numbers = b"0.123457,0.091235,1.234568,0.076923,reject,0.100000"
    end = b"fp32," + KIT.encode() + b",2.3,,1.235,0,\n"
    assert CSV.encode(scored()) == b",".join([b"a.png", numbers, regions, b"n.png", nearest, end])
    assert CSV.encode(unreadable('b,"c".png')) == b'"b,""c"".png",,,,,,,,,,,,,the file is empty,,,\n'


def test_json_lines_to_the_byte(scored):
    assert JSON.header == b""
    assert JSON.encode(scored("ü.png")).decode() == (
        '{"path": "ü.png", "score": 0.123457, "image_score": 0.091235, "patch_score": 1.234568, '
        '"p_value": 0.076923, "verdict": "reject", "limit": 0.1, "regions": [{"x": 8, "y": 9, "width": 30, '
        '"height": 40, "area": 777, "peak": 1.234568, "peak_x": 11, "peak_y": 12, "center_x": 21, "center_y": 22}], '
        '"nearest": "n.png", "nearest_images": [{"row": 3, "path": "n.png", "distance": 0.1}, '
        '{"row": 0, "path": "o.png", "distance": 0.146913}], "model": "fp32", "kit": "' + KIT + '", '
        '"milliseconds": 2.3, "error": null, "score_to_limit": 1.235, "learned": 0, "learned_sha256": null}\n'
    )
    assert JSON.encode(unreadable("b\n.png")).decode() == (
        '{"path": "b\\n.png", "score": null, "image_score": null, "patch_score": null, "p_value": null, '
        '"verdict": null, "limit": null, "regions": null, "nearest": null, '
        '"nearest_images": null, "model": null, "kit": null, "milliseconds": null, "error": "the file is empty", '
        '"score_to_limit": null, "learned": null, "learned_sha256": null}\n'
    )


@pytest.mark.parametrize("score", [-0.0, -1e-9, -4.9e-7, 0.0])
def test_zero_has_no_sign(scored, score):
    assert CSV.encode(scored(score=score)).split(b",")[1] == b"0.000000"
    assert math.copysign(1, json.loads(JSON.encode(scored(score=score)))["score"]) == 1


def test_a_score_slightly_below_zero_keeps_its_sign(scored):
    assert CSV.encode(scored(score=-1e-6)).split(b",")[1] == b"-0.000001"


@FORMATS
def test_a_limit_too_small_to_divide_by_leaves_the_quotient_empty(form, scored):
    assert form.decode(form.encode(scored(limit=5e-324)))["score_to_limit"] is None


@settings(deadline=None, max_examples=60)
@given(some=st.lists(images, max_size=5))
def test_other_readers_find_the_same_values(some):
    text = (CSV.header + b"".join(map(CSV.encode, some))).decode()
    from_csv = [{key: value or None for key, value in row.items()} for row in csv.DictReader(io.StringIO(text, ""))]
    from_json = [json.loads(line) for line in b"".join(map(JSON.encode, some)).split(b"\n")[:-1]]
    for image, csv_row, json_row in zip(some, from_csv, from_json, strict=True):
        expected = values(image)
        assert json_row == expected
        for name in [field.name for field in IMAGE_FIELDS if field.type != "text"]:
            csv_row[name] = json.loads(csv_row[name] or "null")
        for name in [field.name for field in IMAGE_FIELDS if field.type == "text"]:
            csv_row[name] = csv_row[name] and csv_text(str(csv_row[name]))  # an apostrophe before formulas and controls
        assert csv_row == expected


@FORMATS
@settings(deadline=None, max_examples=60)
@given(some=st.lists(images, max_size=5))
def test_written_rows_are_read_with_the_same_values(form, some):
    written = io.BytesIO(form.header + b"".join(map(form.encode, some)))
    written.seek(len(form.header))
    assert [form.decode(line) for line in form.lines(written)] == [values(image) for image in some]


@FORMATS
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_file_name_can_be_written_and_read(form, scored, name):
    nearest = (NearestImage(0, name, 0.1),)
    lines = [form.encode(scored(name, nearest_images=nearest)), form.encode(unreadable(name)), form.encode(scored())]
    assert list(form.lines(io.BytesIO(b"".join(lines)))) == lines
    rows = [form.decode(line) for line in lines]
    assert [row["path"] for row in rows] == [path_as_written(name)] * 2 + ["a.png"]
    assert rows[0]["nearest"] == rows[0]["nearest_images"][0]["path"] == path_as_written(name)


def test_json_rows_are_valid_under_the_schema_of_their_fields(scored):
    validator = jsonschema.Draft202012Validator(row_schema(IMAGE_FIELDS, title="a row"))
    for name in NAMES:
        validator.validate(json.loads(JSON.encode(scored(name))))
        validator.validate(json.loads(JSON.encode(unreadable(name))))


@FORMATS
def test_an_incomplete_last_line_is_left_out(form, scored):
    first, second = form.encode(scored("a\n.png")), form.encode(unreadable("b\n.png"))
    for length in range(len(second)):
        assert list(form.lines(io.BytesIO(first + second[:length]))) == [first]


@FORMATS
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"reject"', '"fine"'),  # not a verdict
        ("0.123457", "0,123457"),
        ("0.123457", "much"),
        ("0.123457", "nan"),
        ("0.123457", "NaN"),
        ("2.3", "true"),
        ("fp32", "fp16"),
        ('"row', '"row" "'),
        ("\n", '"\n'),
        ("\n", ",1\n"),
    ],
)
def test_an_edited_row_is_a_value_error(form, scored, old, new):
    line = form.encode(scored()).decode()
    edited = line.replace(old if old in line else old.strip('"'), new if old in line else new.strip('"'))
    assert edited != line
    with pytest.raises(ValueError):  # noqa: PT011  (the words are those of csv and json)
        form.decode(edited.encode())


@FORMATS
@pytest.mark.parametrize("line", [b"[1]\n", b"[" * 10**5 + b"\n", b"\xff\n", b"{}\n", b"a\n", b"\n"], ids=range(6))
def test_another_line_is_a_value_error(form, line):
    with pytest.raises(ValueError):  # noqa: PT011
        form.decode(line)


def test_deeply_nested_json_in_a_csv_field_is_a_value_error(scored):
    line = CSV.encode(scored()).decode()
    start, end = line.index('"['), line.index(']"')
    with pytest.raises(ValueError, match="nested too deeply"):
        CSV.decode(f"{line[:start]}{'[' * 10**5}{line[end + 2 :]}".encode())


@FORMATS
def test_the_columns_of_a_file_are_read_from_its_first_line(form, scored):
    first = form.header or form.encode(scored())
    assert form.columns(first) == form.names
    assert form.columns(b'{"a": 1, "b": 2}\n' if form is JSON else b"a,b\n") == ("a", "b")


@pytest.mark.parametrize(("name", "form"), [("s.csv", CsvFormat), ("S.CSV", CsvFormat), ("s.jsonl", JsonLinesFormat)])
def test_the_suffix_selects_the_format(tmp_path, name, form):
    assert isinstance(format_of(tmp_path / name, IMAGE_FIELDS), form)


@pytest.mark.parametrize("name", ["scores", "scores.txt", "scores.csv.gz", "scores.json", ".csv"])
def test_another_suffix_is_refused_and_the_two_are_named(tmp_path, name):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.csv or \.jsonl"):
        format_of(tmp_path / name, IMAGE_FIELDS)


def test_only_bytes_that_are_not_text_are_written_as_escapes():
    assert path_as_written(b"a\xff.png".decode("utf-8", "surrogateescape")) == "a\\xff.png"
    assert path_as_written("half a pair \ud83d.png") == "half a pair \\ud83d.png"
    assert path_as_written("Prüfling 日本 🙂.png") == "Prüfling 日本 🙂.png"


@pytest.mark.parametrize("locale", ["ascii", "utf-8"])
def test_a_name_is_written_the_same_under_every_locale(locale):
    name = "Prüfling 日本.png"
    assert path_as_written(name.encode().decode(locale, "surrogateescape")) == name


HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1+2.png", "@x", "\t=1", "'=1", "\x1b]0;owned\x07", "\u202egnp.exe", '"x"']


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless_in_files_and_come_back(scored, name):
    image = scored(name, nearest_images=(NearestImage(3, name, 0.1), NearestImage(0, name, 0.2)))
    for form in (CSV, JSON):
        line = form.encode(image)
        row = form.decode(line)
        assert (row["path"], row["nearest"], row["nearest_images"][0]["path"]) == (name, name, name)
        assert line.decode().removesuffix("\n").replace("\t", "").isprintable()
    (cells,) = csv.reader(io.StringIO(CSV.encode(image).decode(), ""))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)


def test_negative_numbers_are_no_formulas(scored):
    assert b",-1.500000," in CSV.encode(scored(score=-1.5, image_score=0.5))
