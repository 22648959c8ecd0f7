import pytest

from msc_edge.text import many, one_line, percent, size


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
def test_one_line_leaves_nothing_that_a_terminal_would_obey(text, expected):
    assert one_line(text) == expected


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
