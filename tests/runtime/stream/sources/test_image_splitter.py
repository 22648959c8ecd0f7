"""Bodies that are cut into any pieces, by a network or by a camera."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.runtime.stream.sources.image_splitter import MAX_BYTES, FoundImage, ImageSplitter, UnsplittableError


def noise(number: int, suffix: str) -> bytes:
    image = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


IMAGES = [noise(number, suffix) for number in range(3) for suffix in (".jpg", ".png")]


def split(pieces: list[bytes], boundary: str | None = None) -> list[FoundImage]:
    splitter = ImageSplitter(boundary)
    found = [image for piece in pieces for image in splitter.feed(piece)]
    return found + ([rest] if (rest := splitter.finish()) else [])


@settings(max_examples=40, deadline=None)
@given(
    order=st.lists(st.integers(0, len(IMAGES) - 1), min_size=1, max_size=5),
    gaps=st.lists(st.binary(max_size=30).filter(lambda gap: not {0xFF, 0x89, ord("-")} & set(gap)), min_size=6),
    size=st.integers(1, 5000),
)
def test_images_are_found_whatever_lies_between_them_and_wherever_the_pieces_end(
    order: list[int], gaps: list[bytes], size: int
) -> None:
    body = gaps[0] + b"".join(IMAGES[number] + gap for number, gap in zip(order, gaps[1:], strict=False))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert split(pieces) == [FoundImage(IMAGES[number], is_whole=True) for number in order]


@settings(max_examples=40, deadline=None)
@given(at=st.integers(4, len(IMAGES[0]) - 3), size=st.integers(1, 3000))
def test_an_image_that_is_cut_anywhere_ends_before_the_next_and_is_not_whole(at: int, size: int) -> None:
    body = b"".join(b"--b\r\n\r\n" + data + b"\r\n" for data in (IMAGES[2], IMAGES[0][:at], IMAGES[4]))
    found = split([body[at : at + size] for at in range(0, len(body), size)], "b")
    assert [image.is_whole for image in found] == [True, False, True]
    assert (found[0].data, found[2].data) == (IMAGES[2], IMAGES[4])
    assert found[1].data.rstrip(b"\r\n") == IMAGES[0][:at].rstrip(b"\r\n")


@pytest.mark.parametrize("boundary", ["frame", None, "another"])
def test_a_preview_behind_the_image_of_a_part_is_not_the_next_image(boundary: str | None) -> None:
    """As in the multi-picture format of cameras: it would be scored as the next part."""
    part = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    body = b"".join(part + IMAGES[number] + b"\0\0" + IMAGES[4] + b"\r\n" for number in (0, 2, 1))
    for size in (7, 1000, len(body)):
        found = split([body[at : at + size] for at in range(0, len(body), size)], boundary)
        assert found == [FoundImage(IMAGES[number], is_whole=True) for number in (0, 2, 1)]


@pytest.mark.parametrize("number", [0, 1])
def test_of_two_images_without_a_boundary_a_cut_one_ends_where_the_next_begins(number: int) -> None:
    half, whole = IMAGES[number][: len(IMAGES[number]) * 3 // 4], IMAGES[number + 2]
    assert split([half + whole]) == [FoundImage(half, is_whole=False), FoundImage(whole, is_whole=True)]


def test_an_image_comes_with_its_last_byte_not_with_the_next_boundary() -> None:
    """A camera that is triggered sends the next part with the next product."""
    body = b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + IMAGES[0]
    splitter = ImageSplitter("b")
    assert list(splitter.feed(body[:-1])) == []
    assert list(splitter.feed(body[-1:])) == [FoundImage(IMAGES[0], is_whole=True)]


def test_an_image_that_does_not_end_is_refused_at_64_mb() -> None:
    splitter = ImageSplitter(None)
    assert list(splitter.feed(IMAGES[1][:-12])) == []
    for _ in range(7):
        assert list(splitter.feed(bytes(MAX_BYTES // 8))) == []
    with pytest.raises(UnsplittableError, match="larger than 64 MB"):
        list(splitter.feed(bytes(MAX_BYTES // 8)))


def test_text_without_an_image_is_not_kept() -> None:
    splitter = ImageSplitter(None)
    for _ in range(100):
        assert list(splitter.feed(bytes(100_000))) == []
    assert len(splitter._buffer) <= 1 << 16
    assert splitter.finish() is None


def test_padding_of_any_length_before_a_marker_is_passed_at_once() -> None:
    """A pattern that tries each length of the padding at each position takes hours."""
    padded = IMAGES[0][:-2] + b"\xff" * (1 << 20) + b"\x00" + b"\xff" * (1 << 20) + b"\xd9"
    assert split([padded]) == [FoundImage(padded, is_whole=True)]
