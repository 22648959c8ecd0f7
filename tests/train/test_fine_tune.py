from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

import msc_edge.train.fine_tune as fine_tune_module
from msc_edge.errors import KitError, UsageError
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import build_backbone
from msc_edge.train.checkpoint import CHECKPOINT
from msc_edge.train.checkpoint_selection import held_out_for_selection
from msc_edge.train.fine_tune import batch_of, fine_tune
from msc_edge.train.loading import training_copy
from msc_edge.train.metrics import METRICS, StepMetrics, read_metrics
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.recipes import FineTuning, RecipeName, center_of, fine_tuning, recipe_loss
from msc_edge.train.views import make_views


def settings_of(**changed) -> FineTuning:
    backbone = build_backbone("resnet18", stop_at="layer2")
    quick = {"backbone": backbone, "images": 12, "steps": 4, "batch": 4, "learning_rate": 1e-2}
    return fine_tuning("whole-frame", **{**quick, **changed})


@dataclass
class StoppedError(Exception):
    """What a test raises to stop a run after a step."""

    step: int


class Bench:
    """Drawn images and a random network, ready to train."""

    def __init__(self, images: list[np.ndarray], randomise: Callable, *, stop_at: str = "layer2") -> None:
        backbone = build_backbone("resnet18", stop_at=stop_at)
        randomise(backbone, 0)
        self.network = EmbeddingNetwork(backbone, preset("whole-frame", image_size=32)).eval()
        self.initial = self.embeddings = self.network.embed_all(("", image) for image in images)
        self.copies = [training_copy(image, self.network.preprocess.spec) for image in images]
        self.before = self.state()
        self.images = images

    def state(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.network.backbone.state_dict().items()}

    def train(self, folder: Path, settings: FineTuning, **options) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        fabric = Fabric(accelerator="cpu", devices=1)
        self.kept = fine_tune(fabric, self.network, self.copies, self.initial, settings, folder=folder, **options)
        self.embeddings = self.network.embed_all(("", image) for image in self.images)
        return self.state()


@pytest.fixture
def bench(toy, randomise: Callable) -> Callable[..., Bench]:
    return lambda images=12, **options: Bench([toy.draw(seed) for seed in range(images)], randomise, **options)


def stopping_after(step: int) -> Callable:
    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "fine-tuning" and done == step:
            raise StoppedError(step)

    return report


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_an_epoch_takes_each_image_once_and_the_next_one_in_another_order() -> None:
    settings = settings_of(images=12, batch=4)
    epochs = [
        [i for step in steps for i in batch_of(step, images=12, settings=settings)[0]]
        for steps in (range(3), range(3, 6))
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_batches_are_always_full() -> None:
    settings = settings_of(images=11, batch=4)
    chosen = [batch_of(step, images=11, settings=settings)[0] for step in range(40)]
    assert all(len(set(batch)) == 4 for batch in chosen)
    assert set().union(*chosen) == set(range(11))  # what an epoch leaves out comes in another


def test_what_a_step_does_depends_on_the_seed_and_the_step_alone() -> None:
    def drawn(step: int, seed: int) -> tuple:
        chosen, draws = batch_of(step, images=12, settings=settings_of(seed=seed))
        return chosen, *[draw.area.tolist() for draw in draws]

    assert drawn(5, 1) == drawn(5, 1)
    assert len({str(drawn(step, seed)) for step in range(4) for seed in range(4)}) == 16
    assert drawn(0, 0)[1] != drawn(0, 0)[2]  # the two views of an image


def test_statistics_of_batch_norm_stay_and_its_affine_weights_train(bench: Callable, tmp_path: Path) -> None:
    table = bench()
    after = table.train(tmp_path, settings_of())
    for key, value in after.items():
        buffer = "running_" in key or key.endswith("num_batches_tracked")
        assert torch.equal(value, table.before[key]) == buffer, key
    assert any(key.endswith("bn1.weight") for key in after)
    assert not any(module.training for module in table.network.modules())


def test_frozen_stages_keep_every_bit_and_the_others_train(bench: Callable, tmp_path: Path) -> None:
    table = bench()
    after = table.train(tmp_path, settings_of(frozen_up_to="layer1"))
    for key, value in after.items():
        trains = key.startswith("layer2.") and "running_" not in key and "num_batches" not in key
        assert torch.equal(value, table.before[key]) != trains, key


def test_freezing_everything_is_refused(bench: Callable, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--freeze-to layer2: nothing is left to train.*--steps 0"):
        bench().train(tmp_path, settings_of(frozen_up_to="layer2"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(bench: Callable, tmp_path: Path) -> None:
    one, same, other = (bench().train(tmp_path / f"{i}", settings_of(seed=seed)) for i, seed in enumerate((3, 3, 4)))
    assert equal(one, same)
    assert not equal(one, other)


@pytest.mark.parametrize("recipe", ["v1", "v2"])
def test_training_lowers_the_loss(recipe, bench: Callable, tmp_path: Path) -> None:
    bench(stop_at="layer1").train(tmp_path, settings_of(recipe=recipe, steps=40, batch=12, learning_rate=0.1))
    loss = [row.loss for row in read_metrics(tmp_path / METRICS, StepMetrics)]
    assert np.mean(loss[-10:]) < np.mean(loss[:10]) - 0.05


def test_the_angular_term_of_v1_draws_the_images_to_the_centre(bench: Callable, tmp_path: Path) -> None:
    def cosine_to_center(recipe) -> float:
        table = bench(stop_at="layer1")
        center = center_of(torch.from_numpy(table.initial), "v1").numpy()
        table.train(tmp_path / recipe, settings_of(recipe=recipe, steps=30, batch=12, learning_rate=0.1))
        return float((table.embeddings @ center).mean())

    assert cosine_to_center("v1") > cosine_to_center("v2")


def test_steps_are_those_of_sgd_without_momentum(bench: Callable, tmp_path: Path) -> None:
    # Twice the rate moves the weights twice as far in the first step; with an optimizer that adapts its steps, not so.
    moves = []
    for rate in (1e-3, 2e-3):
        table = bench()
        after = table.train(tmp_path / f"{rate}", settings_of(steps=1, learning_rate=rate))
        moves.append(torch.cat([(after[key] - table.before[key]).flatten() for key in after]).double())
    torch.testing.assert_close(moves[1], 2 * moves[0], rtol=1e-3, atol=1e-6)
    assert float(moves[0].abs().max()) > 1e-5


def test_where_there_is_nothing_to_tell_apart_weight_decay_is_all_that_moves_the_weights(
    bench: Callable, tmp_path: Path
) -> None:
    # One image a batch: the loss is 0 and so is its gradient. Three steps shrink each weight by (1 - 0.1 * 0.2)^3.
    table = bench()
    settings = settings_of(batch=1, steps=3, learning_rate=0.1).model_copy(update={"weight_decay": 0.2})
    after = table.train(tmp_path, settings)
    assert all(row.loss == 0 for row in read_metrics(tmp_path / METRICS, StepMetrics))
    for key, parameter in table.network.backbone.named_parameters():
        torch.testing.assert_close(after[key], 0.98**3 * table.before[key], rtol=1e-5, atol=1e-7, msg=key)
        assert parameter.requires_grad


def test_metrics_have_a_row_for_every_step(bench: Callable, tmp_path: Path) -> None:
    bench().train(tmp_path, settings_of(steps=5))
    rows = read_metrics(tmp_path / METRICS, StepMetrics)
    assert [row.step for row in rows] == [1, 2, 3, 4, 5]
    assert all(0 < row.loss < 10 for row in rows)
    assert all(-1 <= row.mean_pairwise_cosine <= 1 and 1 <= row.effective_rank <= 7 for row in rows)


@pytest.mark.parametrize("rate", [1e8, 1e20, 1e38])
def test_a_loss_that_is_no_number_stops_the_run(rate: float, bench: Callable, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"loss is no longer finite at step \d+; .*--learning-rate"):
        bench().train(tmp_path, settings_of(steps=20, learning_rate=rate))


@pytest.mark.parametrize(("stop", "every"), [(3, 2), (4, 2), (1, 2), (6, 5)])
def test_resumed_run_equals_an_unbroken_one(stop: int, every: int, bench: Callable, tmp_path: Path) -> None:
    settings = settings_of(steps=7)
    unbroken = bench().train(tmp_path / "unbroken", settings, checkpoint_every=every)
    with pytest.raises(StoppedError):
        bench().train(tmp_path / "broken", settings, checkpoint_every=every, report=stopping_after(stop))
    assert (tmp_path / "broken" / CHECKPOINT).exists() == (stop > every)
    resumed = bench().train(tmp_path / "broken", settings, checkpoint_every=every, resume=True)
    assert equal(resumed, unbroken)
    assert (tmp_path / "broken" / METRICS).read_bytes() == (tmp_path / "unbroken" / METRICS).read_bytes()


def test_resuming_after_the_last_step_trains_no_further(bench: Callable, tmp_path: Path) -> None:
    settings = settings_of()
    after = bench().train(tmp_path, settings)
    assert equal(bench().train(tmp_path, settings, resume=True), after)
    assert len(read_metrics(tmp_path / METRICS, StepMetrics)) == 4


def broken_off(bench: Callable, folder: Path) -> None:
    with pytest.raises(StoppedError):
        bench().train(folder, settings_of(), checkpoint_every=1, report=stopping_after(3))


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"steps": 5}, {"batch": 3}, {"learning_rate": 2e-2}, {"recipe": "v1"}, {"precision": "bf16"}]
)
def test_resuming_with_other_settings_is_refused(other: dict, bench: Callable, tmp_path: Path) -> None:
    broken_off(bench, tmp_path)
    with pytest.raises(UsageError, match="other options, images or weights"):
        bench().train(tmp_path, settings_of(**other), resume=True)


@pytest.mark.parametrize("what", ["weights", "images", "preprocessing", "stage"])
def test_resuming_with_other_weights_or_images_is_refused(
    what: str, bench: Callable, tmp_path: Path, toy, randomise: Callable
) -> None:
    broken_off(bench, tmp_path)
    other = bench(stop_at="layer1") if what == "stage" else bench()
    if what == "weights":
        randomise(other.network.backbone, 1)
    elif what == "images":
        other.images[5] = toy.draw(100)
    elif what == "preprocessing":
        other.network = EmbeddingNetwork(other.network.backbone, preset("paper", image_size=32)).eval()
    other.initial = other.network.embed_all(("", image) for image in other.images)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError, match="other options, images or weights"):
        other.train(tmp_path, settings_of(), resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before  # the right options still find it
    assert len(read_metrics(tmp_path / METRICS, StepMetrics)) == 3


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(share: float, bench: Callable, tmp_path: Path) -> None:
    broken_off(bench, tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(KitError, match=rf"{CHECKPOINT}: cannot be read.*delete .* and train again"):
        bench().train(tmp_path, settings_of(), resume=True)


def test_collapse_is_told_also_when_the_run_was_broken_off_before_it(
    bench: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(steps=30)
    with pytest.raises(StoppedError):
        bench().train(tmp_path, settings, checkpoint_every=1, report=stopping_after(13))
    # As if the first twelve steps had found the images all around the sphere; what follows is narrow beside that.
    header, *rows = (tmp_path / METRICS).read_text().splitlines()
    wide = [f"{step},1.0,0.0,7.0" for step in range(1, 13)]
    (tmp_path / METRICS).write_text("\n".join([header, *wide, *rows[12:]]) + "\n")
    caplog.clear()
    bench().train(tmp_path, settings, checkpoint_every=1, resume=True)
    assert sum("collapsing" in record.getMessage() for record in caplog.records) == 1


def choosing(**changed) -> FineTuning:
    quick = {"images": 40, "steps": 7, "select": "synthetic"}
    return settings_of(**{**quick, **changed}).model_copy(update={"select_every": 3})


def test_the_frozen_network_each_so_many_steps_and_the_last_one_are_candidates(bench: Callable, tmp_path: Path) -> None:
    table = bench(images=40)
    after = table.train(tmp_path, choosing())
    assert [candidate.step for candidate in table.kept.candidates] == [0, 3, 6, 7]
    assert table.kept.candidates[0].kept
    # The weights are those of a run that was to end at the step that was kept.
    other = bench(images=40)
    if steps := table.kept.step:
        other.train(tmp_path / "other", choosing(steps=steps))
    assert equal(after, other.state())


def test_a_network_that_was_destroyed_is_given_back_as_it_was(bench: Callable, tmp_path: Path) -> None:
    table = bench(images=40)
    after = table.train(tmp_path, choosing(learning_rate=2.0))
    candidates = table.kept.candidates
    assert max(candidate.auroc for candidate in candidates[1:]) < candidates[0].auroc
    assert table.kept.step == 0
    assert equal(after, table.before)


def test_images_that_choose_are_not_trained_on(bench: Callable, tmp_path: Path, toy) -> None:
    held_out = held_out_for_selection(40)
    one, other = bench(images=40), bench(images=40)
    other.copies = [
        training_copy(toy.draw(100 + i), other.network.preprocess.spec) if i in held_out else copy
        for i, copy in enumerate(other.copies)
    ]
    for table, folder in ((one, "one"), (other, "other")):
        table.train(tmp_path / folder, choosing())
    assert (tmp_path / "one" / METRICS).read_bytes() == (tmp_path / "other" / METRICS).read_bytes()
    assert one.kept.candidates != other.kept.candidates


@pytest.mark.parametrize(("stop", "every"), [(2, 1), (3, 3), (5, 2), (7, 2)])
def test_a_resumed_run_chooses_as_an_unbroken_one(stop: int, every: int, bench: Callable, tmp_path: Path) -> None:
    unbroken, broken, resumed = (bench(images=40) for _ in range(3))
    expected = unbroken.train(tmp_path / "unbroken", choosing(), checkpoint_every=every)
    with pytest.raises(StoppedError):
        broken.train(tmp_path / "broken", choosing(), checkpoint_every=every, report=stopping_after(stop))
    after = resumed.train(tmp_path / "broken", choosing(), checkpoint_every=every, resume=True)
    assert resumed.kept.candidates == unbroken.kept.candidates
    assert equal(after, expected)


@pytest.mark.parametrize("recipe", get_args(RecipeName))
def test_nothing_of_a_step_is_read_back_from_the_device(recipe: RecipeName) -> None:
    """On torch's device without memory, where asking for a value fails, for which a GPU would be waited for."""
    meta = torch.device("meta")
    settings = settings_of(recipe=recipe)
    network = EmbeddingNetwork(build_backbone("resnet18", stop_at="layer2"), preset("whole-frame", image_size=32))
    network.to(meta)
    images = [torch.zeros((3, 40 + side, 50), dtype=torch.uint8).to(meta) for side in range(4)]
    _, draws = batch_of(0, images=4, settings=settings)
    views = [make_views(images, draw, size=32, device=meta) for draw in draws]
    first, second = F.normalize(network.backbone(network.preprocess.normalise(torch.cat(views))), dim=1).chunk(2)
    loss = recipe_loss(recipe, first, second, torch.zeros(128, device=meta), temperature=0.25)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert loss.shape == ()


def test_figures_that_are_read_a_step_later_are_the_same(
    bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, in the same order and none lost; a step whose weights are saved or chosen from has been told."""
    rows, told = [], []

    def report(task: str, done: int, _total: int, _note: str = "") -> None:
        if task == "fine-tuning":
            told.append((done, (tmp_path / str(behind) / CHECKPOINT).exists()))

    for behind in (0, 1):
        monkeypatch.setattr(fine_tune_module, "_steps_behind", lambda _, behind=behind: behind)
        bench().train(tmp_path / str(behind), settings_of(), checkpoint_every=2, report=report)
        rows.append(read_metrics(tmp_path / str(behind) / METRICS, StepMetrics))
    assert rows[0] == rows[1]
    assert [row.step for row in rows[0]] == [1, 2, 3, 4]
    assert told == 2 * [(1, False), (2, False), (3, True), (4, True)]
