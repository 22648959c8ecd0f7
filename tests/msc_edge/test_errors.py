import errno
import os
import re
import tomllib
from pathlib import Path

import pytest

from msc_edge import errors
from msc_edge.errors import MissingExtraError, MscEdgeError, OutputError, UsageError, explain_missing_extra, writing

PYPROJECT = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Name -> (parent, exit code), as drawn in the docstring of msc_edge/errors.py."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if drawn := re.match(r"^    ([ │├└─]*)(\w+Error) +(?:exit (\d+))?", line):
            depth = len(drawn[1]) // 4
            above[depth:] = [drawn[2]]
            tree[drawn[2]] = (above[depth - 1] if depth else None, int(drawn[3]) if drawn[3] else None)
    return tree


def real_tree(root: type[MscEdgeError], parent: str | None = None) -> dict[str, tuple[str | None, int | None]]:
    """The classes of msc_edge/errors.py. Subclasses in other modules are for their own use and keep the exit code."""
    tree = {root.__name__: (parent, root.exit_code if parent else None)}
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            tree |= real_tree(child, root.__name__)
        else:
            assert child.exit_code == root.exit_code, child
    return tree


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    assert len(drawn_tree()) > 5
    assert drawn_tree() == real_tree(MscEdgeError)


def test_no_exit_code_means_success_or_anomalies_found() -> None:
    assert {code for parent, code in real_tree(MscEdgeError).values() if parent} == {2, 3, 4, 5}


def extras_of_packages() -> list[tuple[str, str]]:
    """(package, extra) of the packages that extras add; their import and distribution names agree."""

    def names(requirements: list[str]) -> list[str]:
        return [re.split(r"[^\w-]", each)[0] for each in requirements]

    project = PYPROJECT["project"]
    named = {name: names(project["optional-dependencies"][name]) for name in ("hnsw", "tiff", "train")}
    known = {"scikit-learn", *names(project["dependencies"])}  # an extra may need a later version of these
    return [(package, extra) for extra, packages in named.items() for package in packages if package not in known]


@pytest.mark.parametrize("package", sorted({package for package, _ in extras_of_packages()}))
@pytest.mark.parametrize("module", ["", ".deep.inside"])
def test_a_missing_package_names_an_extra_that_installs_it(package: str, module: str) -> None:
    with pytest.raises(MissingExtraError) as refusal, explain_missing_extra():
        raise ModuleNotFoundError(f"No module named '{package}{module}'", name=package + module)
    message = str(refusal.value)
    assert "\n" not in message
    assert package in message
    extra = re.search(r"Install it with: pip install 'msc-edge\[(\w+)\]'", message)
    assert extra
    assert (package, extra[1]) in extras_of_packages()


def test_a_command_names_the_one_extra_that_installs_all_its_packages() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"this needs sklearn, .* 'msc-edge\[train\]'"),
        explain_missing_extra("train"),
    ):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    with pytest.raises(ModuleNotFoundError), explain_missing_extra("train"):
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")


@pytest.mark.parametrize("name", ["numpy", "msc_edge.trian", "torchy", None])
def test_other_missing_packages_stay_import_errors(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), explain_missing_extra():
        raise ModuleNotFoundError("missing", name=name)


def test_a_real_failed_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match="this needs safetensors"), explain_missing_extra():
        import safetensors.numpy  # noqa: F401


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EACCES, "choose a place that you may write to"),
        (errno.EROFS, "choose a place that is not read-only"),
        (errno.ENAMETOOLONG, "choose a shorter path"),
        (errno.EIO, "check the disk and the path"),
    ],
)
def test_a_failed_write_names_target_cause_and_remedy(code: int, remedy: str) -> None:
    with pytest.raises(OutputError) as refusal, writing(Path("out/scores.csv")):
        raise OSError(code, os.strerror(code))
    message = str(refusal.value)
    assert message.startswith(f"cannot write {Path('out/scores.csv')}: {os.strerror(code)}; {remedy}")
    assert "\n" not in message


def test_a_failed_write_without_an_error_number_names_its_cause() -> None:
    with pytest.raises(OutputError, match="no tape in the drive; check the disk"), writing(Path("x")):
        raise OSError("no tape in the drive")


@pytest.mark.parametrize("other", [ValueError("x"), UsageError("x"), KeyboardInterrupt()])
def test_other_errors_pass_unchanged(other: BaseException) -> None:
    with pytest.raises(type(other)) as passed, writing(Path("x")):
        raise other
    assert passed.value is other
