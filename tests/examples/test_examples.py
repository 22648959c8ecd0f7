"""The examples of docs/embed.md, run as they are: each scores as the kit does."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from msc_edge.runtime import Detector

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 5


@pytest.fixture(scope="session")
def files(case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The first images as PNG and PPM files."""
    folder = tmp_path_factory.mktemp("files")
    found: dict[str, list[Path]] = {".png": [], ".ppm": []}
    for each in json.loads(case.images.read_text())[:COUNT]:
        raw = np.fromfile(case.images.with_name(each["file"]), np.uint8)
        image = raw.reshape(each["height"], each["width"], 3)[..., ::-1]
        for suffix, paths in found.items():
            paths.append(folder / Path(each["file"]).with_suffix(suffix))
            cv2.imwrite(str(paths[-1]), image)
    return found


def run(*command: object, folder: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def check(case, found: dict[str, tuple[str, float]]) -> None:
    for number in range(COUNT):
        verdict, score = found[str(number)]
        assert (verdict, score) == (case.results[number].verdict, pytest.approx(case.results[number].score, abs=1e-5))


def test_python_with_onnxruntime_numpy_and_pillow(case, files, lines_of: Callable) -> None:
    printed = run(sys.executable, EXAMPLES / "python" / "score.py", case.file, *files[".png"])
    check(case, lines_of(printed, files[".png"]))


def test_node(case, files, lines_of: Callable, node_modules: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "node", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "node_modules").symlink_to(node_modules)
    printed = run("node", "score.js", case.file, *files[".png"], folder=tmp_path)
    check(case, lines_of(printed, files[".png"]))


def test_node_on_all_images(case, node_modules: Path) -> None:
    assert node_modules
    case.check(json.loads(run("node", Path(__file__).with_name("score_all.js"), case.file, case.images)))


@pytest.fixture(scope="module")
def program(node_modules: Path, ort_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, with the library that onnxruntime-node brings."""
    build, release = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("onnxruntime")
    (release / "include").symlink_to(ort_headers)
    (library,) = (node_modules / "onnxruntime-node" / "bin").glob("napi-v*/linux/x64")
    (release / "lib").symlink_to(library)
    run("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DONNXRUNTIME={release}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", build)
    return build / "score"


def test_cpp(case, files, lines_of: Callable, program: Path) -> None:
    check(case, lines_of(run(program, case.file, *files[".ppm"]), files[".ppm"]))


def test_cpp_says_what_is_wrong(case, program: Path, tmp_path: Path) -> None:
    (tmp_path / "short.ppm").write_bytes(b"P6\n10 10\n255\nabc")
    done = subprocess.run([program, case.file, tmp_path / "short.ppm"], capture_output=True, text=True, check=False)
    assert (done.returncode, "short.ppm: ends too early" in done.stderr) == (1, True)


def test_the_kit_itself_gives_the_same_lines(case, files) -> None:
    """The images as files are those that were scored in memory."""
    detector = Detector.load(case.kit, threads=1)
    for number, path in enumerate(files[".png"]):
        assert detector.score_file(path).score == pytest.approx(case.results[number].score, abs=1e-9)
