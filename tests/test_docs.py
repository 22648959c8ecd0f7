"""The docs match the code: generated pages are current, shown code runs, links and names lead somewhere."""

import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from typer.main import get_command

from msc_edge.cli import app
from msc_edge.images import DecodePolicy, read_image
from msc_edge.kit.layout import MANIFEST
from msc_edge.kit.manifest import parse_manifest
from msc_edge.kit.writing import seal
from msc_edge.runtime import Detector

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
GENERATED = ["cli.md", *sorted(path.name for path in (REPOSITORY / "docs").glob("*.schema.json"))]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pages that `make docs` would write."""
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, REPOSITORY / "docs" / "generate.py", folder], check=True)
    return folder


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_current(generated: Path, name: str) -> None:
    written, current = ((folder / name).read_text(encoding="utf-8") for folder in (REPOSITORY / "docs", generated))
    assert written == current, "run `make docs`"


def test_no_help_has_words_that_a_terminal_takes_for_a_style() -> None:
    """Rich removes `[web]` from a help text: such a name is written `web`."""

    def texts(command: Any) -> Iterator[str]:
        for each in command.params:
            yield getattr(each, "help", None) or ""
        for each in getattr(command, "commands", {}).values():
            yield each.help or ""
            yield from texts(each)

    assert [text for text in texts(get_command(app)) if re.search(r"\[[a-z/]", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_reader_in_the_specification_gives_the_score_of_the_runtime(patch_kit: Path, tmp_path: Path) -> None:
    """docs/kit-format.md shows a whole reader that uses none of this project's code."""
    page = (REPOSITORY / "docs" / "kit-format.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "KIT").symlink_to(patch_kit)
    image = patch_kit / "thumbnails" / "00003.jpg"
    (tmp_path / "part.png").write_bytes(image.read_bytes())  # decoders go by content, not by name
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    score, rejected = done.stdout.split()
    result = Detector.load(patch_kit).score(read_image(image))
    assert np.isclose(float(score), result.score, atol=1e-6)
    assert rejected == str(result.verdict == "reject")


@pytest.mark.parametrize("bits", [8, 12])
def test_the_example_of_frames_runs(toy_kit: Path, toy: ModuleType, tmp_path: Path, bits: int) -> None:
    """docs/integrate.md: frames in colour, grey and 16 bits, and the thumbnail of the nearest normal image."""
    page = (REPOSITORY / "docs" / "integrate.md").read_text(encoding="utf-8")
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "thumbnail(" in each]
    kit = shutil.copytree(toy_kit, tmp_path / "kit")
    manifest = parse_manifest((kit / MANIFEST).read_bytes())
    seal(kit, manifest.model_copy(update={"decode": DecodePolicy.model_validate({"bit_depth": bits})}))
    image = toy.draw(6)
    cv2.imwrite(str(tmp_path / "part.png"), image[..., ::-1])
    cv2.imwrite(str(tmp_path / "part12.png"), image[..., ::-1].astype(np.uint16) << 4)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    detector, result, row, *deep = done.stdout.splitlines()
    assert detector == repr(Detector.load(kit))
    assert result == repr(Detector.load(kit).score(image))
    assert json.loads(row) == Detector.load(kit).score(image).to_dict()
    assert deep == ([result] if bits == 12 else [])
    np.testing.assert_array_equal(read_image(tmp_path / "nearest.png"), read_image(kit / "thumbnails" / "00003.jpg"))


def test_every_schema_is_generated(generated: Path) -> None:
    assert sorted(path.name for path in generated.iterdir()) == sorted(GENERATED)


def names_in(path: Path) -> set[str]:
    """Top-level names of a module, and `Class.method` for the methods of its classes."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{each.name}" for each in methods}
    return names


def test_the_architecture_page_names_what_exists() -> None:
    """Every `path/to/file.py` and `path/to/file.py: name` on the page is in the tree."""
    page = " ".join((REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").split())
    references = re.findall(r"`([\w/-]+\.py)(?:: ([\w.]+))?`", page)
    assert len(references) > 50
    missing = [
        f"{file}: {name}"
        for file, name in references
        if not (REPOSITORY / file).is_file() or (name and name not in names_in(REPOSITORY / file))
    ]
    assert missing == []


@pytest.mark.slow
def test_the_examples_of_a_backbone_and_a_loss_run(
    tmp_path: Path, toy: ModuleType, save: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's files are imported under their names, and its entries are those of the registries."""
    page = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
    blocks = re.findall(r"`(train/[\w/]+)\.py`[^`]*```python\n(.*?)```", page, flags=re.DOTALL)
    assert [name for name, _ in blocks] == [
        "train/backbones/shufflenet",
        "train/backbones/registry",
        "train/losses/alignment_uniformity",
    ]
    entry = re.findall(r"`train/recipes\.py`.*?```python\n(.*?)```", page, flags=re.DOTALL)[0]
    for name, code in (*blocks, ("train/recipes", entry)):
        module_name = "msc_edge." + name.replace("/", ".")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:  # a file that the page adds
            module = ModuleType(module_name)
            monkeypatch.setitem(sys.modules, module_name, module)
            parent, _, child = module_name.rpartition(".")
            monkeypatch.setattr(importlib.import_module(parent), child, module, raising=False)
        known = dict(vars(module))
        exec(compile(code, f"{name}.py", "exec"), known)
        for key, value in known.items():
            if vars(module).get(key) is not value:
                monkeypatch.setattr(module, key, value, raising=False)

    from msc_edge.export.pack import export
    from msc_edge.train.options import TrainingOptions
    from msc_edge.train.training import train

    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None)
    for _ in range(30):  # batch norm gets statistics, so that untrained features differ
        network(torch.randn(4, 3, 96, 96))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    for number in range(8):
        save(tmp_path / "normal" / f"{number}.png", toy.draw(number))
    options = TrainingOptions(
        backbone="shufflenet_v2_x0_5",
        weights=tmp_path / "weights.pt",
        recipe="uniform",
        image_size=96,
        steps=2,
        batch=4,
        frozen_up_to="stage2",
        patch_rows=20,
        dtype="fp32",
    )
    record = train(tmp_path / "normal", tmp_path / "run", options)
    assert record is not None
    assert record.taps == ("stage2.3", "stage3.7")
    export(tmp_path / "run", tmp_path / "kit", precision="fp32", warn_rate=0.4, reject_rate=0.4, region_rate=0.4)
    assert np.isfinite(Detector.load(tmp_path / "kit").score(toy.draw(100)).score)
