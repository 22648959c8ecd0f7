from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from msc_edge.runtime.tools.doctor import package_checks
from msc_edge.runtime.tools.doctor.package_checks import hnswlib, opencv, versions


@pytest.fixture
def distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Path]:
    """Add a distribution to those that pip installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name: str) -> Path:
        folder = tmp_path / f"{name.replace('-', '_')}-4.13.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.13.0\n")
        return folder

    return add


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Make a package fail when it is imported."""

    def fail(package: str, error: Exception) -> None:
        def importing(name: str) -> ModuleType:
            if name == package:
                raise error
            return import_module(name)

        monkeypatch.setattr(package_checks, "import_module", importing)

    return fail


class TestVersions:
    def test_they_are_those_that_are_installed(self):
        assert versions().state == "ok"
        for name in ("msc-edge", "onnxruntime", "numpy"):
            assert f"{name} {metadata.version(name)}" in versions().found

    @pytest.mark.parametrize(
        ("package", "error", "found"),
        [
            ("onnxruntime", ImportError("DLL load failed\nmore"), "onnxruntime cannot be imported: DLL load failed; "),
            ("numpy", RuntimeError("needs AVX2"), "numpy cannot be imported: needs AVX2; "),
            ("cv2", ImportError("libGL.so.1: no such file"), "OpenCV cannot be imported: libGL.so.1: no such file; "),
        ],
    )
    def test_a_package_that_cannot_be_imported_is_a_problem(self, broken, package, error, found):
        broken(package, error)
        check = versions()
        assert check.state == "problem"
        assert check.found.startswith(found)
        assert "pip install --force-reinstall msc-edge" in (check.remedy or "")


class TestOpenCV:
    def test_the_one_installed_here_can_read_streams(self):
        check = opencv()
        assert check.state != "problem"
        assert f"opencv-python {metadata.version('opencv-python')}" in check.found
        assert "FFMPEG" in check.found

    def test_two_distributions_are_a_problem(self, distribution):
        distribution("opencv-python-headless")
        check = opencv()
        assert check.state == "problem"
        assert check.remedy
        assert check.remedy.startswith("pip uninstall -y opencv-python opencv-python-headless")

    def test_the_same_distribution_found_twice_is_one(self, distribution):
        distribution("opencv-python")
        assert opencv().state != "problem"

    def test_the_remains_of_an_interrupted_pip_are_ignored(self, distribution):
        (distribution("half") / "METADATA").unlink()
        (distribution("other") / "METADATA").write_bytes(b"\xff\xfe\x00")
        assert opencv().state != "problem"

    def test_one_that_cannot_be_imported_is_a_problem(self, broken):
        broken("cv2", ImportError("libGL.so.1: cannot open shared object file"))
        check = opencv()
        assert (check.state, "libGL.so.1" in check.found) == ("problem", True)

    def test_a_build_without_streams_gets_a_note(self, monkeypatch):
        registry = SimpleNamespace(getCameraBackends=list, getStreamBackends=list, getBackendName=str)
        build = SimpleNamespace(videoio_registry=registry, currentUIFramework=str)
        monkeypatch.setattr(package_checks, "import_module", lambda _: build)
        check = opencv()
        assert check.state == "note"
        assert "without FFMPEG" in check.found

    def test_one_that_pip_did_not_install_is_a_problem(self, monkeypatch):
        monkeypatch.setattr("importlib.metadata.distributions", list)
        assert (opencv().state, "not installed by pip" in opencv().found) == ("problem", True)


class TestHnswlib:
    def test_it_works_or_is_not_installed(self):
        assert hnswlib().state in ("ok", "note")

    def test_without_it_the_search_is_exact(self, monkeypatch):
        monkeypatch.setattr(package_checks, "find_spec", lambda _: None)
        assert (hnswlib().state, "exact search" in hnswlib().found) == ("note", True)

    @pytest.mark.parametrize("program", ["import os; os.kill(os.getpid(), 4)", "raise ImportError('no such file')"])
    def test_one_that_crashes_is_a_problem(self, monkeypatch, program):
        monkeypatch.setattr(package_checks, "_TRY_HNSWLIB", program)
        check = hnswlib()
        assert check.state == "problem"
        assert check.found.startswith("installed, but does not work here: ")
        assert "HNSWLIB_NO_NATIVE=1" in (check.remedy or "")
