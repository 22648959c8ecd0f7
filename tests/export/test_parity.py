from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msc_edge.bank import Bank
from msc_edge.calibration import Limit, Limits
from msc_edge.errors import KitError
from msc_edge.export.parity import (
    MIN_COMPARISONS,
    TOLERANCE,
    Comparison,
    TorchScorer,
    check_parity,
    compare,
    parity_images,
    unit_of,
)
from msc_edge.images import read_image
from msc_edge.kit.manifest import Manifest
from msc_edge.runtime import Detector
from msc_edge.scoring import Scoring
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.patches.run_files import read_head
from msc_edge.train.run_record import BANK, PATCHES

LIMITS = Limits(warn=Limit(0.2, 0.05, 0.05), reject=Limit(0.4, 0.01, 0.01))


def shifted(limits: Limits, by: float) -> Limits:
    return Limits(warn=Limit(limits.warn.score + by, 0.05, 0.05), reject=Limit(limits.reject.score + by, 0.01, 0.01))


def comparison(torch_score: float, runtime_score: float) -> Comparison:
    return Comparison("part 7.png", torch_score, runtime_score, embedding_difference=3e-7, patch_difference=None)


def scorer(network: EmbeddingNetwork, bank: Bank) -> TorchScorer:
    return TorchScorer(network, bank, None, Scoring())


SAME = [comparison(0.1, 0.1), comparison(0.3, 0.3), comparison(1.2, 1.2)]


def test_scores_within_the_tolerance_give_the_largest_differences() -> None:
    worst = Comparison("b.png", 0.3, 0.3 + 4e-6, embedding_difference=1e-6, patch_difference=None)
    parity = check_parity([*SAME, worst, comparison(0.5, 0.5 - 2e-6)], LIMITS, LIMITS)
    assert parity.images == 5
    assert parity.changed_verdicts == 0
    assert parity.max_score_difference == pytest.approx(4e-6, rel=1e-3)
    assert parity.max_embedding_difference == 1e-6


@pytest.mark.parametrize("runtime_score", [0.1 + 1.1 * TOLERANCE, 0.1 - 1.1 * TOLERANCE, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_score_beyond_the_tolerance_is_an_error(runtime_score: float, place: int) -> None:
    comparisons = SAME.copy()
    comparisons.insert(place, Comparison("part 8.png", 0.1, runtime_score, 3e-7, None))
    with pytest.raises(KitError, match=r"no kit was written: the exported model scores part 8\.png .*training 0\.1"):
        check_parity(comparisons, LIMITS, LIMITS)


@pytest.mark.parametrize(
    ("torch_score", "runtime_score", "verdicts"),
    [
        (0.4 + 4e-5, 0.4 - 4e-5, r"warn \(0\.39\d+\) .* reject \(0\.40\d+\) in training"),
        (0.2 - 4e-5, 0.2 + 4e-5, r"warn \(0\.20\d+\) .* normal \(0\.19\d+\) in training"),
    ],
)
def test_a_changed_verdict_is_an_error(torch_score: float, runtime_score: float, verdicts: str) -> None:
    with pytest.raises(KitError, match=rf"no kit was written: the verdict of part 7\.png is {verdicts}.*--warn-rate"):
        check_parity([*SAME, comparison(torch_score, runtime_score)], LIMITS, LIMITS)


@pytest.mark.parametrize("by", [-0.02, 2 * TOLERANCE, float("nan")])
def test_a_limit_that_moved_is_an_error_even_if_no_verdict_changed(by: float) -> None:
    with pytest.raises(KitError, match=r"no kit was written: the warn limit is .*train again"):
        check_parity(SAME, LIMITS, shifted(LIMITS, by))


def test_the_image_that_sets_a_limit_may_be_on_either_side_of_it_by_rounding() -> None:
    # It scored 0.2 in training, in a batch of sixteen, which set the limit. Alone it scores a little more in torch, and
    # in the kit exactly the kit's own limit. This is no changed verdict.
    kit_limits = shifted(LIMITS, 3e-7)
    ties = [comparison(0.2 + 1e-7, kit_limits.warn.score), comparison(0.4 - 1e-7, kit_limits.reject.score + 1e-9)]
    assert check_parity([*SAME, *ties], LIMITS, kit_limits).changed_verdicts == 0


def test_held_out_images_come_first_spread_evenly_and_the_bank_fills_up() -> None:
    held_out, in_bank = [f"h{i:03d}" for i in range(100)], [f"b{i:03d}" for i in range(400)]
    many = parity_images(held_out, in_bank)
    assert len(many) == len(set(many)) == MIN_COMPARISONS
    assert set(many) <= set(held_out)
    places = [int(name[1:]) for name in many]
    assert max(np.diff(places)) <= 4
    few = parity_images(held_out[:5], in_bank)
    assert few[:5] == held_out[:5]
    assert len(few) == len(set(few)) == MIN_COMPARISONS
    assert parity_images(["h"], ["b1", "b2"]) == ["h", "b1", "b2"]


@pytest.mark.parametrize("count", [1, 3, 32])
def test_normal_and_anomalous_images_are_compared_in_sufficient_number(
    count: int, drawn_kit: tuple[Path, Manifest], drawn_run: Path, drawn_parts: Path, network_of: Callable
) -> None:
    detector = Detector.load(drawn_kit[0], threads=1)
    bank = Bank(np.load(drawn_run / "bank.npy"))
    images = [(path.name, read_image(path)) for path in sorted(drawn_parts.iterdir())[:count]]
    comparisons = compare(scorer(network_of(drawn_run), bank), detector, iter(images), count=count)
    assert len(comparisons) >= max(MIN_COMPARISONS, 3 * count)
    assert len({each.name for each in comparisons}) == len(comparisons)
    scores = [each.torch_score for each in comparisons]
    assert max(scores) > 5 * min(scores)  # the negatives are far from any good part
    darker = [each.torch_score for each in comparisons if "darker" in each.name]
    assert max(scores) > max(darker) >= min(darker) > min(scores) + 1e-6, "neither a row of the bank nor unlike all"
    assert all(abs(each.torch_score - each.runtime_score) < 1e-5 for each in comparisons)
    assert all(each.embedding_difference < 1e-5 for each in comparisons)


def test_an_image_that_shifting_does_not_change_is_still_compared_with_its_negative(
    drawn_kit: tuple[Path, Manifest], drawn_run: Path, network_of: Callable
) -> None:
    rows = np.linspace(0, 200, 48).astype(np.uint8)[:, None, None]
    image = np.ascontiguousarray(np.broadcast_to(rows, (48, 64, 3)))
    bank = Bank(np.load(drawn_run / "bank.npy"))
    detector = Detector.load(drawn_kit[0], threads=1)
    comparisons = compare(scorer(network_of(drawn_run), bank), detector, [("ramp.png", image)], count=1)
    assert len({round(each.torch_score, 4) for each in comparisons}) == 3


def test_weights_three_steps_of_training_apart_differ(
    drawn_kit: tuple[Path, Manifest], untuned_run: Path, drawn_run: Path, drawn_parts: Path, network_of: Callable
) -> None:
    detector = Detector.load(drawn_kit[0], threads=1)
    images = [(path.name, read_image(path)) for path in sorted(drawn_parts.iterdir())[:4]]
    bank = Bank(np.load(drawn_run / "bank.npy"))
    differences = [
        max(each.embedding_difference for each in compare(scorer(network_of(run), bank), detector, images, count=4))
        for run in (drawn_run, untuned_run)
    ]
    assert differences[0] < 1e-5
    assert differences[1] > 1e-3


@pytest.mark.parametrize("apart", [2 * TOLERANCE, float("nan")])
def test_patch_distances_beyond_the_tolerance_are_an_error(apart: float) -> None:
    worst = replace(comparison(0.1, 0.1), name="part 9.png", patch_difference=apart)
    with pytest.raises(KitError, match=r"no kit was written: the patch distances of part 9\.png differ by"):
        check_parity([*SAME, worst], LIMITS, LIMITS)


def test_maps_and_scores_of_the_runtime_are_those_of_training(
    trained_patch_kit: tuple[Path, Manifest], patch_run: Path, drawn_parts: Path, network_of: Callable
) -> None:
    detector = Detector.load(trained_patch_kit[0], threads=1)
    bank, head = Bank(np.load(patch_run / BANK)), read_head(patch_run / PATCHES)
    reference = TorchScorer(network_of(patch_run), bank, head, detector.scoring)
    image = read_image(drawn_parts / "part_03.png")
    for height, width in ((48, 64), (96, 96), (270, 200)):  # the size of training, of the network, and another
        frame = np.ascontiguousarray(np.resize(image, (height, width, 3)))
        score, output = reference.score(frame)
        found = detector.run(frame)
        assert output.patch_distances is not None
        assert found.patch_distances == pytest.approx(output.patch_distances, rel=1e-4, abs=1e-4)
        assert detector.score(frame).score == pytest.approx(score, abs=1e-6 * unit_of(detector.scoring))
    parity = trained_patch_kit[1].models["fp32"].parity
    assert parity
    assert parity.max_patch_difference is not None
    assert 0 < parity.max_patch_difference < 1e-4
