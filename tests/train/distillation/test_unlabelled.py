import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msc_edge.errors import SourceError
from msc_edge.train.distillation.unlabelled import find_unlabelled, read_unlabelled


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, save: Callable) -> Path:
    for seed in range(3):
        save(tmp_path / "földer" / "deep" / f"{seed}.png", draw(seed))
    (tmp_path / "földer" / "notes.txt").write_text("no image")
    return tmp_path / "földer"


@pytest.fixture
def archive(tmp_path: Path, save: Callable) -> Path:
    path = tmp_path / "ärchive.zip"
    with zipfile.ZipFile(path, "w") as file:
        for seed in (12, 11, 10):
            file.write(save(tmp_path / "loose" / f"{seed}.png", draw(seed)), f"photos/{seed}.png")
        file.writestr("__MACOSX/photos/._10.png", b"resource fork")
        file.writestr("photos/.hidden.png", b"hidden")
        file.writestr("photos/readme.txt", b"no image")
    return path


def read(*sources: Path) -> tuple[list[np.ndarray], dict[str, str]]:
    problems: dict[str, str] = {}
    images = [image for _, image in read_unlabelled(find_unlabelled(sources), unreadable=problems.__setitem__)]
    return images, problems


def test_sources_are_read_in_their_order_and_sorted_within(folder: Path, archive: Path) -> None:
    for sources, seeds in (((folder, archive), (0, 1, 2, 10, 11, 12)), ((archive, folder), (10, 11, 12, 0, 1, 2))):
        images, problems = read(*sources)
        assert not problems
        assert len(images) == len(seeds)
        assert all(np.array_equal(image, draw(seed)) for image, seed in zip(images, seeds, strict=True))


def test_duplicates_are_read_once(folder: Path, archive: Path, save: Callable) -> None:
    save(folder / "another name.png", draw(11))
    images, _ = read(folder, archive, folder)
    assert len(images) == 6


def test_an_image_has_the_same_digest_in_an_archive_and_as_a_file(tmp_path: Path, archive: Path) -> None:
    packed = [digest for digest, _ in read_unlabelled(find_unlabelled([archive]))]
    loose = [digest for digest, _ in read_unlabelled(find_unlabelled([tmp_path / "loose"]))]
    assert packed == loose
    assert len(set(packed)) == 3


def test_unreadable_images_are_reported_and_skipped(archive: Path, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("photos/broken.jpg", b"\xff\xd8\xff nothing")
        file.writestr("photos/empty.jpg", b"")
    images, problems = read(folder, archive)
    assert len(images) == 6
    assert sorted(Path(name).name for name in problems) == ["broken.jpg", "broken.png", "empty.jpg"]
    assert all(problems.values())


def test_a_damaged_member_is_reported_and_skipped(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"photos/11.png") + 200] ^= 0xFF
    archive.write_bytes(data)
    images, problems = read(archive)
    assert len(images) == 2
    ((name, reason),) = problems.items()
    assert name.endswith("11.png")
    assert "cannot be unpacked" in reason


def test_a_member_that_would_fill_the_memory_is_not_unpacked(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(archive.read_bytes())
    place = data.index(b"PK\x01\x02") + 24  # the unpacked size, in the first entry of the directory
    data[place : place + 4] = (1100 << 20).to_bytes(4, "little")
    archive.write_bytes(data)
    unpacked: list[str] = []
    unpack = zipfile.ZipFile.read
    monkeypatch.setattr(
        zipfile.ZipFile, "read", lambda file, info: (unpacked.append(info.filename), unpack(file, info))[1]
    )
    images, problems = read(archive)
    assert len(images) == 2
    assert list(problems.values()) == [
        "it has 1100 MiB unpacked; the limit is 256 MiB, so unpack it and pass the folder"
    ]
    assert len(unpacked) == 2


def test_a_member_in_another_method_is_reported_and_skipped(tmp_path: Path, save: Callable) -> None:
    path = tmp_path / "methods.zip"
    with zipfile.ZipFile(path, "w") as file:
        for seed, method in ((1, zipfile.ZIP_STORED), (2, zipfile.ZIP_LZMA), (3, zipfile.ZIP_BZIP2)):
            file.write(save(tmp_path / f"{seed}.png", draw(seed)), f"{seed}.png", method)
    images, problems = read(path)
    assert len(images) == 1
    assert set(problems.values()) == {"it is compressed with another method than deflate; zip the folder again"}


def test_an_archive_whose_members_share_their_bytes_is_refused(archive: Path) -> None:
    """All entries of the directory lead to the first member: any number of large images in a small archive."""
    with zipfile.ZipFile(archive, "a") as file:
        first = max(file.infolist(), key=lambda info: info.compress_size)
        file.filelist += [first] * 100
        file._didModify = True  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SourceError, match="its members overlap"):
        read(archive)


def test_members_with_unusual_names_are_read(tmp_path: Path, save: Callable) -> None:
    one, other, dotted = (save(tmp_path / f"{seed}.png", draw(seed)).read_bytes() for seed in (1, 2, 3))
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("same.png", one)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("same.png", other)
        file.writestr("./dotted.png", dotted)
    images, problems = read(path)
    assert not problems
    assert {image.tobytes() for image in images} == {draw(seed).tobytes() for seed in (1, 2, 3)}


def test_an_encrypted_member_is_reported_and_skipped(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # "encrypted" in the first entry of the directory
    archive.write_bytes(data)
    images, problems = read(archive)
    assert len(images) == 2
    assert list(problems.values()) == ["it is encrypted; unpack the archive with its password and pass the folder"]


def test_an_archive_inside_a_folder_is_reported_and_skipped(folder: Path, archive: Path) -> None:
    inner = archive.rename(folder / "deep" / "inner.zip")
    skipped: dict[str, str] = {}
    assert len(find_unlabelled([folder], skipped=skipped.__setitem__)) == 3
    assert f"--images {inner}" in skipped[str(inner)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "No such file"),
        (lambda path: path.write_bytes(b"PK no more"), "cannot be opened as a zip archive"),
        (lambda path: path.mkdir(), "no images found"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "contains no images"),
    ],
)
def test_a_source_without_images_is_refused(tmp_path: Path, make: Callable, message: str) -> None:
    make(tmp_path / "source.zip")
    with pytest.raises(SourceError, match=rf"source\.zip.*{message}"):
        find_unlabelled([tmp_path / "source.zip"])


def test_a_damaged_archive_is_refused(archive: Path) -> None:
    data = archive.read_bytes()
    central = data.index(b"PK\x01\x02")
    archive.write_bytes(data[:central] + b"XXXX" + data[central + 4 :])
    with pytest.raises(SourceError, match=r"cannot be opened as a zip archive"):
        find_unlabelled([archive])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({6: 200}, "zip file version 20.0"),
        ({9: 0x08, 46: 0xFF}, "'utf-8' codec can't decode"),  # the flag of UTF-8 names
    ],
)
def test_an_unsupported_archive_is_refused(change: dict[int, int], reason: str, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the first of the directory
    for place, value in change.items():
        data[entry + place] = value
    archive.write_bytes(data)
    with pytest.raises(SourceError, match=rf"cannot be opened as a zip archive \({re.escape(reason)}"):
        find_unlabelled([archive])


def test_an_empty_path_is_not_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SourceError, match="empty path"):
        find_unlabelled([""])
    assert len(find_unlabelled(["."])) == 3
