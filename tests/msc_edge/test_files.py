import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msc_edge.errors import OutputError, SourceError, UsageError
from msc_edge.files import folder_written_whole, kind_of, open_regular, sha256_of, written_whole

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")


def contents(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden or not: files with their text, folders as `/`."""
    return {
        path.relative_to(folder).as_posix(): "/" if path.is_dir() else path.read_text() for path in folder.rglob("*")
    }


# --- opening ---------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket", "dangling link", "link to a pipe", "missing"])
@pytest.mark.parametrize("opened", [open_regular, sha256_of])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str, opened: Callable) -> None:
    path = tmp_path / "part.png"
    if kind in ("pipe", "link to a pipe"):
        os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind(str(path))
        elif kind == "folder":
            path.mkdir()
        elif kind != "missing":
            targets = {"device": "/dev/zero", "dangling link": tmp_path / "gone"}
            path.symlink_to(targets.get(kind, tmp_path / "pipe"))
        with pytest.raises(OSError, match=r"not a regular file|No such file"):
            opened(path)


def test_a_regular_file_is_opened_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(b"\r\n\x1a pixels")
    (tmp_path / "link.png").symlink_to(tmp_path / "part.png")
    for name in ("part.png", "link.png"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"\r\n\x1a pixels"


# --- kind of a path --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("file", "file", ""),
        ("folder", "folder", ""),
        ("link to folder", "folder", ""),
        ("dangling", None, "No such file or directory"),
        ("nowhere", None, "No such file or directory"),
        ("file/below", None, "Not a directory"),
        ("x" * 300, None, "File name too long"),
        ("a\0b", None, "embedded null byte"),
    ],
)
def test_a_path_is_a_file_a_folder_or_neither_with_a_reason(
    name: str, kind: str | None, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link to folder").symlink_to(tmp_path / "folder", target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert kind_of(tmp_path / name) == (kind, reason)


# --- hashing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),  # FIPS 180-2, B.1
        (b"a" * 10**6, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),  # FIPS 180-2, B.3
    ],
    ids=["empty", "abc", "a million a's"],
)
def test_sha256_of_the_examples_of_the_standard(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sha256_of(path) == expected


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20]), st.binary(min_size=1, max_size=9))
def test_sha256_of_files_about_as_long_as_a_chunk(
    tmp_path_factory: pytest.TempPathFactory, size: int, pattern: bytes
) -> None:
    content = (pattern * (size // len(pattern) + 1))[:size]
    path = tmp_path_factory.getbasetemp() / "file"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_file_appears_with_its_folders_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "scores.csv"
    with written_whole(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert contents(tmp_path) == {"new": "/", "new/folder": "/", "new/folder/scores.csv": "whole"}


def test_an_existing_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")
    with written_whole(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert contents(tmp_path) == {"scores.csv": "new"}


@POSIX
def test_a_reader_of_the_old_file_keeps_all_of_it(tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old and long")
    with target.open() as reader:
        with written_whole(target) as partial:
            partial.write_text("new")
        assert reader.read() == "old and long"


class UnexpectedError(Exception):
    pass


@pytest.mark.parametrize("failure", [UnexpectedError, KeyboardInterrupt, SystemExit, SourceError, OutputError])
def test_on_any_exception_the_old_file_stays_and_nothing_is_left_behind(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    target = tmp_path / "scores.csv"
    target.write_text("old")

    def write() -> None:
        with written_whole(target) as partial:
            partial.write_text("half")
            raise failure("stop")

    with pytest.raises(failure):
        write()
    assert contents(tmp_path) == {"scores.csv": "old"}


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*scores\.csv"), written_whole(tmp_path / "scores.csv"):
        pass
    assert contents(tmp_path) == {"scores.csv": "/"}


def test_a_folder_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(OutputError, match="cannot write"), written_whole(tmp_path / "notes" / "scores.csv"):
        pass
    with pytest.raises(OutputError, match="cannot write"), folder_written_whole(tmp_path / "notes" / "kit"):
        pass


@pytest.mark.parametrize("name", ["größe.csv", "🔩" * 60 + ".csv", "x" * 250 + ".csv", ".hidden", "a b"])
@pytest.mark.parametrize("writing", [written_whole, folder_written_whole])
def test_names_of_any_script_and_length(
    tmp_path: Path, writing: Callable[[Path], AbstractContextManager[Path]], name: str
) -> None:
    with writing(tmp_path / name) as partial:
        (partial / "x" if partial.is_dir() else partial).write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("writing", [written_whole, folder_written_whole])
def test_a_name_that_is_too_long_is_an_output_error(
    tmp_path: Path, writing: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(OutputError, match="choose a shorter path"), writing(tmp_path / ("x" * 300)):
        pass
    assert contents(tmp_path) == {}


@POSIX
@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_permissions_of_results_follow_the_umask(tmp_path: Path, mask: int, file_mode: int, folder_mode: int) -> None:
    before = os.umask(mask)
    try:
        with written_whole(tmp_path / "scores.csv") as partial:
            partial.write_text("new")
        with folder_written_whole(tmp_path / "kit"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores.csv").stat().st_mode) == file_mode
    assert stat.S_IMODE((tmp_path / "kit").stat().st_mode) == folder_mode


# --- a folder --------------------------------------------------------------------------------------------------------


def fill(folder: Path, text: str) -> None:
    (folder / "sub").mkdir()
    (folder / "model").write_text(text)
    (folder / "sub" / "bank").write_text(text)


FILLED = {"kit": "/", "kit/sub": "/", "kit/model": "new", "kit/sub/bank": "new"}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("target", ["kit", "deep/er/kit"])
def test_a_folder_appears_whole(tmp_path: Path, target: str, replace: bool) -> None:
    with folder_written_whole(tmp_path / target, replace=replace) as partial:
        fill(partial, "new")
        assert not (tmp_path / target).exists()
    assert contents((tmp_path / target).parent) == FILLED


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    with folder_written_whole(tmp_path / "kit") as partial:
        fill(partial, "new")
    assert contents(tmp_path) == FILLED


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "old").write_text("old")


def make_file(path: Path) -> None:
    path.write_text("old")


def make_link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    make_folder(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [make_folder, make_file])
def test_an_existing_target_is_kept_without_replace(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "kit")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"kit exists already; .*--overwrite"), folder_written_whole(tmp_path / "kit"):
        pytest.fail("the work was started")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("make", [make_folder, make_file, make_link])
def test_an_existing_target_is_replaced_as_a_whole(tmp_path: Path, make: Callable[[Path], None]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    try:
        make(here / "kit")
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    with folder_written_whole(here / "kit", replace=True) as partial:
        fill(partial, "new")
        assert (here / "kit").exists()
    assert contents(here) == FILLED
    assert not (here / "kit").is_symlink()
    if make is make_link:
        assert contents(tmp_path / "elsewhere") == {"old": "old"}, "the target of the link must stay"


@pytest.mark.parametrize("failure", [UnexpectedError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("replace", [False, True])
def test_on_any_exception_the_old_folder_stays_and_nothing_is_left_behind(
    tmp_path: Path, replace: bool, failure: type[BaseException]
) -> None:
    if replace:
        make_folder(tmp_path / "kit")
    before = contents(tmp_path)

    def write() -> None:
        with folder_written_whole(tmp_path / "kit", replace=replace) as partial:
            fill(partial, "half")
            raise failure("stop")

    with pytest.raises(OutputError if failure is OSError else failure):
        write()
    assert contents(tmp_path) == before


def test_the_old_folder_comes_back_when_the_new_one_was_removed(tmp_path: Path) -> None:
    make_folder(tmp_path / "kit")
    with pytest.raises(OutputError), folder_written_whole(tmp_path / "kit", replace=True) as partial:
        partial.rmdir()
    assert contents(tmp_path) == {"kit": "/", "kit/old": "old"}


def test_the_working_folder_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_text("old")
    with pytest.raises(OutputError), folder_written_whole(Path(), replace=True):
        pass
    assert contents(tmp_path) == {"precious": "old"}


# --- killed processes, full disks, missing permissions ---------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from msc_edge.files import folder_written_whole, written_whole

target = Path(sys.argv[1])

def die():
    os.kill(os.getpid(), signal.SIGKILL) if hasattr(signal, "SIGKILL") else os._exit(9)

if target.suffix:
    with written_whole(target) as partial:
        partial.write_text("half")
        die()
else:
    with folder_written_whole(target, replace=True) as partial:
        (partial / "model").write_text("half")
        die()
"""


@pytest.mark.parametrize("name", ["scores.csv", "kit"])
@pytest.mark.parametrize("present", [True, False])
def test_a_killed_process_changes_nothing(tmp_path: Path, name: str, present: bool) -> None:
    target = tmp_path / name
    if present:
        (make_file if target.suffix else make_folder)(target)
    before = contents(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], timeout=60, check=False)
    assert done.returncode != 0
    visible = {path: text for path, text in contents(tmp_path).items() if not path.startswith(".")}
    assert visible == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root on Linux can mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "msc-edge-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_output_error_and_the_old_file_stays(small_disk: Path) -> None:
    target = small_disk / "scores.csv"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"scores\.csv: No space left on device; free some space"):  # noqa: SIM117
        with written_whole(target) as partial:
            partial.write_bytes(bytes(200_000))
    assert contents(small_disk) == {"scores.csv": "old"}


def test_a_full_disk_is_one_output_error_and_the_old_folder_stays(small_disk: Path) -> None:
    make_folder(small_disk / "kit")
    with pytest.raises(OutputError, match="No space left on device; free some space"):  # noqa: SIM117
        with folder_written_whole(small_disk / "kit", replace=True) as partial:
            (partial / "model").write_bytes(bytes(200_000))
    assert contents(small_disk) == {"kit": "/", "kit/old": "old"}


@pytest.mark.usefixtures("enforced_permissions")
@pytest.mark.parametrize("mode", [0o555, 0o000])
@pytest.mark.parametrize("writing", [written_whole, folder_written_whole])
def test_missing_permission_to_write_is_an_output_error(
    tmp_path: Path, writing: Callable[[Path], AbstractContextManager[Path]], mode: int
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(mode)
    try:
        with pytest.raises(OutputError, match="Permission denied; choose a place"), writing(closed / "new"):
            pass
    finally:
        closed.chmod(0o700)
