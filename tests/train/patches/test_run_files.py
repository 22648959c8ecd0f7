import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from msc_edge.errors import KitError, UsageError
from msc_edge.train.options import TrainingOptions
from msc_edge.train.patches.head import PatchHead
from msc_edge.train.patches.run_files import read_head, write_head
from msc_edge.train.patches.substitutes import PatchRows
from msc_edge.train.patches.taps import Tap
from msc_edge.train.patches.whitening import Whitening
from msc_edge.train.run_record import CALIBRATION, PATCH_CALIBRATION, PATCHES, read_record
from msc_edge.train.training import train


@pytest.fixture
def head() -> PatchHead:
    generator = torch.Generator().manual_seed(0)
    matrix, mean, bank = (torch.randn(*shape, generator=generator) for shape in ((4, 12), (12,), (9, 4)))
    return PatchHead.of(
        (Tap("fine", 8, 5), Tap("coarse", 16, 7)), Whitening(matrix, mean), PatchRows(bank, torch.arange(9))
    )


def test_a_head_is_written_and_read_to_the_last_bit(head: PatchHead, tmp_path: Path) -> None:
    write_head(tmp_path / "patches.safetensors", head)
    again = read_head(tmp_path / "patches.safetensors")
    assert again.taps == head.taps
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"no", b"\x08\0\0\0\0\0\0\0{}      "])
def test_another_file_is_no_head(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "patches.safetensors").write_bytes(content)
    with pytest.raises(KitError, match="not a patch head"):
        read_head(tmp_path / "patches.safetensors")


@pytest.fixture(scope="module")
def patch_run(tmp_path_factory: pytest.TempPathFactory, normal_images: Path) -> Path:
    """A frozen run of edge-small with patches; read-only."""
    out = tmp_path_factory.mktemp("run") / "run"
    options = TrainingOptions(image_size=64, steps=0, accelerator="cpu", dtype="fp32", patch_rows=30)
    train(normal_images, out, options)
    return out


class TestPatches:
    def test_the_documentation_lists_the_files_of_a_run(self, patch_run: Path, finished_run: Path) -> None:
        page = (Path(__file__).parents[3] / "docs" / "train.md").read_text(encoding="utf-8")
        table = page.partition("## The run folder")[2].partition("\n\n`export`")[0]
        listed = {name.rstrip("/") for row in table.splitlines() for name in re.findall(r"`([\w./]+)`", row[:40])}
        assert listed == {path.name for run in (patch_run, finished_run) for path in run.iterdir()}

    def test_both_scores_are_the_default(self, patch_run: Path) -> None:
        record = read_record(patch_run)
        assert (record.scores, record.patch_rows) == ("both", 30)
        assert record.taps == ("features.7.conv.0", "features.14.conv.0")
        assert record.map is not None
        head = read_head(patch_run / PATCHES)
        assert head.bank.shape == (30, 256)
        scores = np.load(patch_run / PATCH_CALIBRATION)
        assert scores.shape == np.load(patch_run / CALIBRATION).shape
        assert (scores > 0).all()

    def test_a_changed_patch_bank_is_refused(self, patch_run: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(patch_run, tmp_path / "copy")
        with (copy / PATCHES).open("r+b") as file:
            file.seek(-4, 2)
            file.write(b"\1\2\3\4")
        with pytest.raises(KitError, match=r"patches\.safetensors: SHA-256 differs"):
            read_record(copy)

    def test_the_paper_preset_compares_whole_images(
        self, tmp_path: Path, normal_images: Path, options: Callable
    ) -> None:
        train(normal_images, tmp_path / "run", options(preset="paper", scores=None, steps=0))
        assert read_record(tmp_path / "run").scores == "image"
        assert not (tmp_path / "run" / PATCHES).exists()

    def test_a_backbone_without_the_feature_maps_is_refused_before_any_image_is_read(
        self, tmp_path: Path, normal_images: Path, options: Callable
    ) -> None:
        steps: list[str] = []

        def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
            steps.append(task)

        with pytest.raises(UsageError, match=r"has no feature map at 1/8 .*--scores image"):
            train(normal_images, tmp_path / "run", options(scores=None), report=report)
        assert steps == []
