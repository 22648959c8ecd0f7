import json

import pytest

from msc_edge.runtime.stream.triggers.message import parse_message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"id": "part-4711"}, ("part-4711", None)),
        ({"id": "4711", "source": "cam"}, ("4711", "cam")),
        ({"id": "", "source": None}, ("", None)),
    ],
)
def test_a_message_has_an_id_and_perhaps_a_source(given: object, expected: tuple) -> None:
    assert parse_message(json.dumps(given).encode()) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON object"),
        (b"part-4711", "not a JSON object"),
        (b'["part-4711"]', "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 4000, "not a JSON object"),
        (b"{}", "`id` is missing"),
        (b'{"id": 4711}', "`id` is missing or is no text"),
        (b'{"id": "1", "source": 2}', "`source` is no text"),
        (b'{"id": "1", "sorce": "cam"}', "unknown: sorce"),
        (b'{"id": "' + b"1" * 5000 + b'"}', "5010 bytes are too many"),
    ],
)
def test_anything_else_is_refused_with_the_reason(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_message(content)
