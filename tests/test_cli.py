"""`msc-edge` as it is run at the line: processes, signals, pipes, terminals and full disks.

A fact that needs no process of its own is checked in this one, through `invoke`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import onnx
import pytest
from onnx import TensorProto
from typer.testing import CliRunner, Result

from msc_edge import __version__
from msc_edge.cli import app
from msc_edge.kit.layout import MANIFEST, MODEL_FILES
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.runtime.results.image_result import IMAGE_FIELDS, read_score_file

MSC_EDGE = shutil.which("msc-edge", path=Path(sys.executable).parent) or "msc-edge"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")
MANY = 40


def invoke(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    settings = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120, **options}
    return subprocess.run([MSC_EDGE, *map(str, arguments)], check=False, **settings)  # pyright: ignore[reportCallIssue, reportArgumentType]


def error_line(done: subprocess.CompletedProcess[str] | Result, code: int) -> str:
    """The only line that a failed command prints on standard error."""
    found = done.exit_code if isinstance(done, Result) else done.returncode
    assert (found, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def without_times(path: Path) -> list[tuple]:
    return [(image.path, image.result, image.error) for image in read_score_file(path)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, toy: ModuleType, save: Callable) -> Path:
    """Enough images, and large enough ones, to stop a run in the middle."""
    folder = tmp_path_factory.mktemp("many")
    first = save(folder / "000.png", toy.draw(100).repeat(14, axis=0).repeat(14, axis=1))
    for number in range(1, MANY):
        os.link(first, folder / f"{number:03d}.png")
    return folder


class TestCommandLine:
    def test_the_version(self):
        assert run("--version").stdout == f"msc-edge {__version__}\n"

    def test_python_m_is_the_same(self):
        command = [sys.executable, "-m", "msc_edge", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"msc-edge {__version__}\n"

    def test_help_lists_the_commands(self):
        listed = invoke("--help").stdout
        for command in ("train", "export", "score", "info", "verify", "upgrade", "calibrate", "stream", "benchmark"):
            assert f" {command} " in listed
        assert " score " in invoke().output

    def test_a_command_explains_its_exit_codes(self):
        assert "130" in invoke("score", "--help").stdout

    def test_help_loads_no_large_package(self):
        """Importing numpy, OpenCV, onnxruntime and pydantic takes longer than a user should wait for --help."""
        program = (
            "import sys; from msc_edge.cli import app; app(['--help'], standalone_mode=False)\n"
            "large = ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'torch', 'onnx', 'lightning')\n"
            "print('loaded:', [name for name in large if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "loaded: []"

    def test_a_mistyped_command_is_a_usage_error(self):
        done = invoke("scor")
        assert done.exit_code == 2
        assert "score" in done.stderr


class TestKits:
    """Exit code 4 and one line. tests/runtime/test_damaged_kits.py damages kits in many more ways."""

    @pytest.mark.parametrize(
        ("command", "name"),
        [
            ("score", "manifest.json"),
            ("score", "manifest.sha256"),
            ("score", "model.onnx"),
            ("score", "bank.npy"),
            ("score", "bank.hnsw"),
            ("score", "thumbnails/00004.jpg"),
            ("info", "model.onnx"),
            ("verify", "bank.hnsw"),
        ],
    )
    def test_a_changed_byte(self, kit, photos, change_byte, command, name):
        change_byte(kit / name, (kit / name).stat().st_size // 2)
        done = invoke(command, kit, *([photos] if command == "score" else []))
        assert name.partition(".")[0] in error_line(done, 4)
        assert done.stdout == ""

    def test_external_data(self, kit, photos):
        path = kit / MODEL_FILES["fp32"]
        model = onnx.load(path)
        tensor = model.graph.initializer[1]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        path.write_bytes(model.SerializeToString())
        seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
        assert "external data" in error_line(run("score", kit, photos), 4)

    def test_no_kit(self, photos, tmp_path):
        path = tmp_path / "none [red]x[/red]"
        assert f"{path}: cannot be opened" in error_line(invoke("score", path, photos), 4)
        assert f"{path}: cannot be opened" in error_line(invoke("verify", path), 4)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (("score", "kit", "images", "--out", ""), "--out"),
            (("score", "kit", "images", "--out="), "--out"),
            (("capture", "", "--out", "parts"), "capture"),
            (("train", "--normal", "parts", "--out", "run", "--region", ""), "--region"),
            (("",), "the command"),
        ],
    )
    def test_an_empty_argument_is_refused_before_anything_is_done(self, arguments, name, tmp_path):
        """`--out "$DIR"`, where DIR is not set, would be the current folder."""
        line = error_line(run(*arguments, cwd=tmp_path), 2).strip()
        assert line == f"error: {name}: what follows is empty, perhaps from a variable that is not set; give a value"
        assert not any(tmp_path.iterdir())

    def test_a_line_end_in_a_name_does_not_break_the_line(self, toy_kit):
        assert "a\\nb\\x1b[31m" in error_line(invoke("score", toy_kit, "a\nb\x1b[31m"), 3)

    def test_no_line_is_wrapped(self, toy_kit):
        assert "x" * 230 in error_line(invoke("score", toy_kit, "x" * 230), 3)

    def test_a_bug_prints_its_traceback_and_has_an_exit_code_of_its_own(self, toy_kit, photos, tmp_path):
        # A package on the path that replaces onnxruntime and fails.
        (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('a bug')")
        done = run("score", toy_kit, photos, env=os.environ | with_path(tmp_path))
        assert done.returncode == 70
        assert done.stderr.startswith("Traceback")
        assert "RuntimeError: a bug" in done.stderr

    def test_a_missing_extra_is_named(self, photos, tmp_path):
        (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('none', name='torch')")
        done = run("train", "--normal", photos, "--out", tmp_path / "run", env=os.environ | with_path(tmp_path))
        assert "pip install 'msc-edge[train]'" in error_line(done, 2)

    def test_the_extra_for_an_index_is_named(self, toy_kit, photos, monkeypatch):
        monkeypatch.setitem(sys.modules, "hnswlib", None)
        assert "pip install 'msc-edge[hnsw]'" in error_line(invoke("score", toy_kit, photos, "--search", "hnsw"), 2)


def with_path(folder: Path) -> dict[str, str]:
    """The environment variable that makes Python search `folder` first."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])}


class TestOutput:
    @POSIX
    def test_a_closed_pipe_is_no_error(self, toy_kit, photos):
        command = f"'{MSC_EDGE}' score '{toy_kit}' '{photos}' --quiet; echo $? >&2"
        with subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == "141\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("command", ["score", "info"])
    def test_a_full_disk_behind_standard_output_is_an_error(self, toy_kit, photos, command):
        with Path("/dev/full").open("w") as full:
            arguments = [command, toy_kit, *([photos, "--quiet"] if command == "score" else [])]
            done = run(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert "No space left" in error_line(done, 5)

    @pytest.mark.parametrize("setting", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
    def test_names_that_the_encoding_of_the_terminal_lacks(self, toy_kit, toy, save, tmp_path, setting):
        save(tmp_path / "日本 ü.png", toy.draw(100))
        (tmp_path / "空.png").touch()
        done = run("score", toy_kit, tmp_path, env={**os.environ, **setting}, text=False, encoding=None)
        assert done.returncode == 0
        # Rows are data: the same bytes as in a file of --out. In messages such characters become escapes.
        assert "日本 ü.png".encode() in bytes(done.stdout)  # pyright: ignore[reportArgumentType]
        error_line(run("info", tmp_path / "無", env={**os.environ, **setting}), 4)

    @POSIX
    def test_closed_streams(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        command = f"'{MSC_EDGE}' score '{toy_kit}' '{photos}' --out '{out}' >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
        assert len(list(read_score_file(out))) == 12

    @POSIX
    def test_a_terminal_shows_the_most_anomalous_images_and_no_rows(self, toy_kit, photos):
        program = f"import pty, sys, os; sys.exit(os.waitstatus_to_exitcode(pty.spawn({[MSC_EDGE]!r} + sys.argv[1:])))"
        done = subprocess.run(
            [sys.executable, "-c", program, "score", str(toy_kit), str(photos)],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "150", "TERM": "xterm"},
        )
        text = done.stdout.decode()
        assert done.returncode == 0
        assert "Most anomalous first" in text
        assert "scoring" in text
        assert ",".join(field.name for field in IMAGE_FIELDS) not in text
        assert "12 images in" in text


def stopped_in_the_middle(kit: Path, images: Path, out: Path, number: int) -> subprocess.CompletedProcess[str]:
    """Send a signal as soon as a few rows are written."""
    command = [MSC_EDGE, "score", str(kit), str(images), "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists() or out.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, "the run ended before it could be stopped"
            time.sleep(0.005)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def uninterrupted(toy_kit: Path, many: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple]:
    """The rows of a run that was not stopped."""
    out = tmp_path_factory.mktemp("uninterrupted") / "s.csv"
    assert invoke("score", toy_kit, many, "--out", out).exit_code == 0
    return without_times(out)


@POSIX
class TestStopped:
    @pytest.mark.parametrize(
        ("number", "code", "suffix"), [("SIGINT", 130, ".csv"), ("SIGTERM", 143, ".jsonl"), ("SIGKILL", -9, ".csv")]
    )
    def test_a_stopped_run_keeps_its_rows_and_can_be_continued(
        self, toy_kit, many, tmp_path, uninterrupted, suffix, number, code
    ):
        out = tmp_path / f"s{suffix}"
        done = stopped_in_the_middle(toy_kit, many, out, getattr(signal, number))
        assert done.returncode == code
        rows = len(list(read_score_file(out)))
        assert 0 < rows < MANY
        if number != "SIGKILL":
            assert done.stderr == f"stopped: {rows} rows are in {out}; --resume continues there\n"
            assert out.read_bytes().endswith(b"\n")
        assert invoke("score", toy_kit, many, "--out", out, "--resume").exit_code == 0
        assert without_times(out) == uninterrupted

    def test_a_file_that_cannot_grow_keeps_whole_rows_and_the_run_can_be_continued(
        self, toy_kit, many, tmp_path, uninterrupted
    ):
        out = tmp_path / "s.csv"
        # The largest file that the shell's children may write: 4 blocks of 512 or 1024 bytes.
        command = f"ulimit -f 4; exec '{MSC_EDGE}' score '{toy_kit}' '{many}' --out '{out}' --quiet"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert f"cannot write {out}" in error_line(done, 5)
        assert out.read_bytes().endswith(b"\n")
        assert 0 < len(list(read_score_file(out))) < MANY
        assert invoke("score", toy_kit, many, "--out", out, "--resume").exit_code == 0
        assert without_times(out) == uninterrupted

    def test_a_full_disk_keeps_whole_rows(self, toy_kit, many, tmp_path, uninterrupted):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            (disk / "ballast").write_bytes(bytes(4096))
            out = disk / "s.csv"
            line = error_line(invoke("score", toy_kit, many, "--out", out, "--quiet"), 5)
            assert f"cannot write {out}: No space left on device; free some space" in line
            assert out.read_bytes().endswith(b"\n")
            (disk / "ballast").unlink()
            kept = without_times(out)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        assert kept == uninterrupted[: len(kept)]
        assert kept


@POSIX
@pytest.mark.parametrize("delay", [0.05, 0.2, 0.45])
def test_a_stop_at_any_moment_never_looks_like_an_anomaly(delay: float, toy_kit: Path, many: Path, tmp_path: Path):
    """143, or the signal itself before Python has started, and no traceback, whatever is imported at that moment."""
    command = [MSC_EDGE, "score", str(toy_kit), str(many), "--out", str(tmp_path / "s.csv"), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert "Traceback" not in stderr
