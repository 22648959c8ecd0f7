import csv
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.runtime.batch import Row
from msc_edge.runtime.results.rows import COLUMNS, csv_line, json_line, path_as_written, read_rows
from msc_edge.runtime.results.table import ScoreTable

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
# File names that have broken somebody's tables before.
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
scored = st.builds(
    Row,
    path=texts,
    score=st.integers(-1, 2 * 10**6).map(lambda n: n / 10**6),
    p_value=rates,
    verdict=st.sampled_from(["normal", "warn", "reject"]),
    nearest=texts,
    milliseconds=st.integers(0, 10**7).map(lambda n: n / 10),
    error=st.none(),
)
rows = st.lists(st.one_of(scored, st.builds(Row, path=texts, error=texts)), max_size=5)


def good(path: str = "a.png", **changes: object) -> Row:
    fields = {"score": 0.1234567, "p_value": 1 / 13, "verdict": "reject", "nearest": "n.png", "milliseconds": 2.34}
    return Row(path, **{**fields, **changes})  # pyright: ignore[reportArgumentType]


def written(target: Path, some: list[Row]) -> Path:
    with ScoreTable.create(target, overwrite=True) as table:
        for row in some:
            table.write(row)
    return target


def test_the_columns_are_those_of_the_contract():
    assert ",".join(COLUMNS) == "path,score,p_value,verdict,nearest,milliseconds,error"


def test_csv_to_the_byte(tmp_path):
    target = written(tmp_path / "s.csv", [good(), Row('b,"c".png', error="the file is empty")])
    assert target.read_bytes() == (
        b"path,score,p_value,verdict,nearest,milliseconds,error\n"
        b"a.png,0.123457,0.076923,reject,n.png,2.3,\n"
        b'"b,""c"".png",,,,,,the file is empty\n'
    )


def test_json_lines_to_the_byte(tmp_path):
    target = written(tmp_path / "s.jsonl", [good("ü.png"), Row("b\n.png", error="the file is empty")])
    assert target.read_bytes().decode() == (
        '{"path": "ü.png", "score": 0.123457, "p_value": 0.076923, "verdict": "reject", "nearest": "n.png", '
        '"milliseconds": 2.3, "error": null}\n'
        '{"path": "b\\n.png", "score": null, "p_value": null, "verdict": null, "nearest": null, '
        '"milliseconds": null, "error": "the file is empty"}\n'
    )


@pytest.mark.parametrize("score", [-0.0, -1e-9, -4.9e-7, 0.0])
def test_zero_has_no_sign(score):
    assert csv_line(good(score=score)).split(",")[1] == "0.000000"
    assert math.copysign(1, json.loads(json_line(good(score=score)))["score"]) == 1


def test_a_score_a_little_below_zero_keeps_its_sign():
    assert csv_line(good(score=-1e-6)).split(",")[1] == "-0.000001"


@settings(deadline=None)
@given(some=rows)
def test_other_readers_find_the_same_values(tmp_path_factory, some):
    folder = tmp_path_factory.mktemp("table")
    with written(folder / "s.csv", some).open(encoding="utf-8", newline="") as file:
        found = [{key: value or None for key, value in line.items()} for line in csv.DictReader(file)]
    lines = written(folder / "s.jsonl", some).read_bytes().decode().split("\n")[:-1]
    for row, from_csv, from_json in zip(some, found, map(json.loads, lines), strict=True):
        expected = {name: getattr(row, name) for name in COLUMNS}
        assert from_json == expected
        numbers = {name: float(value) for name in ("score", "p_value", "milliseconds") if (value := from_csv[name])}
        assert from_csv | numbers == expected


@SUFFIXES
@settings(deadline=None)
@given(some=rows)
def test_rows_come_back(tmp_path_factory, suffix, some):
    target = written(tmp_path_factory.mktemp("table") / f"s{suffix}", some)
    assert list(read_rows(target)) == some


@SUFFIXES
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_no_table_likes_come_back_as_they_are_written(tmp_path, suffix, name):
    target = written(tmp_path / f"s{suffix}", [good(name), Row(name, error="x"), good("next.png")])
    target.read_bytes().decode("utf-8")
    assert [row.path for row in read_rows(target)] == [path_as_written(name)] * 2 + ["next.png"]


def test_only_bytes_that_are_no_text_are_written_as_escapes():
    assert path_as_written(b"a\xff.png".decode("utf-8", "surrogateescape")) == "a\\xff.png"
    assert path_as_written("half a pair \ud83d.png") == "half a pair \\ud83d.png"
    assert path_as_written("Prüfling 日本 🙂.png") == "Prüfling 日本 🙂.png"


@pytest.mark.parametrize("locale", ["ascii", "utf-8"])
def test_a_name_is_written_the_same_under_every_locale(locale):
    name = "Prüfling 日本.png"
    assert path_as_written(name.encode().decode(locale, "surrogateescape")) == name
