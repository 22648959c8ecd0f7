"""Nobody phones home: no command asks for a name, and none leaves a file in the home folder of its own accord."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Runs a command, as the arguments after the folder, in a network namespace that has loopback only. A name server that
# answers nothing writes each name that it is asked for.
DRIVER = """
import os, socket, subprocess, sys, threading

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))

def listen():
    while True:
        data, _ = server.recvfrom(1500)
        place, labels = 12, []
        while data[place]:
            labels.append(data[place + 1 : place + 1 + data[place]].decode())
            place += 1 + data[place]
        with open(sys.argv[1], "a") as names:
            names.write(".".join(labels) + "\\n")

threading.Thread(target=listen, daemon=True).start()
try:
    code = subprocess.run(sys.argv[3:], cwd=sys.argv[2], timeout=900).returncode
except subprocess.TimeoutExpired:
    code = 1
sys.exit(code)
"""
SETUP = r"""
ip link set lo up &&
printf "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n" > "$0" &&
mount --bind "$0" /etc/resolv.conf &&
exec "$@"
"""


class Isolated:
    """Runs programs with a home folder and a name server of their own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.work = folder / "work"
        self.names = folder / "names"
        self._resolver = folder / "resolv.conf"
        for each in (self.home, self.work):
            each.mkdir()

    def run(self, *command: str | Path) -> int:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
        isolated = ["unshare", "-nm", "sh", "-c", SETUP, self._resolver, sys.executable, "-c", DRIVER, self.names]
        return subprocess.run(
            [*isolated, self.work, *command],
            env={**environment, "HOME": str(self.home), "MPLCONFIGDIR": str(self.work)},
            check=False,
            capture_output=True,
        ).returncode

    def msc_edge(self, *arguments: str | Path, code: int = 0) -> None:
        assert self.run(sys.executable, "-m", "msc_edge", *arguments) == code, arguments

    def asked(self) -> list[str]:
        return self.names.read_text().split() if self.names.exists() else []

    def left_at_home(self) -> list[str]:
        """Files in the home folder, except for what msc-edge itself keeps there."""
        found = (str(path.relative_to(self.home)) for path in self.home.rglob("*") if path.is_file())
        return sorted(name for name in found if "msc-edge" not in Path(name).parts)


@pytest.fixture
def isolated(tmp_path: Path) -> Isolated:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-nm", "true"], check=False).returncode:
        pytest.skip("no network namespace can be made here (root on Linux can)")
    return Isolated(tmp_path)


def test_a_name_that_is_asked_for_and_a_file_that_is_left_are_found(isolated: Isolated) -> None:
    """The other tests would pass if nothing were recorded."""
    program = (
        "import pathlib, socket\n"
        "pathlib.Path.home().joinpath('deviceid').touch()\n"
        "socket.getaddrinfo('telemetry.example.org', 443)\n"
    )
    assert isolated.run(sys.executable, "-c", program) != 0
    assert "telemetry.example.org" in isolated.asked()
    assert isolated.left_at_home() == ["deviceid"]


@pytest.mark.slow
def test_the_commands_of_the_runtime_ask_for_no_name_and_leave_no_file(
    isolated: Isolated, toy: ModuleType, kit: Path, written_by_0_1_0: Path, save: Callable, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for number in range(300, 324):
        save(images / f"{number}.png", toy.draw(number))
    folder = tmp_path / "in"
    save(folder / "part.png", toy.draw(200, "scratch"))
    isolated.msc_edge("score", kit, images)
    isolated.msc_edge("info", kit)
    isolated.msc_edge("verify", kit)
    isolated.msc_edge("upgrade", written_by_0_1_0 / "format-1.kit", "--out", "upgraded")
    isolated.msc_edge("calibrate", kit, "--normal", images, "--reject-rate", "0.04")
    isolated.run("timeout", "--signal=TERM", "4", sys.executable, "-m", "msc_edge", "stream", kit, folder)
    isolated.msc_edge("reload", "--timeout", "0.1", code=2)
    assert isolated.asked() == []
    assert isolated.left_at_home() == []


def test_openvino_asks_for_no_name_and_leaves_no_file(isolated: Isolated) -> None:
    """Of its own accord it does, when it is imported: through the package openvino_telemetry."""
    program = "import msc_edge, sys; assert sys.modules['openvino_telemetry'] is None"
    if find_spec("openvino") is not None:
        program += "; import openvino; openvino.Core()"
    assert isolated.run(sys.executable, "-c", program) == 0
    assert isolated.asked() == []
    assert isolated.left_at_home() == []


def test_onnxruntime_would_be_silenced_by_the_environment_alone() -> None:
    """The setting has one home, and every way into the package passes it before onnxruntime."""
    modules = ["msc_edge.runtime", "msc_edge.export.quantize", "msc_edge.runtime.backends.onnxruntime_backend"]
    if find_spec("torch") is None:
        modules.remove("msc_edge.export.quantize")
    program = (
        "import os, sys, importlib\n"
        "seen = []\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': seen.append(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Finder())\n"
        "importlib.import_module(sys.argv[1])\n"
        "assert set(seen) <= {'1'}, seen\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
    )
    for module in modules:
        subprocess.run([sys.executable, "-c", program, module], check=True)


def test_no_script_imports_onnxruntime_before_msc_edge() -> None:
    """A script sorts its imports, and onnxruntime would come first."""
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests" / "assets").glob("*.py")]
    found = []
    for path in scripts:
        names = [
            (node.names[0].name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        if "onnxruntime" in names:
            found.append(path.name)
            assert "msc_edge" in names[: names.index("onnxruntime")], path.name
    assert len(found) >= 6


@pytest.mark.long
def test_training_export_and_the_tools_ask_for_no_name_and_leave_no_file(
    isolated: Isolated, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    """torch, Lightning, TensorBoard, onnx and scikit-learn are imported on the way."""
    normal, tested = tmp_path / "normal", tmp_path / "tested"
    for number in range(32):  # as many as distil needs
        save(normal / f"{number}.png", toy.draw(number))
    for number in range(300, 304):
        save(tested / "good" / f"{number}.png", toy.draw(number))
        save(tested / "scratch" / f"{number}.png", toy.draw(number, "scratch"))
    small = ["--steps", "2", "--batch", "4", "--image-size", "64", "--accelerator", "cpu", "--scores", "image"]
    isolated.msc_edge("train", "--normal", normal, "--out", "run", *small)
    assert isolated.left_at_home() == []
    isolated.msc_edge("export", "run", "--out", "kit", "--precision", "fp32")
    isolated.msc_edge("evaluate", "kit", tested)
    isolated.msc_edge("bench", "kit", "--seconds", "0.1")
    isolated.run(sys.executable, "-m", "msc_edge", "doctor", "kit")  # its exit code is about this machine
    small = ["--steps", "2", "--batch", "4", "--image-size", "64", "--accelerator", "cpu"]
    isolated.msc_edge("distil", "--images", normal, "--out", "student.safetensors", "--teacher", "run", *small)
    classes = ["--train", tested, "--test", tested, "--backbone", "edge-small", "--preset", "whole-frame"]
    isolated.msc_edge("benchmark", "one-vs-rest", *classes, "--method", "contrastive", "--out", "benchmark", *small)
    assert isolated.asked() == []
    assert isolated.left_at_home() == []


@pytest.mark.long
def test_a_small_demo_asks_for_no_name_and_leaves_no_file(isolated: Isolated) -> None:
    """The whole of `msc-edge demo` takes minutes."""
    program = (
        "from pathlib import Path\n"
        "from msc_edge.demo.drawn_images import Sizes\n"
        "from msc_edge.demo.pipeline import run_demo\n"
        "run_demo(Path('demo'), sizes=Sizes(train=2, test=2, each_defect=1), steps=0)\n"
    )
    assert isolated.run(sys.executable, "-c", program) == 0
    assert isolated.asked() == []
    assert isolated.left_at_home() == []
