import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

import msc_edge.train.fine_tune as fine_tune_module
from msc_edge.errors import KitError, UsageError
from msc_edge.preprocessing import preset
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.registry import build_backbone
from msc_edge.train.checkpoint_selection import BestCheckpoint, held_out_for_selection
from msc_edge.train.fine_tune import batch_of, fine_tune
from msc_edge.train.loading import training_copy
from msc_edge.train.metrics import StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import RECIPES, Recipe, recipe_named
from msc_edge.train.run_folder import CHECKPOINT, METRICS
from msc_edge.train.settings import FineTuning
from msc_edge.train.views import make_views

State = dict[str, Tensor]


def settings_of(**changed) -> FineTuning:
    quick = {"recipe": "v2", "steps": 4, "batch": 4, "learning_rate": 1e-2, "dtype": "fp32", "seed": 0}
    return FineTuning(**{**quick, **changed})


def selecting(**changed) -> FineTuning:
    return settings_of(**{"steps": 7, "select": "synthetic", "select_every": 3, **changed})


class StoppedError(Exception):
    """Raised by a test to interrupt a training."""


def stop_after(step: int) -> Callable:
    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "fine-tuning" and done == step:
            raise StoppedError

    return report


class Training:
    """Drawn images and a random network, ready to train."""

    best: BestCheckpoint | None = None

    def __init__(self, images: list[np.ndarray], backbone: Backbone) -> None:
        self.images = images
        self.network = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()
        self.before = self.state()
        self.training_copies = [training_copy(image, self.network.preprocess.spec) for image in images]

    def embed(self) -> np.ndarray:
        return self.network.embed_all(("", image) for image in self.images)

    def state(self) -> State:
        return {key: value.clone() for key, value in self.network.backbone.state_dict().items()}

    def train(self, folder: Path, settings: FineTuning, **options) -> State:
        folder.mkdir(exist_ok=True)
        fabric = Fabric(accelerator="cpu", devices=1)
        initial = self.embed()
        self.best = fine_tune(fabric, self.network, self.training_copies, initial, settings, folder=folder, **options)
        return self.state()


@pytest.fixture(scope="module")
def backbone(randomise: Callable) -> Backbone:
    """Read-only."""
    backbone = build_backbone("resnet18", stop_at="layer1")
    randomise(backbone, 0)
    return backbone


@pytest.fixture
def training(toy, backbone: Backbone) -> Callable[..., Training]:
    return lambda images=12: Training([toy.draw(seed) for seed in range(images)], copy.deepcopy(backbone))


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def losses(folder: Path) -> list[float]:
    return [row.loss for row in read_metrics(folder / METRICS, StepMetrics) if row.loss is not None]


def test_each_epoch_uses_every_image_once_in_another_order() -> None:
    epochs = [
        [i for step in steps for i in batch_of(step, images=12, settings=settings_of())[0]]
        for steps in (range(3), range(3, 6))
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_batches_are_always_full() -> None:
    chosen = [batch_of(step, images=11, settings=settings_of())[0] for step in range(40)]
    assert all(len(set(batch)) == 4 for batch in chosen)
    assert set().union(*chosen) == set(range(11))  # an image that one epoch skips is used in another


def test_the_draws_of_a_step_depend_on_the_seed_and_the_step_only() -> None:
    def drawn(step: int, seed: int) -> tuple:
        chosen, draws = batch_of(step, images=12, settings=settings_of(seed=seed))
        return chosen, *[draw.area.tolist() for draw in draws]

    assert drawn(5, 1) == drawn(5, 1)
    assert len({str(drawn(step, seed)) for step in range(4) for seed in range(4)}) == 16
    assert drawn(0, 0)[1] != drawn(0, 0)[2]  # the two views of an image


def test_batch_norm_keeps_its_statistics_and_trains_its_affine_weights(training: Callable, tmp_path: Path) -> None:
    one = training()
    after = one.train(tmp_path, settings_of(steps=1))
    for key, value in after.items():
        buffer = "running_" in key or key.endswith("num_batches_tracked")
        assert torch.equal(value, one.before[key]) == buffer, key
    assert any(key.endswith("bn1.weight") for key in after)
    assert not any(module.training for module in one.network.modules())


def test_frozen_stages_do_not_change_and_the_others_do(training: Callable, tmp_path: Path) -> None:
    one = training()
    after = one.train(tmp_path, settings_of(frozen_up_to="layer1.0", steps=1))
    for key, value in after.items():
        trains = key.startswith("layer1.1.") and "running_" not in key and "num_batches" not in key
        assert torch.equal(value, one.before[key]) != trains, key


def test_freezing_all_stages_is_refused(training: Callable, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--freeze-to layer1: no stage is left to train.*--steps 0"):
        training().train(tmp_path, settings_of(frozen_up_to="layer1"))


def test_training_lowers_the_loss_and_v1_pulls_the_images_to_the_centre(training: Callable, tmp_path: Path) -> None:
    cosines: dict[str, float] = {}
    for recipe in ("v1", "v2"):
        one = training()
        center = recipe_named("v1").center_of(torch.from_numpy(one.embed())).numpy()
        one.train(tmp_path / recipe, settings_of(recipe=recipe, steps=20, batch=8, learning_rate=0.1))
        loss = losses(tmp_path / recipe)
        assert np.mean(loss[-6:]) < np.mean(loss[:6]) - 0.05
        cosines[recipe] = float((one.embed() @ center).mean())
    assert cosines["v1"] > cosines["v2"]


def test_a_step_is_plain_sgd(training: Callable, tmp_path: Path) -> None:
    # Twice the learning rate changes the weights twice as much in the first step. An adaptive optimizer does not.
    moves = []
    for rate in (1e-3, 2e-3):
        one = training()
        after = one.train(tmp_path / f"{rate}", settings_of(steps=1, learning_rate=rate))
        moves.append(torch.cat([(after[key] - one.before[key]).flatten() for key in after]).double())
    torch.testing.assert_close(moves[1], 2 * moves[0], rtol=1e-3, atol=1e-6)
    assert float(moves[0].abs().max()) > 1e-5


def test_without_a_gradient_only_weight_decay_changes_the_weights(training: Callable, tmp_path: Path) -> None:
    # One image per batch: the loss is 0 and so is its gradient. Three steps scale each weight by (1 - 0.1 * 0.2)^3.
    one = training()
    after = one.train(tmp_path, settings_of(batch=1, steps=3, learning_rate=0.1, weight_decay=0.2))
    assert losses(tmp_path) == [0, 0, 0]
    for key, parameter in one.network.backbone.named_parameters():
        torch.testing.assert_close(after[key], 0.98**3 * one.before[key], rtol=1e-5, atol=1e-7, msg=key)
        assert parameter.requires_grad


@pytest.mark.parametrize("rate", [1e8, 1e38])
def test_a_loss_that_is_not_finite_stops_the_training(rate: float, training: Callable, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"loss is no longer finite at step \d+; .*--learning-rate"):
        training().train(tmp_path, settings_of(steps=20, learning_rate=rate))


def test_a_loss_that_is_not_finite_before_any_change_is_not_the_learning_rates_fault(
    training: Callable, tmp_path: Path
) -> None:
    one = training()
    with torch.no_grad():
        next(one.network.backbone.parameters()).fill_(torch.nan)
    with pytest.raises(UsageError, match="not finite at the first step; check the weights"):
        one.train(tmp_path, settings_of(steps=2))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, toy, backbone: Backbone) -> tuple[State, Path]:
    """Final weights and folder of a training of five steps."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    one = Training([toy.draw(seed) for seed in range(12)], copy.deepcopy(backbone))
    return one.train(folder, settings_of(steps=5)), folder


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    training: Callable, uninterrupted: tuple[State, Path], tmp_path: Path
) -> None:
    same, other = (training().train(tmp_path / f"{seed}", settings_of(steps=5, seed=seed)) for seed in (0, 1))
    assert equal(same, uninterrupted[0])
    assert not equal(other, uninterrupted[0])


def test_metrics_have_one_row_per_step(uninterrupted: tuple[State, Path]) -> None:
    rows = read_metrics(uninterrupted[1] / METRICS, StepMetrics)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5]
    for row in rows:
        assert row.loss is not None
        assert row.mean_pairwise_cosine is not None
        assert row.effective_rank is not None
        assert 0 < row.loss < 10
        assert -1 <= row.mean_pairwise_cosine <= 1
        assert 1 <= row.effective_rank <= 7


@pytest.mark.parametrize(
    ("stop", "every"),
    [
        (1, 2),  # before the first checkpoint
        (3, 2),  # after a checkpoint
        (4, 2),  # before the checkpoint of the same step is written
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    stop: int, every: int, training: Callable, uninterrupted: tuple[State, Path], tmp_path: Path
) -> None:
    settings = settings_of(steps=5)
    with pytest.raises(StoppedError):
        training().train(tmp_path, settings, checkpoint_every=every, report=stop_after(stop))
    assert (tmp_path / CHECKPOINT).is_file()  # the first one is written before the first step
    resumed = training().train(tmp_path, settings, checkpoint_every=every, resume=True)
    weights, folder = uninterrupted
    assert equal(resumed, weights)
    assert (tmp_path / METRICS).read_bytes() == (folder / METRICS).read_bytes()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, toy, backbone: Backbone) -> Path:
    """The folder of a training that was interrupted after three of four steps; read-only."""
    folder = tmp_path_factory.mktemp("interrupted")
    one = Training([toy.draw(seed) for seed in range(12)], copy.deepcopy(backbone))
    with pytest.raises(StoppedError):
        one.train(folder, settings_of(), checkpoint_every=1, report=stop_after(3))
    return folder


@pytest.fixture
def started(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted training that a test may change."""
    for name in (CHECKPOINT, METRICS):
        (tmp_path / name).write_bytes((interrupted / name).read_bytes())
    return tmp_path


def test_resuming_after_the_last_step_does_not_train(
    training: Callable, uninterrupted: tuple[State, Path], tmp_path: Path
) -> None:
    weights, folder = uninterrupted
    for name in (CHECKPOINT, METRICS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert equal(training().train(tmp_path, settings_of(steps=5), resume=True), weights)
    assert len(read_metrics(tmp_path / METRICS, StepMetrics)) == 5


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"steps": 5}, {"batch": 3}, {"learning_rate": 2e-2}, {"recipe": "v1"}, {"dtype": "bf16"}]
)
def test_resuming_with_other_settings_is_refused(other: dict, training: Callable, started: Path) -> None:
    with pytest.raises(UsageError, match="other options, images or weights"):
        training().train(started, settings_of(**other), resume=True)


@pytest.mark.parametrize("stop", [1, 3])
def test_resuming_with_other_settings_is_refused_before_the_second_checkpoint_too(
    stop: int, training: Callable, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        training().train(tmp_path, settings_of(), checkpoint_every=20, report=stop_after(stop))
    rows = (tmp_path / METRICS).read_bytes()
    for other in ({"seed": 1}, {"learning_rate": 2e-2}):
        with pytest.raises(UsageError, match="other options, images or weights"):
            training().train(tmp_path, settings_of(**other), resume=True)
    assert (tmp_path / METRICS).read_bytes() == rows
    training().train(tmp_path, settings_of(), resume=True)


def test_a_training_without_a_checkpoint_is_started_again(
    training: Callable, uninterrupted: tuple[State, Path], tmp_path: Path
) -> None:
    """As an older version left it before its first checkpoint."""
    with pytest.raises(StoppedError):
        training().train(tmp_path, settings_of(seed=1), checkpoint_every=20, report=stop_after(2))
    (tmp_path / CHECKPOINT).unlink()
    weights, folder = uninterrupted
    assert equal(training().train(tmp_path, settings_of(steps=5), resume=True), weights)
    assert (tmp_path / METRICS).read_bytes() == (folder / METRICS).read_bytes()


@pytest.mark.parametrize("what", ["weights", "images", "preprocessing", "stage"])
def test_resuming_with_other_weights_or_images_is_refused(
    what: str, training: Callable, started: Path, toy, randomise: Callable
) -> None:
    other = training()
    if what == "stage":
        cut = build_backbone("resnet18", stop_at="layer1.0")
        cut.load_state_dict({key: other.before[key] for key in cut.state_dict()})
        other.network = EmbeddingNetwork(cut, other.network.preprocess.spec).eval()
    elif what == "weights":
        randomise(other.network.backbone, 1)
    elif what == "images":
        other.images[5] = toy.draw(100)
    else:
        other.network = EmbeddingNetwork(other.network.backbone, preset("paper", image_size=32)).eval()
    before = (started / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError, match="other options, images or weights"):
        other.train(started, settings_of(), resume=True)
    assert (started / CHECKPOINT).read_bytes() == before  # the right options can still resume
    assert len(read_metrics(started / METRICS, StepMetrics)) == 3


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(share: float, training: Callable, started: Path) -> None:
    path = started / CHECKPOINT
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(KitError, match=rf"{CHECKPOINT}: damaged, or not a checkpoint; delete .* and train again"):
        training().train(started, settings_of(), resume=True)


def test_a_resumed_training_reports_a_collapse_relative_to_its_first_steps(
    training: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(steps=22)
    with pytest.raises(StoppedError):
        training().train(tmp_path, settings, checkpoint_every=1, report=stop_after(13))
    # As if the embeddings of the first twelve steps covered the whole sphere: those that follow are narrow.
    header, *rows = (tmp_path / METRICS).read_text().splitlines()
    wide = [f"{step},1.0,0.0,7.0,,," for step in range(1, 13)]
    (tmp_path / METRICS).write_text("\n".join([header, *wide, *rows[12:]]) + "\n")
    caplog.clear()
    training().train(tmp_path, settings, checkpoint_every=1, resume=True)
    assert sum("collapsing" in record.getMessage() for record in caplog.records) == 1


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory, toy, backbone: Backbone) -> tuple[Training, State, Path]:
    """A training with checkpoint selection, its final weights and its folder."""
    folder = tmp_path_factory.mktemp("selected")
    one = Training([toy.draw(seed) for seed in range(40)], copy.deepcopy(backbone))
    return one, one.train(folder, selecting()), folder


def test_the_candidates_are_the_frozen_network_regular_steps_and_the_last_step(
    training: Callable, selected: tuple[Training, State, Path], tmp_path: Path
) -> None:
    one, weights, _ = selected
    assert one.best is not None
    assert [candidate.step for candidate in one.best.candidates] == [0, 3, 6, 7]
    assert one.best.candidates[0].selected
    # The weights are those of a training that ends at the selected step.
    other = training(images=40)
    if steps := one.best.step:
        other.train(tmp_path, selecting(steps=steps))
    assert equal(weights, other.state())


def test_the_rows_of_evaluated_steps_have_the_figures_of_the_candidates(selected: tuple[Training, State, Path]) -> None:
    one, _, folder = selected
    rows = read_metrics(folder / METRICS, StepMetrics)
    assert [row.step for row in rows] == list(range(8))
    assert [row.step for row in rows if row.loss is None] == [0]
    assert one.best is not None
    assert [(row.step, row.auroc, row.auroc_error, row.selected) for row in rows if row.auroc is not None] == [
        (each.step, each.auroc, each.error, each.selected) for each in one.best.candidates
    ]
    assert [row.step for row in rows if row.selected][-1] == one.best.step


def test_a_destroyed_network_is_restored(training: Callable, tmp_path: Path) -> None:
    one = training(images=40)
    after = one.train(tmp_path, selecting(learning_rate=1000.0))
    candidates = one.best.candidates
    assert max(candidate.auroc for candidate in candidates[1:]) < candidates[0].auroc
    assert one.best.step == 0
    assert equal(after, one.before)


def test_the_held_out_images_are_not_trained_on(
    training: Callable, selected: tuple[Training, State, Path], tmp_path: Path, toy
) -> None:
    held_out = held_out_for_selection(40)
    one, _, folder = selected
    other = training(images=40)
    other.training_copies = [
        training_copy(toy.draw(100 + i), other.network.preprocess.spec) if i in held_out else each
        for i, each in enumerate(other.training_copies)
    ]
    other.train(tmp_path, selecting())
    assert losses(folder) == losses(tmp_path)
    assert one.best is not None
    assert one.best.candidates != other.best.candidates


@pytest.mark.parametrize(
    ("stop", "every"),
    [
        (3, 3),  # before the evaluation of the same step
        (5, 2),  # between two evaluations
    ],
)
def test_a_resumed_training_selects_the_same_checkpoint(
    stop: int, every: int, training: Callable, selected: tuple[Training, State, Path], tmp_path: Path
) -> None:
    one, weights, folder = selected
    with pytest.raises(StoppedError):
        training(images=40).train(tmp_path, selecting(), checkpoint_every=every, report=stop_after(stop))
    resumed = training(images=40)
    after = resumed.train(tmp_path, selecting(), checkpoint_every=every, resume=True)
    assert one.best is not None
    assert resumed.best.candidates == one.best.candidates
    assert equal(after, weights)
    assert (tmp_path / METRICS).read_bytes() == (folder / METRICS).read_bytes()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_step_reads_nothing_back_from_the_device(recipe: Recipe, backbone: Backbone) -> None:
    """On torch's meta device, reading a value is an error. On a GPU it would wait for the device."""
    meta = torch.device("meta")
    settings = settings_of(recipe=recipe.name)
    network = EmbeddingNetwork(copy.deepcopy(backbone), preset("whole-frame", image_size=32)).to(meta)
    images = [torch.zeros((3, 40 + side, 50), dtype=torch.uint8).to(meta) for side in range(4)]
    _, draws = batch_of(0, images=4, settings=settings)
    views = [make_views(images, draw, size=32, device=meta) for draw in draws]
    first, second = F.normalize(network.backbone(network.preprocess.normalise(torch.cat(views))), dim=1).chunk(2)
    loss = recipe.loss(first, second, torch.zeros(64, device=meta), 0.25)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert loss.shape == ()


def test_metrics_that_are_read_a_step_later_are_the_same(
    training: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: in order, none missing, and recorded before the checkpoint or evaluation of their step."""
    rows, reported = [], []

    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "fine-tuning" and done:
            stored = torch.load(tmp_path / str(behind) / CHECKPOINT, weights_only=True)
            reported.append((done, stored["step"]))

    for behind in (0, 1):
        monkeypatch.setattr(fine_tune_module, "_steps_behind", lambda _, behind=behind: behind)
        training().train(tmp_path / str(behind), settings_of(), checkpoint_every=2, report=report)
        rows.append(read_metrics(tmp_path / str(behind) / METRICS, StepMetrics))
    assert rows[0] == rows[1]
    assert [row.step for row in rows[0]] == [1, 2, 3, 4]
    assert reported == 2 * [(1, 0), (2, 0), (3, 2), (4, 2)]


@pytest.mark.parametrize("behind", [0, 1])
def test_on_step_is_called_with_the_weights_of_that_step(
    behind: int, training: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`behind` is 1 on a GPU: the metrics of a step are read while the next one runs."""
    monkeypatch.setattr(fine_tune_module, "_steps_behind", lambda _: behind)
    one = training()
    seen: dict[int, State] = {}
    one.train(tmp_path / "long", settings_of(steps=3), on_step=lambda step: seen.update({step: one.state()}))
    assert list(seen) == [1, 2, 3]
    for step, weights in seen.items():
        assert equal(weights, training().train(tmp_path / str(step), settings_of(steps=step)))
