"""Facts about the whole house: what installs, what may import what, and what the outside sees."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
SOURCES = {
    "msc_edge": "msc_edge",
    "train": "msc_edge.train",
    "export": "msc_edge.export",
    "runtime": "msc_edge.runtime",
}


def package_of(folder: Path) -> str:
    first, *rest = folder.relative_to(ROOT).parts
    return ".".join([SOURCES[first], *rest])


def folders_with_python() -> list[Path]:
    return sorted({path.parent for source in SOURCES for path in (ROOT / source).rglob("*.py")})


def test_every_package_of_the_tree_is_installed_and_none_is_listed_that_is_not_there() -> None:
    """A package left out of the table works in the checkout and is missing from the wheel."""
    assert sorted(SETUPTOOLS["packages"]) == sorted(package_of(folder) for folder in folders_with_python())


def test_every_folder_with_python_is_a_package() -> None:
    assert [folder for folder in folders_with_python() if not (folder / "__init__.py").is_file()] == []


def test_each_package_is_mapped_to_its_folder() -> None:
    """As setuptools maps: the longest parent in the table decides, and the rest of the name is the path below it."""
    table: dict[str, str] = SETUPTOOLS["package-dir"]
    for folder in folders_with_python():
        parts = package_of(folder).split(".")
        known = max(length for length in range(1, len(parts) + 1) if ".".join(parts[:length]) in table)
        assert ROOT.joinpath(table[".".join(parts[:known])], *parts[known:]) == folder


def test_no_bare_name_is_installed() -> None:
    """`train`, `export` and `runtime` in site-packages would collide with everybody else's."""
    assert {package.partition(".")[0] for package in SETUPTOOLS["packages"]} == {"msc_edge"}


def test_import_contracts_hold(tmp_path: Path) -> None:
    # Not from the root of the checkout: its msc_edge folder would shadow the installed, mapped packages.
    lint_imports = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint_imports is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [lint_imports, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


HEAVY = [
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "lightning",
    "safetensors",
    "hnswlib",
    "PIL",
    "sklearn",
    "pandas",
]


@pytest.mark.parametrize(
    "imports", ["from msc_edge.runtime import *", "import msc_edge.kit.opening", "import msc_edge.cli"]
)
def test_the_runtime_side_imports_nothing_of_training(imports: str, tmp_path: Path) -> None:
    code = f"import json, sys; {imports}; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_public_names_of_the_runtime_are_those_that_are_documented() -> None:
    runtime = importlib.import_module("msc_edge.runtime")
    documented = re.search(r"`msc_edge.runtime` exports (.*?)\.\s", (ROOT / "docs" / "integrate.md").read_text("utf-8"))
    assert documented
    assert sorted(runtime.__all__) == sorted(re.findall(r"`(\w+)`", documented[1]))
    for name in runtime.__all__:
        assert getattr(runtime, name).__name__ == name
    others = {name for name, value in vars(runtime).items() if not isinstance(value, ModuleType)} - set(runtime.__all__)
    assert {name for name in others if not name.startswith("_")} <= {"TYPE_CHECKING", "import_module"}
    with pytest.raises(AttributeError, match="Detecter"):
        runtime.Detecter  # noqa: B018


MODULES = sorted(path for source in SOURCES for path in (ROOT / source).rglob("*.py"))


def test_a_module_has_at_most_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}


def test_no_module_repeats_the_name_of_its_package() -> None:
    assert [str(path.relative_to(ROOT)) for path in MODULES if path.stem == path.parent.name] == []


def test_a_test_module_stands_where_its_module_stands() -> None:
    """tests/runtime/results/test_formats.py tests runtime/results/formats.py; other tests name a whole package."""
    packages = {
        "damaged_kits",
        "unreachable_paths",
        "image_files",
        "bundled",
        "command",
        "drawing",
        "forms",
        "older_files",
        "tiles_and_masks",
        "camera_habits",
        "accessible",
        "rtsp_camera",
        "drift_call",
        "network_loss",
        "base_css",
        "images_refusals",
        "manifest_file_names",
        "manifest_refusals",
        "detector_limits",
        "detector_refusals",
        "training_refusals",
        "training_resume",
        "distil_refusals",
        "distil_resume",
    }
    wrong = []
    for source in SOURCES:
        for test in (ROOT / "tests" / source).rglob("test_*.py"):
            name = test.stem.removeprefix("test_")
            place = ROOT / test.parent.relative_to(ROOT / "tests")
            if name not in packages and not (place / f"{name}.py").is_file():
                wrong.append(str(test.relative_to(ROOT)))
    assert wrong == []


def test_types_are_shipped() -> None:
    """PEP 561: without the marker, type checkers ignore the annotations of an installed package."""
    assert (ROOT / "msc_edge" / "py.typed").is_file()
    assert "py.typed" in SETUPTOOLS["package-data"]["msc_edge"]


def test_the_version_is_said_once() -> None:
    import msc_edge

    assert msc_edge.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_run_without_images_prints_its_usage_before_it_installs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for source in SOURCES:
        (tmp_path / source).mkdir()
    for options in ((), ("NORMAL=good",), ("IMAGES=new",)):
        # Under another make, this one would print the folder that it enters.
        command = ["make", "--no-print-directory", "run", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert "usage: make run NORMAL=DIR IMAGES=DIR" in done.stderr
        assert not (tmp_path / ".venv").exists()
    for arguments in (("run", "NORMAL=good", "IMAGES=new"), ("demo",), ("test",)):
        planned = subprocess.run(["make", "-n", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "pip install" in planned.stdout
