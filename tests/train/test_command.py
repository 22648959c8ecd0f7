import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from msc_edge.cli import app
from msc_edge.train.checkpoint_selection import Candidate
from msc_edge.train.command import _selection_line
from msc_edge.train.run_folder import RECORD
from msc_edge.train.run_record import SelectionRecord, read_record


@pytest.fixture
def train(small_weights: Path, normal_images: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run `msc-edge train` into tmp_path/run, with small options and additional ones."""
    small = "--backbone mobilenet_v2_x0.1 --stop-at features.3 --image-size 32 --scores image"
    small += " --accelerator cpu --dtype fp32"

    def run(options: str = "", *, normal: Path = normal_images) -> Result:
        given = ["--normal", str(normal), "--out", str(tmp_path / "run"), "--weights", str(small_weights)]
        return CliRunner().invoke(app, ["train", *given, *f"{small} {options}".split()])

    return run


def test_every_option_is_used(train: Callable, tmp_path: Path) -> None:
    done = train(
        "--steps 2 --batch 5 --learning-rate 0.003 --recipe v1 --seed 11 --freeze-to features.1 --holdout 0.3 "
        "--preset paper --roi 3,4,50,40 --bit-depth 12 --checkpoint-every 1"
    )
    assert done.exit_code == 0, done.output
    record = read_record(tmp_path / "run")
    settings = record.fine_tuning
    assert (settings.steps, settings.batch, settings.learning_rate, settings.recipe) == (2, 5, 0.003, "v1")
    assert (settings.seed, settings.frozen_up_to, settings.dtype) == (11, "features.1", "fp32")
    assert (record.preprocessing.preset, record.preprocessing.image_size) == ("paper", 32)
    assert record.preprocessing.region is not None
    assert record.preprocessing.region.model_dump() == {"x": 3, "y": 4, "width": 50, "height": 40}
    assert record.decode.bit_depth == 12
    assert "20 images in the memory bank, 6 of the images held out" in done.stdout


def test_the_start_says_what_is_trained_and_what_the_images_allow(train: Callable) -> None:
    done = train("--steps 2 --batch 5")
    assert done.exit_code == 0, done.output
    images, parts, settings, warning, *_ = done.stderr.splitlines()
    assert images == "20 images: 16 for training, 4 held out; all in the memory bank"
    assert parts.startswith("20 parts found")
    assert settings.startswith("mobilenet_v2_x0.1 on cpu: 2 steps of v2, 5 images each, in fp32; learning rate 0.0003;")
    assert warning.startswith("warning: with 4 held-out images, the expected false-alarm rate of a kit is 20 %, above ")


def test_precision_is_a_deprecated_name_of_dtype(train: Callable, tmp_path: Path) -> None:
    done = train("--steps 0 --dtype auto --precision fp32")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("warning: --precision is deprecated; use --dtype\n")
    assert read_record(tmp_path / "run").fine_tuning.dtype == "fp32"


def test_groups_are_held_out_completely_and_recorded(train: Callable, normal_images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, path in enumerate(sorted(normal_images.iterdir())):
        (folder / f"shift_{number % 10}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"shift_{number % 10}" / path.name)
    done = train("--steps 0 --group-by shift_([0-9])/", normal=folder)
    assert done.exit_code == 0, done.output
    assert "each image held out in turn, 10 parts" in done.stdout
    record = read_record(tmp_path / "run")
    assert (record.group_by, record.holdout) == ("shift_([0-9])/", 0.2)


def test_too_few_images_for_checkpoint_selection_are_refused(train: Callable, tmp_path: Path) -> None:
    # 4 of the 20 images are held out as calibration images.
    refused = train("--steps 2 --batch 4 --select synthetic")
    assert refused.exit_code == 2
    assert "--select synthetic: 16 images are too few" in refused.output
    assert not (tmp_path / "run").exists()


def test_the_summary_shows_checkpoint_selection(
    train: Callable, toy: ModuleType, save: Callable, tmp_path: Path
) -> None:
    for seed in range(50):
        save(tmp_path / "in" / f"{seed:02d}.png", toy.draw(seed))
    done = train("--steps 1 --batch 4 --select synthetic --learning-rate 5", normal=tmp_path / "in")
    assert done.exit_code == 0, done.output
    selection = read_record(tmp_path / "run").selection
    assert selection is not None
    assert [candidate.step for candidate in selection.candidates] == [0, 1]
    frozen, trained = (candidate.auroc for candidate in selection.candidates)
    assert done.stderr.splitlines()[-1] == (
        f"checkpoint selection: AUROC with synthetic anomalies {frozen:.3f} frozen, at best {trained:.3f} after "
        "training, no clear improvement; the backbone stays frozen"
    )
    assert "1 step of v2 in fp32, undone" in done.stdout
    assert read_record(tmp_path / "run").in_turn, "the network is the pretrained one"


def test_the_summary_names_the_selected_step() -> None:
    aurocs = {0: 0.81, 20: 0.93, 40: 0.94}
    selection = SelectionRecord(
        candidates=tuple(
            Candidate(step=step, drawn=0, pasted=0, shuffled=0, auroc=auroc, error=0.02, selected=step < 40)
            for step, auroc in aurocs.items()
        ),
        selected_step=20,
    )
    assert _selection_line(selection) == (
        "checkpoint selection: AUROC with synthetic anomalies 0.810 frozen, 0.930 after step 20; step 20 is selected"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--group-by folder", "--group-by folder: all 20 images are in one group"),
        ("--group-by part_[0-9]+", "--group-by part_[0-9]+: has 0 groups"),
        ("--bit-depth 9", "--bit-depth 9: expected 8, 10, 12, 14 or 16"),
        ("--learning-rate 0", "--learning-rate 0.0: expected a number above 0"),
        ("--steps -1", "--steps"),
        ("--batch 1", "--batch"),
        ("--holdout 0", "--holdout"),
        ("--holdout 1", "--holdout"),
        ("--recipe v3", "recipe v3: unknown; choose one of"),
        ("--roi 1,2,3", "--roi 1,2,3: expected"),
        ("--roi 0,0,0,5", "--roi 0,0,0,5: expected"),
        ("--image-size 8", "--image-size 8: expected"),
        ("--stop-at layer9", "stage layer9: unknown; choose one of features.0"),
        ("--backbone resnet19", "backbone resnet19: unknown; choose one of edge-small"),
    ],
)
def test_an_invalid_option_exits_with_2_and_leaves_no_run(
    options: str, message: str, train: Callable, tmp_path: Path
) -> None:
    refused = train(options)
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output
    assert message in refused.output
    assert not (tmp_path / "run" / RECORD).exists()


def test_the_summary_counts_skipped_images(train: Callable, normal_images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(normal_images, tmp_path / "in")
    for i in range(7):
        (folder / f"bad_{i}\x1b[31m.png").write_bytes(b"bad %d" % i)
    shutil.copy(folder / "part_00.png", folder / "zz.png")
    done = train("--steps 0", normal=folder)
    assert done.exit_code == 0
    assert done.stderr.count("skipped: bad_") == 5
    assert r"bad_0\x1b[31m.png" in done.stderr  # escaped: it must not colour the terminal
    assert "skipped: 2 more, see" in done.stderr
    assert "skipped: 1 duplicate of other images" in done.stderr
    assert "20 images in the memory bank, each image held out in turn" in done.stdout
    assert "frozen" in done.stdout


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no images found"), (1, "1 are readable"), (2, "at least 3 are needed")]
)
def test_too_few_images_exit_with_3(
    count: int, message: str, train: Callable, normal_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(count):
        shutil.copy(normal_images / f"part_{i:02d}.png", folder)
    refused = train(normal=folder)
    assert refused.exit_code == 3
    assert message in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
