from dataclasses import replace

import pytest

from msc_edge.train.one_vs_rest.cost import Cost, Estimate, description_of, estimate_of, measure_cost
from msc_edge.train.one_vs_rest.protocol import ProtocolOptions, Split, splits_of

# The benchmark of docs/reproduce.md with ResNet-152 on two cores: steps of 16 s, images of 0.15 s.
CIFAR = [Split(f"class {n}", ("",) * 5000, ("",) * 10000, (True,) * 10000) for n in range(10)]
COST = Cost(step=16.0, first_embedding=0.15, embedding=0.1, on_cpu=True)
PAPER = ProtocolOptions(backbone="resnet152", measure_every=7800)


def test_the_paper_takes_two_weeks_on_a_cpu() -> None:
    jobs = [(split, method, 0) for split in CIFAR for method in ("dn2", "v1")]
    steps = {(split.name, method): 7800 if method == "v1" else 0 for split, method, _ in jobs}
    found = estimate_of(jobs, steps, PAPER, COST)
    # Each training image once and the test images once, then one point after the last step of each v1.
    first, later = 10 * 5000 + 10000, 10 * 15000
    assert (found.jobs, found.steps, found.embeddings) == (20, 78000, first + later)
    assert found.seconds == pytest.approx(78000 * 16 + first * 0.15 + later * 0.1)
    assert description_of(found, PAPER) == (
        "about 15 days on this CPU: 20 jobs, 78,000 training steps, 210,000 embeddings. Cheaper: "
        "--backbone efficientnet_lite2 --preset whole-frame, fewer --classes, fewer --method, --images 1000, or a GPU"
    )


@pytest.mark.parametrize(("every", "points"), [(40, 2), (30, 3), (80, 1), (None, 2)])  # None: an epoch, of 78 steps
def test_each_point_of_the_curve_embeds_all_images(every: int | None, points: int) -> None:
    jobs = [(CIFAR[0], "v2", seed) for seed in range(2)]
    found = estimate_of(jobs, {("class 0", "v2"): 80}, replace(PAPER, measure_every=every), COST)
    assert found.embeddings == 15000 + 2 * points * 15000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (80, "80 seconds"), (600, "10 minutes"), (7200, "2 hours"), (130_000, "2 days")],
)
def test_the_time_has_a_unit_that_people_use(seconds: float, text: str) -> None:
    assert description_of(Estimate(1, 2, 3, seconds, True), PAPER).startswith(f"about {text} on this CPU: 1 job, ")


def test_nothing_cheaper_is_named_on_a_gpu_and_for_less_than_a_day() -> None:
    assert "Cheaper" not in description_of(Estimate(1, 2, 3, 1e6, False), PAPER)
    assert "Cheaper" not in description_of(Estimate(1, 2, 3, 86_000, True), PAPER)
    small = replace(PAPER, backbone="efficientnet_lite2", preset="whole-frame")
    assert ". Cheaper: fewer --classes, " in description_of(Estimate(1, 2, 3, 1e6, True), small)


def test_steps_and_embeddings_are_measured_where_they_are_computed(data, options: ProtocolOptions) -> None:
    (split,) = splits_of(data / "train", data / "test", ["blue"], images=8)
    with_training, frozen = (measure_cost(split, methods, options) for methods in (["dn2", "v2"], ["dn2"]))
    assert with_training.on_cpu
    assert with_training.step > 0
    assert frozen.step == 0
    assert min(frozen.first_embedding, frozen.embedding) > 0
