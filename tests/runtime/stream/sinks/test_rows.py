"""Rows of a stream: their columns, rotation, and files of other versions. RowFile has tests of its own."""

import csv
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.errors import OutputError, UsageError
from msc_edge.runtime.results.result import NearestImage, Result
from msc_edge.runtime.stream.frame import Decision, Frame, Stages
from msc_edge.runtime.stream.sinks.rows import FRAME_FIELDS, FrameRows

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
NOON = datetime(2026, 11, 25, 13, 0, 0, 123987, tzinfo=timezone(timedelta(hours=1)))
HEADER = ",".join(field.name for field in FRAME_FIELDS).encode()
FINISHED = re.compile(r"rows\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}\.(csv|jsonl)")


def scored(id: str = "a1", **changes: object) -> Decision:
    fields = {"source": "cam", "index": 7, "time": NOON, "captured": 0.0, "image": None, "dropped": 2, "skipped": 3}
    result = Result(
        score=0.1234567,
        image_score=0.0333333,
        patch_score=1.25,
        p_value=1 / 13,
        verdict="reject",
        limit=0.05,
        regions=(AnomalousRegion(1, 2, 30, 40, 900, 1.25, 9, 8, 7, 6),),
        nearest_images=(NearestImage(4, "n.png", 0.1), NearestImage(1, "m.png", 0.2)),
        model="int8",
        kit="5a" * 32,
    )
    return Decision(id, Frame(**fields | changes), result, Stages(1.26, 20.0, 0.04, 21.3))  # pyright: ignore


def unreadable(id: str, path: str, error: str) -> Decision:
    return Decision(id, Frame("in", 8, NOON, 0.0, None, path=path, error=error), None, None)


def opened(path: Path, *, rotate_bytes: int = 10**8, keep: int = 3) -> FrameRows:
    return FrameRows(path, rotate_bytes=rotate_bytes, keep=keep)


def read(path: Path) -> list[dict[str, object]]:
    """As anybody's csv and json modules read it."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file, strict=True)]
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def ids(path: Path) -> list[object]:
    return [row["id"] for row in read(path)]


def finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if FINISHED.fullmatch(path.name))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestOneRow:
    def test_csv_to_the_byte(self, tmp_path):
        file = opened(tmp_path / "rows.csv")
        file.write(scored(path='b,"c".png', position=1.5, trigger="part-7"))
        file.write(unreadable("a2", "d.png", "the file is empty"))
        assert (tmp_path / "rows.csv").read_bytes().decode() == (
            "id,time,source,frame,path,position,trigger,score,image_score,patch_score,p_value,verdict,limit,regions,"
            "nearest,nearest_images,model,kit,score_to_limit,learned,learned_sha256,age_ms,infer_ms,search_ms,"
            "total_ms,dropped,skipped,error\n"
            'a1,2026-11-25T12:00:00.123Z,cam,7,"b,""c"".png",1.500,part-7,0.123457,0.033333,1.250000,0.076923,reject,'
            '0.050000,"[{""x"": 1, ""y"": 2, ""width"": 30, ""height"": 40, ""area"": 900, ""peak"": 1.25, '
            '""peak_x"": 9, ""peak_y"": 8, ""center_x"": 7, ""center_y"": 6}]",n.png,'
            '"[{""row"": 4, ""path"": ""n.png"", ""distance"": 0.1}, '
            '{""row"": 1, ""path"": ""m.png"", ""distance"": 0.2}]",'
            f"int8,{'5a' * 32},2.469,0,,1.3,20.0,0.0,21.3,2,3,\n"
            "a2,2026-11-25T12:00:00.123Z,in,8,d.png,,,,,,,,,,,,,,,,,,,,,0,0,the file is empty\n"
        )

    def test_json_to_the_byte(self, tmp_path):
        opened(tmp_path / "rows.jsonl").write(scored())
        assert (tmp_path / "rows.jsonl").read_bytes().decode() == (
            '{"id": "a1", "time": "2026-11-25T12:00:00.123Z", "source": "cam", "frame": 7, "path": null, '
            '"position": null, "trigger": null, "score": 0.123457, "image_score": 0.033333, "patch_score": 1.25, '
            '"p_value": 0.076923, "verdict": "reject", "limit": 0.05, '
            '"regions": [{"x": 1, "y": 2, "width": 30, "height": 40, "area": 900, '
            '"peak": 1.25, "peak_x": 9, "peak_y": 8, "center_x": 7, "center_y": 6}], '
            '"nearest": "n.png", "nearest_images": [{"row": 4, "path": "n.png", "distance": 0.1}, '
            f'{{"row": 1, "path": "m.png", "distance": 0.2}}], "model": "int8", "kit": "{"5a" * 32}", '
            '"score_to_limit": 2.469, "learned": 0, "learned_sha256": null, "age_ms": 1.3, "infer_ms": 20.0, '
            '"search_ms": 0.0, "total_ms": 21.3, "dropped": 2, "skipped": 3, "error": null}\n'
        )


@SUFFIXES
def test_names_with_line_breaks_are_kept_also_when_the_file_is_opened_again(tmp_path, suffix):
    names = ["a\nb.png", "c\rd.png", "e\r\nf.png", 'q"\n".png', "end\n"]
    target = tmp_path / f"rows{suffix}"
    for number, name in enumerate(names):
        file = opened(target)
        file.write(scored(f"a{number}", path=name))
        file.write(unreadable(f"b{number}", name, f"{name} is broken"))
        file.close()
    rows = read(target)
    assert [(row["id"], row["path"]) for row in rows] == [
        (f"{kind}{number}", name) for number, name in enumerate(names) for kind in "ab"
    ]
    assert [row["error"] for row in rows if row["error"]] == [f"{name} is broken" for name in names]


class TestOpening:
    @pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.json", ".csv"])
    def test_another_suffix_is_refused_by_naming_the_two(self, tmp_path, name):
        with pytest.raises(UsageError, match=r"\.csv or \.jsonl"):
            opened(tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("rows.csv", b"name;price\n"),
            ("rows.csv", HEADER + b"\r\n1,2\r\n"),
            ("rows.csv", HEADER + b'\n"' + b"1,2\n" * 300_000),
            ("rows.jsonl", b'{"path": "a.png"}\n'),
            ("rows.jsonl", b'{"id": "5", "price": 3}\n{"id": "6", "price": 4}\n'),
            ("rows.jsonl", b'{"id": "5", "price": 3}'),
            ("rows.jsonl", b"\x89PNG\r\n"),
        ],
    )
    def test_a_file_of_another_kind_is_refused_and_left_as_it_is(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=r"not a row file.*move the file away"):
            opened(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content

    @SUFFIXES
    def test_a_file_of_another_version_is_renamed_and_logged_and_a_new_one_begins(
        self, written_by_0_1_0, tmp_path, suffix, caplog
    ):
        target = tmp_path / f"rows{suffix}"
        shutil.copyfile(written_by_0_1_0 / f"rows{suffix}", target)
        before = target.read_bytes()
        with caplog.at_level(logging.WARNING):
            file = opened(target, keep=1)
        file.write(scored("new"))
        (aside,) = set(tmp_path.iterdir()) - {target}
        assert aside.read_bytes() == before
        assert ids(target) == ["new"]
        assert str(aside) in caplog.text

    @SUFFIXES
    def test_a_file_of_another_version_stays_however_few_finished_files_are_kept(
        self, written_by_0_1_0, tmp_path, suffix
    ):
        target = tmp_path / f"rows{suffix}"
        shutil.copyfile(written_by_0_1_0 / f"rows{suffix}", target)
        file = opened(target, rotate_bytes=100, keep=1)
        for number in range(5):
            file.write(scored(str(number)))
        assert len(list(tmp_path.glob("*.other-columns*"))) == 1
        assert len(finished(tmp_path)) == 1

    @SUFFIXES
    def test_what_was_written_before_a_restart_is_known(self, tmp_path, suffix):
        target = tmp_path / f"rows{suffix}"
        file = opened(target, rotate_bytes=3000)
        assert not file.has("0")
        for number in range(40):
            file.write(scored(str(number)))
            assert file.has(str(number))
        files = [*finished(tmp_path), target]
        again = opened(target, rotate_bytes=3000)
        # Those of the current file and of the one before, whichever of the two a crash came after.
        for id in ids(files[-1]) + ids(files[-2]):
            assert again.has(str(id))
        assert not again.has("40")

    def test_the_last_thousand_are_known(self, tmp_path):
        file = opened(tmp_path / "rows.jsonl")
        for number in range(1100):
            file.write(scored(str(number)))
        again = opened(tmp_path / "rows.jsonl")
        for each in (file, again):
            assert each.has("1099")
            assert each.has("100")
            assert not each.has("99")


class TestRotation:
    @SUFFIXES
    def test_several_threads_lose_no_row_and_write_none_twice(self, tmp_path, suffix):
        target = tmp_path / f"rows{suffix}"
        file = opened(target, rotate_bytes=4000, keep=1000)
        threads = [
            threading.Thread(target=lambda name=name: [file.write(scored(f"{name}-{each}")) for each in range(200)])
            for name in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        files = [*finished(tmp_path), target]
        assert len(files) > 10
        assert set(files) == set(tmp_path.iterdir())
        assert all(path.stat().st_size <= 4000 for path in files)
        # Also in the order of each thread, over all files by their names.
        written = [str(id) for path in files for id in ids(path)]
        for name in range(4):
            assert [id for id in written if id.startswith(f"{name}-")] == [f"{name}-{each}" for each in range(200)]
        assert len(written) == 800

    @SUFFIXES
    def test_the_newest_are_kept_and_other_files_are_left_alone(self, tmp_path, suffix):
        target = tmp_path / f"rows{suffix}"
        others = [
            f"rows.2020-01-01T00-00-00-000{suffix}.gz",
            f"rows.old{suffix}",
            f"rows.2020-01-01{suffix}",
            f"rows.2020-13-41T00-00-00-000{suffix}",
            f"other.2020-01-01T00-00-00-000{suffix}",
            f"rowsX2020-01-01T00-00-00-000{suffix}",
        ]
        for name in others:
            (tmp_path / name).touch()
        (tmp_path / f"rows.2020-01-01T00-00-00-001{suffix}").mkdir()
        oldest = tmp_path / f"rows.2020-01-01T00-00-00-000{suffix}"
        oldest.touch()
        file = opened(target, rotate_bytes=1000, keep=2)
        for number in range(40):
            file.write(scored(str(number)))
        assert not oldest.exists()
        assert all((tmp_path / name).exists() for name in others)
        kept = [path for path in finished(tmp_path) if path.is_file() and path.name not in others]
        assert len(kept) == 2
        together = [str(id) for path in [*kept, target] for id in ids(path)]
        assert together == [str(number) for number in range(40 - len(together), 40)]

    def test_a_clock_that_was_set_back_does_not_make_the_newest_the_oldest(self, tmp_path):
        future = tmp_path / "rows.2099-12-31T23-59-59-999.jsonl"
        future.touch()
        file = opened(tmp_path / "rows.jsonl", rotate_bytes=100, keep=2)
        file.write(scored("first"))
        file.write(scored("second"))
        assert [path.name for path in finished(tmp_path)] == [future.name, "rows.2100-01-01T00-00-00-000.jsonl"]
        file.write(scored("third"))
        assert [id for path in finished(tmp_path) for id in ids(path)] == ["first", "second"]

    def test_a_row_larger_than_the_limit_is_written_nevertheless(self, tmp_path):
        file = opened(tmp_path / "rows.csv", rotate_bytes=10, keep=9)
        file.write(scored("1"))
        file.write(scored("2"))
        assert [id for path in [*finished(tmp_path), tmp_path / "rows.csv"] for id in ids(path)] == ["1", "2"]

    def test_the_name_says_when_in_utc(self, tmp_path):
        file = opened(tmp_path / "rows.csv", rotate_bytes=10)
        before = datetime.now(UTC).replace(tzinfo=None) - timedelta(milliseconds=1)
        file.write(scored("1"))
        file.write(scored("2"))
        (path,) = finished(tmp_path)
        assert (
            before
            <= datetime.strptime(path.stem, "rows.%Y-%m-%dT%H-%M-%S-%f")
            <= datetime.now(UTC).replace(tzinfo=None)
        )


@SUFFIXES
def test_a_file_that_was_moved_or_removed_is_begun_anew(tmp_path, suffix):
    target = tmp_path / "folder" / f"rows{suffix}"
    file = opened(target)
    file.write(scored("1"))
    target.rename(tmp_path / f"moved{suffix}")
    file.write(scored("2"))
    shutil.rmtree(target.parent)
    file.write(scored("3"))
    assert ids(tmp_path / f"moved{suffix}") == ["1"]
    assert ids(target) == ["3"]


def test_a_file_of_another_kind_put_in_its_place_is_left_alone(tmp_path):
    target = tmp_path / "rows.csv"
    file = opened(target)
    file.write(scored("1"))
    target.unlink()
    target.write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="not a row file"):
        file.write(scored("2"))
    assert target.read_text() == "a,b\n1,2\n"
    target.unlink()
    file.write(scored("3"))
    assert ids(target) == ["3"]


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of 64 kB."""
    return disk_of("64k")


class TestFullDisk:
    @SUFFIXES
    @pytest.mark.parametrize("rotate_bytes", [10**6, 5000])
    def test_whole_rows_stay_and_writing_goes_on_once_there_is_space(self, small_disk, suffix, rotate_bytes):
        target, ballast = small_disk / f"rows{suffix}", small_disk / "ballast"
        ballast.write_bytes(bytes(45_000))
        file = opened(target, rotate_bytes=rotate_bytes, keep=1000)
        written = []

        def write(id: str) -> None:
            file.write(scored(id), durable=id.endswith("7"))
            written.append(id)

        with pytest.raises(OutputError, match="No space left on device; free some space"):  # noqa: PT012
            for number in range(10**6):
                write(f"before {number}")
        assert len(written) > 10
        assert not file.has(f"before {len(written)}")
        for number in range(20):
            with suppress(OutputError):  # a short row may still fit
                write(f"meanwhile {number}")
        ballast.unlink()
        for number in range(20):
            write(f"after {number}")
        assert [id for path in [*finished(small_disk), target] for id in ids(path)] == written

    def test_a_stream_may_start_while_the_disk_is_full(self, small_disk):
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(100_000))
        file = opened(small_disk / "rows.csv")
        with pytest.raises(OutputError):
            file.write(scored("1"))
        ballast.unlink()
        file.write(scored("2"))
        assert ids(small_disk / "rows.csv") == ["2"]


WRITER = """
import sys, itertools
from datetime import UTC, datetime
from pathlib import Path
from msc_edge.runtime.stream.frame import Decision, Frame
from msc_edge.runtime.stream.sinks.rows import FrameRows

file = FrameRows(Path(sys.argv[1]), rotate_bytes=200_000, keep=1000)
for number in itertools.count(int(sys.argv[2])):
    frame = Frame("in", number, datetime.now(UTC), 0.0, None, path="x,\\n" * 300, error="broken")
    file.write(Decision(str(number), frame, None, None))
"""


@SUFFIXES
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_leaves_whole_rows_and_the_next_one_goes_on(tmp_path, suffix):
    target = tmp_path / f"rows{suffix}"
    begin = 0
    for grown in (0, 300_000, 600_000):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target), str(begin)])
        try:
            until(lambda grown=grown: sum(path.stat().st_size for path in finished(tmp_path)) > grown + 300_000)
        finally:
            writer.kill()
            writer.wait()
        file = opened(target, rotate_bytes=200_000, keep=1000)
        begin = sum(len(ids(path)) for path in [*finished(tmp_path), target])
        assert file.has(str(begin - 1))
        assert not file.has(str(begin))
        file.close()
    together = [id for path in [*finished(tmp_path), target] for id in ids(path)]
    assert together == [str(number) for number in range(len(together))]
