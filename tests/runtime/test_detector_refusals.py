"""What a detector refuses, and what its errors say to do."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import KitError, SourceError, UnreadableImageError, UsageError
from msc_edge.kit.layout import MANIFEST, MANIFEST_DIGEST
from msc_edge.runtime import Detector


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64, 3), np.float32),
        np.zeros((48, 64, 3), np.float64),
        np.zeros((48, 64), np.float32),
        np.zeros((48, 64, 3), np.int16),
        np.zeros((48, 64, 3), ">u2"),
        np.zeros((48, 64, 3), np.int8),
        np.zeros((48, 64, 3), bool),
        np.zeros((64,), np.uint8),
        np.zeros((48, 64, 2), np.uint8),
        np.zeros((48, 64, 4), np.uint8),
        np.zeros((1, 48, 64, 3), np.uint8),
        np.zeros((3, 48, 64), np.uint8),
        np.zeros((0, 64), np.uint8),
        np.zeros((0, 64, 3), np.uint8),
        np.zeros((48, 0, 3), np.uint8),
        [[[0, 0, 0]]],
        None,
    ],
    ids=lambda frame: f"{frame.dtype}{frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__,
)
def test_anything_but_an_image_is_refused(detector, frame):
    with pytest.raises(SourceError, match="image"):
        detector.score(frame)


def test_a_wrong_frame_of_a_list_is_named(detector, toy):
    with pytest.raises(SourceError, match=r"frame 1 of the list: got float64 \(48, 64, 3\)"):
        detector.score([toy.draw(100), toy.draw(101) / 255])


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5, True, 2**70])
def test_threads_must_be_a_positive_number(toy_kit, threads):
    with pytest.raises(UsageError, match="a whole number from 1 to 4096"):
        Detector.load(toy_kit, threads=threads)


@pytest.mark.parametrize("wrong", [3, None, b"kit", [], ""])
def test_what_is_no_path_is_refused(detector, wrong):
    with pytest.raises(UsageError, match=r"^kit is .* such as 'kit'$"):
        Detector.load(wrong)
    with pytest.raises(UsageError, match=r"^path is .* such as 'part.png'$"):
        detector.score_file(wrong)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (None, "check the path or the camera"),
        ("part.png", "Detector.score_file"),
        (Path("part.png"), "Detector.score_file"),
        (b"content", "Detector.score_bytes"),
        (3, "pass a numpy array"),
    ],
)
def test_what_is_no_frame_is_refused_with_what_to_do(detector, wrong, remedy):
    for given in (wrong, [wrong]):
        with pytest.raises(SourceError, match=remedy):
            detector.score(given)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (None, "score_file"),
        ("part.png", "score_file"),
        (Path("part.png"), "score_file"),
        ([1, 2], "score_file"),
        (np.zeros(4), r"float64 \(4,\).*score pixels with Detector.score"),
        (np.zeros((4, 4, 3), np.uint8), r"uint8 \(4, 4, 3\).*score pixels with Detector.score"),
    ],
    ids=repr,
)
def test_what_is_no_content_of_a_file_is_refused_with_what_to_do(detector, wrong, remedy):
    with pytest.raises(UsageError, match=remedy):
        detector.score_bytes(wrong)


def test_each_unreadable_image_has_a_reason(detector, photos):
    for name in ("cut.png", "zero.png", "missing.png", "notes.txt", "."):
        with pytest.raises(UnreadableImageError) as caught:
            detector.score_file(photos / name)
        path, _, reason = str(caught.value).partition(": ")
        assert path == str(photos / name)
        assert "; " in reason, "what to do"


def test_a_path_with_a_line_break_is_one_line_of_an_error(detector, photos):
    with pytest.raises(UnreadableImageError, match=r"part\\n2\.png: cannot be opened"):
        detector.score_file(photos / "part\n2.png")


@pytest.mark.parametrize("order", ["bgr", "RGBA", "", None])
def test_an_unknown_channel_order_is_refused(detector, order):
    with pytest.raises(UsageError, match="RGB"):
        detector.score(np.zeros((8, 8, 3), np.uint8), order=order)


def test_a_kit_whose_k_is_larger_than_its_bank_is_refused(kit):
    manifest = json.loads((kit / MANIFEST).read_text())
    manifest["models"]["fp32"]["banks"]["images"]["k"] = 1000
    text = json.dumps(manifest).encode()
    (kit / MANIFEST).write_bytes(text)
    (kit / MANIFEST_DIGEST).write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    with pytest.raises(KitError, match="k 1000 is larger than the 12 rows"):
        Detector.load(kit)
