import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.train.run_record import RECORD, read_record


@pytest.fixture
def train(small_weights: Path, drawn_normals: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run `msc-edge train` into tmp_path/run with small options, and more."""
    small = "--backbone resnet18 --stop-at layer2 --image-size 32 --accelerator cpu --precision fp32"

    def run(options: str = "", *, normal: Path = drawn_normals) -> Result:
        given = ["--normal", str(normal), "--out", str(tmp_path / "run"), "--weights", str(small_weights)]
        return CliRunner().invoke(app, ["train", *given, *f"{small} {options}".split()])

    return run


def test_every_option_reaches_the_run(train: Callable, tmp_path: Path) -> None:
    done = train(
        "--steps 2 --batch 5 --learning-rate 0.003 --recipe v1 --seed 11 --freeze-to layer1 --holdout 0.3 "
        "--preset paper --roi 3,4,50,40 --bit-depth 12 --checkpoint-every 1"
    )
    assert done.exit_code == 0, done.output
    record = read_record(tmp_path / "run")
    settings = record.fine_tuning
    assert (settings.steps, settings.batch, settings.learning_rate, settings.recipe) == (2, 5, 0.003, "v1")
    assert (settings.seed, settings.frozen_up_to, settings.precision) == (11, "layer1", "fp32")
    assert (record.preprocessing.preset, record.preprocessing.image_size) == ("paper", 32)
    assert record.preprocessing.region is not None
    assert record.preprocessing.region.model_dump() == {"x": 3, "y": 4, "width": 50, "height": 40}
    assert record.decode.bit_depth == 12
    assert "6 held out" in done.stdout


def test_groups_are_held_out_whole_and_recorded(train: Callable, drawn_normals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, path in enumerate(sorted(drawn_normals.iterdir())):
        (folder / f"shift_{number % 10}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"shift_{number % 10}" / path.name)
    done = train("--steps 0 --group-by shift_([0-9])/", normal=folder)
    assert done.exit_code == 0, done.output
    assert "4 held out: 2 of 10 groups" in done.stdout
    record = read_record(tmp_path / "run")
    assert (record.group_by, record.holdout) == ("shift_([0-9])/", 0.2)
    shutil.rmtree(tmp_path / "run")
    assert "4 held out: 2 of 10 groups" in train("--steps 0 --group-by folder", normal=folder).stdout


def test_a_step_cannot_be_chosen_by_few_images(train: Callable, tmp_path: Path) -> None:
    # Of 20 images 4 are held out for the limits.
    refused = train("--steps 2 --batch 4 --select synthetic")
    assert refused.exit_code == 2
    assert "--select synthetic: 16 images are too few" in refused.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rate", "kept"), [("2.0", False), ("0.0005", None)])
def test_the_summary_tells_good_from_spoiled(
    rate: str, kept: bool | None, train: Callable, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    for seed in range(52):
        save(tmp_path / "in" / f"{seed:02d}.png", toy.draw(seed))
    done = train(f"--steps 4 --batch 4 --select synthetic --learning-rate {rate}", normal=tmp_path / "in")
    assert done.exit_code == 0, done.output
    selection = read_record(tmp_path / "run").selection
    assert selection is not None
    assert [candidate.step for candidate in selection.candidates] == [0, 4]
    assert f"AUROC {selection.candidates[0].auroc:.3f} frozen" in done.stderr
    if kept is not None:
        assert bool(selection.selected_step) == kept
    if selection.selected_step:
        assert f"{selection.candidates[1].auroc:.3f} after step 4; that step is kept" in done.stderr
        assert "step 4 kept" in done.stdout
    else:
        assert "the backbone stays as it is" in done.stderr
        assert "undone" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        "--group-by folder",  # they all lie in one
        "--group-by part_[0-9]+",
        "--group-by part_(0)",
        "--group-by (",
        "--bit-depth 9",
        "--learning-rate 0",
        "--learning-rate nan",
        "--learning-rate inf",
        "--learning-rate -1",
        "--learning-rate 1001",
        "--learning-rate 1e300",
        "--steps -1",
        "--batch 1",
        "--holdout 0",
        "--holdout 1",
        "--recipe v3",
        "--roi 1,2,3",
        "--roi 0,0,0,5",
        "--image-size 8",
        "--stop-at layer9",
        "--backbone resnet19",
    ],
)
def test_options_that_cannot_be_met_leave_with_2_and_no_run(options: str, train: Callable, tmp_path: Path) -> None:
    refused = train(options)
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
    assert options.partition(" ")[0] in refused.output
    assert not (tmp_path / "run" / RECORD).exists()


def test_summary_counts_what_was_left_out(train: Callable, drawn_normals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawn_normals, tmp_path / "in")
    for i in range(7):
        (folder / f"bad_{i}\x1b[31m.png").write_bytes(b"bad %d" % i)
    shutil.copy(folder / "part_00.png", folder / "zz.png")
    done = train("--steps 0", normal=folder)
    assert done.exit_code == 0
    assert done.stderr.count("left out, unreadable: bad_") == 5
    assert r"bad_0\x1b[31m.png" in done.stderr  # and the terminal does not turn red
    assert "and 2 more" in done.stderr
    assert "exact copies of others: 1" in done.stderr
    assert "16 normals in the bank, 4 held out" in done.stdout
    assert "frozen" in done.stdout


@pytest.mark.parametrize(
    ("count", "code", "says"), [(0, 3, "no images found"), (1, 3, "1 can be read"), (2, 3, "at least 3")]
)
def test_too_few_images_leave_with_3(
    count: int, code: int, says: str, train: Callable, drawn_normals: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(count):
        shutil.copy(drawn_normals / f"part_{i:02d}.png", folder)
    refused = train(normal=folder)
    assert refused.exit_code == code
    assert says in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
