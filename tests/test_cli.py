"""`msc-edge` as it is run at the line: processes, signals, pipes, terminals and full disks."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from msc_edge import __version__
from msc_edge.kit.layout import MANIFEST, MODEL
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.opening import seal
from msc_edge.runtime.results.rows import COLUMNS, read_rows

MSC_EDGE = shutil.which("msc-edge", path=Path(sys.executable).parent) or "msc-edge"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")
MANY = 80


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120, **options}
    return subprocess.run([MSC_EDGE, *map(str, arguments)], check=False, **settings)  # pyright: ignore[reportCallIssue, reportArgumentType]


def one_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a failed command may say."""
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def without_times(path: Path) -> list[tuple]:
    return [(row.path, row.score, row.p_value, row.verdict, row.nearest, row.error) for row in read_rows(path)]


@pytest.fixture(scope="module")
def many(tmp_path_factory, toy, save) -> Path:
    """So many images, and so large, that a run can be stopped in the middle."""
    folder = tmp_path_factory.mktemp("many")
    one = save(folder / "000.png", toy.draw(100).repeat(14, axis=0).repeat(14, axis=1))
    for number in range(1, MANY):
        os.link(one, folder / f"{number:03d}.png")
    return folder


class TestRoof:
    def test_version(self):
        assert run("--version").stdout == f"msc-edge {__version__}\n"

    def test_help_lists_the_commands_and_no_arguments_are_a_request_for_help(self):
        listed = run("--help").stdout
        for command in ("train", "export", "score", "info", "verify"):
            assert f" {command} " in listed
        assert " score " in run().stdout

    def test_a_command_explains_its_exit_codes(self):
        assert "130" in run("score", "--help").stdout

    def test_help_loads_nothing_heavy(self):
        """Loading numpy, OpenCV, onnxruntime and pydantic alone takes longer than an operator's patience."""
        program = (
            "import sys; from msc_edge.cli import app; app(['--help'], standalone_mode=False)\n"
            "heavy = ('numpy', 'cv2', 'onnxruntime', 'pydantic', 'torch', 'onnx', 'lightning')\n"
            "print('loaded:', [name for name in heavy if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "loaded: []"

    def test_python_m_is_the_same(self):
        command = [sys.executable, "-m", "msc_edge", "--version"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == run("--version").stdout

    def test_a_mistyped_command_is_usage(self):
        done = run("scor")
        assert done.returncode == 2
        assert "score" in done.stderr


class TestKits:
    """Exit code 4 and one line, from the outside; tests/runtime/test_damaged_kits.py does it a thousand times."""

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
    def test_a_changed_byte(self, kit, photos, command, name):
        data = bytearray((kit / name).read_bytes())
        data[len(data) // 2] ^= 0x10
        (kit / name).write_bytes(data)
        done = run(command, kit, *([photos] if command == "score" else []))
        assert name.partition(".")[0] in one_error(done, 4)
        assert done.stdout == ""

    def test_external_data(self, kit, photos):
        model = onnx.load(kit / MODEL)
        tensor = model.graph.initializer[1]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        (kit / MODEL).write_bytes(model.SerializeToString())
        seal(kit, parse_manifest((kit / MANIFEST).read_bytes()))
        assert "external data" in one_error(run("score", kit, photos), 4)

    def test_no_kit_at_all(self, photos, tmp_path):
        assert "no kit" in one_error(run("score", tmp_path / "none [red]x[/red]", photos), 4)
        assert "none [red]x[/red]" in one_error(run("verify", tmp_path / "none [red]x[/red]"), 4)


class TestErrors:
    def test_a_line_end_in_a_name_does_not_break_the_line(self, toy_kit):
        assert "a\\nb\\x1b[31m" in one_error(run("score", toy_kit, "a\nb\x1b[31m"), 3)

    def test_no_line_is_wrapped(self, toy_kit):
        assert "x" * 230 in one_error(run("score", toy_kit, "x" * 230), 3)

    def test_a_defect_of_msc_edge_shows_its_traceback_and_is_not_taken_for_an_anomaly(self, toy_kit, photos, tmp_path):
        # A package on the path that shadows onnxruntime and fails is as good as a defect.
        (tmp_path / "onnxruntime.py").write_text("raise RuntimeError('a defect')")
        done = run("score", toy_kit, photos, env={**os.environ, "PYTHONPATH": str(tmp_path)})
        assert done.returncode == 70
        assert done.stderr.startswith("Traceback")
        assert "RuntimeError: a defect" in done.stderr

    @pytest.mark.parametrize("package", ["torch", "hnswlib"])
    def test_a_missing_extra_is_named(self, toy_kit, photos, tmp_path, package):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('none', name='{package}')")
        arguments = {
            "torch": ["train", "--normal", photos, "--out", tmp_path / "run"],
            "hnswlib": ["score", toy_kit, photos, "--search", "hnsw"],
        }[package]
        line = one_error(run(*arguments, env={**os.environ, "PYTHONPATH": str(tmp_path)}), 2)
        assert f"pip install 'msc-edge[{'train' if package == 'torch' else 'hnsw'}]'" in line


class TestStreams:
    @POSIX
    def test_a_reader_that_has_gone_is_no_error(self, toy_kit, photos):
        command = f"'{MSC_EDGE}' score '{toy_kit}' '{photos}' --quiet; echo $? >&2"
        with subprocess.Popen(
            ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == "141\n"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize("command", ["score", "info", "verify"])
    def test_output_that_cannot_be_printed(self, toy_kit, photos, command):
        with Path("/dev/full").open("w") as full:
            arguments = [command, toy_kit, *([photos, "--quiet"] if command == "score" else [])]
            done = run(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert "No space left" in one_error(done, 5)

    @pytest.mark.parametrize(
        "setting", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
    )
    def test_names_that_the_encoding_lacks(self, toy_kit, toy, save, tmp_path, setting):
        save(tmp_path / "日本 ü.png", toy.draw(100))
        (tmp_path / "空.png").touch()
        done = run("score", toy_kit, tmp_path, env={**os.environ, **setting}, text=False, encoding=None)
        assert done.returncode == 0
        # Rows are data: the same bytes as --out writes. Words are for people: escaped where they must be.
        assert "日本 ü.png".encode() in bytes(done.stdout)  # pyright: ignore[reportArgumentType]
        assert run("score", toy_kit, tmp_path / "無", env={**os.environ, **setting}).returncode == 3
        assert run("info", tmp_path / "無", env={**os.environ, **setting}).returncode == 4

    @POSIX
    def test_closed_streams(self, toy_kit, photos, tmp_path):
        out = tmp_path / "s.csv"
        command = f"'{MSC_EDGE}' score '{toy_kit}' '{photos}' --out '{out}' >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
        assert len(list(read_rows(out))) == 12

    @POSIX
    def test_at_a_terminal_the_strangest_are_shown_and_no_rows_run_past(self, toy_kit, photos):
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
        assert "Strangest first" in text
        assert "scoring" in text
        assert ",".join(COLUMNS) not in text
        assert "12 images in" in text


def stopped_in_the_middle(kit: Path, images: Path, out: Path, number: int) -> subprocess.CompletedProcess[str]:
    """Send a signal as soon as a few rows are written."""
    command = [MSC_EDGE, "score", str(kit), str(images), "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists() or out.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, "the run ended before it could be stopped"
            time.sleep(0.005)
        process.send_signal(number)
        printed, said = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, printed, said)


@pytest.fixture(scope="module")
def unbroken(toy_kit, many, tmp_path_factory) -> dict[str, list[tuple]]:
    """The rows of a run that nothing stopped, by the kind of its file."""
    folder = tmp_path_factory.mktemp("unbroken")
    for suffix in (".csv", ".jsonl"):
        run("score", toy_kit, many, "--out", folder / f"s{suffix}")
    return {suffix: without_times(folder / f"s{suffix}") for suffix in (".csv", ".jsonl")}


@POSIX
class TestStopped:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
    @pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
    def test_a_stopped_run_keeps_its_rows_and_is_continued_to_the_same_file(
        self, toy_kit, many, tmp_path, unbroken, suffix, number, code
    ):
        out = tmp_path / f"s{suffix}"
        done = stopped_in_the_middle(toy_kit, many, out, getattr(signal, number))
        assert done.returncode == code
        rows = len(list(read_rows(out)))
        assert 0 < rows < MANY
        if number != "SIGKILL":
            assert done.stderr == f"stopped: {rows} rows are written to {out}; --resume continues there\n"
            assert out.read_bytes().endswith(b"\n")
        assert run("score", toy_kit, many, "--out", out, "--resume").returncode == 0
        assert without_times(out) == unbroken[suffix]

    def test_a_disk_that_fills_up_keeps_whole_rows_and_the_run_can_be_continued(
        self, toy_kit, many, tmp_path, unbroken
    ):
        out = tmp_path / "s.csv"
        # The largest file that this shell's children may write stands for the disk: 2 blocks of 512 or 1024 bytes.
        command = f"ulimit -f 2; exec '{MSC_EDGE}' score '{toy_kit}' '{many}' --out '{out}' --quiet"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert f"cannot write {out}" in one_error(done, 5)
        assert out.read_bytes().endswith(b"\n")
        assert 0 < len(list(read_rows(out))) < MANY
        assert run("score", toy_kit, many, "--out", out, "--resume").returncode == 0
        assert without_times(out) == unbroken[".csv"]

    def test_a_file_system_without_space(self, toy_kit, many, tmp_path, unbroken):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            (disk / "ballast").write_bytes(bytes(4096))
            out = disk / "s.csv"
            line = one_error(run("score", toy_kit, many, "--out", out, "--quiet"), 5)
            assert f"cannot write {out}: No space left on device; free some space" in line
            assert out.read_bytes().endswith(b"\n")
            (disk / "ballast").unlink()
            kept = without_times(out)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        assert kept == unbroken[".csv"][: len(kept)]
        assert kept


@POSIX
@pytest.mark.parametrize("delay", [0.05, 0.15, 0.25, 0.35, 0.5])
def test_a_stop_at_any_moment_is_never_taken_for_an_anomaly(delay: float, toy_kit, many, tmp_path):
    """Whatever is being imported at that moment: 143, or the signal itself before Python has begun; no traceback."""
    command = [MSC_EDGE, "score", str(toy_kit), str(many), "--out", str(tmp_path / "s.csv"), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert "Traceback" not in said
