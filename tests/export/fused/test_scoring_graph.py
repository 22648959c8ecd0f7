"""The scoring as a graph, against the runtime's own numpy: bank, calibration, map and their place in the frame."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from msc_edge.anomaly_map import AnomalyMap, MapGeometry, smoothed
from msc_edge.bank import Bank
from msc_edge.calibration import Calibration
from msc_edge.export.fused.scoring_graph import LABELS, MAP_SIDE, BankType, Scored, scoring_graph
from msc_edge.kit.model_entry import EmbeddingOutput, Outputs, PatchDistancesOutput
from msc_edge.preprocessing import Preprocessing, Region, Tiles, preset
from msc_edge.scoring import MapSettings, Scale, ScoreKind, Scoring

STRIDE, DIM = 16, 12
SPECS = {
    "whole frame": (preset("whole-frame", image_size=64, margin=8), (97, 131)),
    "without a margin": (preset("whole-frame", image_size=64), (64, 64)),
    "paper, wide": (preset("paper", image_size=224, margin=8), (300, 517)),
    "paper, high": (preset("paper", image_size=224, margin=8), (401, 230)),
    "region": (preset("whole-frame", image_size=64, region=Region(x=7, y=11, width=40, height=30)), (90, 70)),
    "region of the paper": (preset("paper", image_size=224, region=Region(x=5, y=0, width=90, height=61)), (80, 120)),
    "tiles": (preset("whole-frame", image_size=96, tiles=Tiles(rows=2, columns=3, overlap=32), margin=8), (150, 260)),
    "one pixel": (preset("whole-frame", image_size=64, margin=8), (1, 1)),
}


def scored(
    spec: Preprocessing, *, kind: ScoreKind = "both", bank: BankType = "float32", grouped: bool = False
) -> Scored:
    random = np.random.default_rng(len(kind))
    rows = random.normal(size=(50, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    calibration = Calibration(random.normal(1.5, 2, size=60).tolist(), np.arange(60) // 4 if grouped else None)
    scales = {
        "image": Scale(mean=0.1, deviation=0.2),
        "patch": Scale(mean=2.0, deviation=0.7),
    }
    rows_columns = dict(zip(("rows", "columns"), spec.grid(STRIDE), strict=True))
    grid = None if kind == "image" else PatchDistancesOutput(**rows_columns, stride=STRIDE)
    return Scored(
        outputs=Outputs(embedding=EmbeddingOutput(dim=DIM), patch_distances=grid),
        rows=rows,
        k=2,
        scoring=Scoring(
            kind=kind,
            map=None if kind == "image" else MapSettings(smoothing=0.8, least_area=4),
            **(scales if kind == "both" else {}),
        ),
        calibration=calibration,
        limits=calibration.limits(warn_rate=0.2, reject_rate=0.05),
        preprocessing=spec,
        bank=bank,
    )


def run(
    given: Scored, embedding: np.ndarray, distances: np.ndarray | None, size: tuple[int, int], **limits: float
) -> Any:
    model = helper.make_model(
        scoring_graph(given, opset=20), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    own = {"warn": given.limits.warn.score, "reject": given.limits.reject.score} | limits
    feed = {f"{name}_limit": np.array([value]) for name, value in own.items()}
    feed |= {"embedding": embedding[None], "image": np.zeros((1, *size, 3), np.uint8)}
    if distances is not None:
        feed["patch_distances"] = distances[None]
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def drawn(given: Scored, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    random = np.random.default_rng(seed)
    embedding = random.normal(size=DIM)
    embedding = (embedding / np.linalg.norm(embedding)).astype(np.float32)
    grid = given.outputs.patch_distances
    return embedding, grid and random.gamma(2, size=(grid.rows, grid.columns)).astype(np.float32)


@pytest.mark.parametrize("name", SPECS)
def test_the_map_lies_where_the_runtime_puts_it(name: str) -> None:
    spec, (height, width) = SPECS[name]
    given = scored(spec)
    embedding, distances = drawn(given, 3)
    assert distances is not None
    found = run(given, embedding, distances, (height, width))
    grid = smoothed(distances, smoothing=0.8)
    expected = AnomalyMap(grid, MapGeometry.of(spec, height=height, width=width, stride=STRIDE), limit=1, least_area=1)
    assert found["anomaly_map"][0] == pytest.approx(grid, rel=1e-6)
    at_frame = expected.at_frame(height=MAP_SIDE, width=MAP_SIDE)
    assert found["anomaly_map_224"][0] == pytest.approx(at_frame, abs=2e-6 * float(grid.max()))
    assert found["patch_score"] == pytest.approx([expected.peak], rel=1e-6)


@pytest.mark.parametrize("kind", ["image", "patch", "both"])
@pytest.mark.parametrize("grouped", [False, True], ids=["independent", "groups"])
def test_scores_p_values_and_verdicts_are_those_of_the_runtime(kind: ScoreKind, grouped: bool) -> None:
    given = scored(SPECS["whole frame"][0], kind=kind, grouped=grouped)
    bank, verdicts = Bank(given.rows, k=given.k), set()
    for seed in range(12):
        embedding, distances = drawn(given, seed)
        if distances is not None:
            distances *= seed / 4
        found = run(given, embedding, distances, (50, 60))
        image_score = bank.score(embedding)
        patch_score = None if distances is None else float(smoothed(distances, smoothing=0.8).max())
        score = given.scoring.score(image_score, patch_score)
        assert found["image_score"] == pytest.approx([image_score], abs=1e-12)
        assert found["score"] == pytest.approx([score], rel=2e-6, abs=1e-12)
        assert found["p_value"] == pytest.approx([given.calibration.p_value(float(found["score"][0]))], abs=1e-12)
        assert LABELS[found["verdict"][0]] == given.limits.verdict(float(found["score"][0]))
        verdicts.add(int(found["verdict"][0]))
    assert kind != "both" or verdicts == {0, 1, 2}


def test_a_score_equal_to_a_limit_is_not_above_it() -> None:
    given = scored(SPECS["whole frame"][0], kind="image")
    embedding, _ = drawn(given, 0)
    score = float(run(given, embedding, None, (9, 9))["score"][0])
    below = float(np.nextafter(score, -1))
    verdicts = [
        int(run(given, embedding, None, (9, 9), warn=warn, reject=reject)["verdict"][0])
        for warn, reject in ((score, score), (below, score), (below, below), (score, below))
    ]
    assert verdicts == [0, 1, 2, 2]


def test_more_rows_than_candidates_and_fewer() -> None:
    """The nearest rows are found among few candidates; equal rows and small banks have no others."""
    given = scored(SPECS["whole frame"][0], kind="image")
    embedding, _ = drawn(given, 1)
    for rows in (given.rows[:2], given.rows[:5], np.repeat(given.rows[:3], 9, axis=0)):
        few = Scored(**{**given.__dict__, "rows": rows})
        assert run(few, embedding, None, (9, 9))["image_score"] == pytest.approx(
            [Bank(rows).score(embedding)], abs=1e-12
        )


@pytest.mark.parametrize(("bank", "most"), [("float16", 5e-4), ("int8", 4e-3)])
def test_a_rounded_bank_moves_scores_by_its_rounding(bank: BankType, most: float) -> None:
    """A row of length 1 is off by at most half a step in each element: cosine distances by at most the norm of that."""
    given, exact = (scored(SPECS["whole frame"][0], kind="image", bank=each) for each in (bank, "float32"))
    moved = []
    for seed in range(20):
        embedding, _ = drawn(given, seed)
        scores = [run(each, embedding, None, (9, 9))["image_score"][0] for each in (given, exact)]
        moved.append(abs(scores[0] - scores[1]))
    steps = {"float16": 2.0**-11 * np.abs(given.rows), "int8": np.abs(given.rows).max(axis=1, keepdims=True) / 254}
    assert 0 < max(moved) <= np.linalg.norm(np.broadcast_to(steps[bank], given.rows.shape), axis=1).max()
    assert max(moved) < most
