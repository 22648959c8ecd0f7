"""The accuracy part of peers.py: image AUROC and metrics of maps, of each contender on each data set.

Every contender writes its scores and maps in its own environment. The metrics are computed here, for all alike: maps
are enlarged to the size of the mask, bilinearly, and `benchmarks/map_metrics.py` compares the metrics with anomalib's.
Labels and masks take part in nothing else.
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from common import LabelledImages, mask_of
from peers_prepare import INSIDE, PEERS, TILE, data_sets, prepare
from sklearn.metrics import roc_auc_score

from msc_edge.images import read_image
from msc_edge.map_metrics.metrics import MapEvaluation

METRICS = ("image AUROC", "AU-PRO(0.3)", "AU-PRO(0.05)", "pixel AUROC", "AUPIMO")


class Route(NamedTuple):
    """A contender and how it computes."""

    label: str
    kind: str
    environment: str
    model: str
    """Folder within the models of a set."""


def routes(name: str) -> list[Route]:
    """The contenders on a set, those of this project first.

    On the papers anomalib computes in onnxruntime only: magnetic_tile shows how little the ways to compute differ.
    """
    ours = [
        Route("msc-edge, fp32", "detector-heatmap", "base", "kit"),
        Route("msc-edge, int8", "detector-int8-heatmap", "base", "kit"),
    ]
    kinds = (
        ("OpenVINO", "openvino-raw", "anomalib", "raw"),
        ("bare onnxruntime", "peer-onnx", "bare", "raw"),
        ("PyTorch", "peer-torch", "anomalib", "raw"),
        ("OpenVINO, scores as exported", "openvino", "anomalib", ""),
    )
    return ours + [
        Route(f"{peer}, {how}", kind, environment, f"{folder}/{form}")
        for folder, peer in PEERS.items()
        for how, kind, environment, form in kinds
        if name == TILE or kind == "peer-onnx"
    ]


def as_map(anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map at another size, float32 (height, width)."""
    return cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def metrics_of(images: LabelledImages, scores: list[dict[str, float]], maps: Path) -> dict[str, float]:
    """All metrics of one contender. `maps`: the folder with a map for each image of `images.test`."""
    evaluation = MapEvaluation(resamples=1)
    for number, (path, is_anomalous) in enumerate(zip(images.test, images.truth, strict=True)):
        mask = mask_of(path) if is_anomalous else None
        height, width = read_image(path).shape[:2] if mask is None else mask.shape
        if mask is None or mask.any():
            enlarged = as_map(np.load(maps / f"{number}.npy"), height, width)
            evaluation.add(enlarged, mask, "defect" if is_anomalous else "")
    found = evaluation.result().overall
    names = sorted(set(scores[0]) - {"reject"}, key=lambda name: name != "score")
    aurocs = {name: float(roc_auc_score(images.truth, [row[name] for row in scores])) for name in names}
    of_maps = (found.au_pro_30, found.au_pro_5, found.pixel_auroc, found.aupimo)
    rejected = np.mean([row["reject"] for row, truth in zip(scores, images.truth, strict=True) if not truth])
    return {
        METRICS[0]: aurocs.pop("score"),
        **{name: estimate.value for name, estimate in zip(METRICS[1:], of_maps, strict=True) if estimate},
        **{f"image AUROC by {name}": value for name, value in aurocs.items()},
        "rejected normal images": float(rejected),
    }


def measure(route: Route, images: LabelledImages, models: Path, options: argparse.Namespace) -> dict[str, float] | str:
    """The metrics of one contender on one set, or the last line of its error. Kept in a file for the next call."""
    kept = models / f"{route.kind}-{route.model.strip('/').replace('/', '-')}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    python = (options.venv if route.environment == "anomalib" else options.work / route.environment) / "bin/python"
    with tempfile.TemporaryDirectory(dir=options.work) as out:
        done = subprocess.run(
            [python, INSIDE, "maps", route.kind, models / route.model, str(options.cores), out],
            input=json.dumps([str(path.resolve()) for path in images.test]),
            capture_output=True,
            text=True,
            cwd=out,  # OpenVINO's inferencer writes its cache to the working folder
            env=os.environ | {"OMP_NUM_THREADS": str(options.cores)},
            check=False,
        )
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1][:150]
        found = metrics_of(images, json.loads(Path(out, "scores.json").read_text()), Path(out))
    kept.write_text(json.dumps(found))
    return found


def accuracy(options: argparse.Namespace) -> None:
    """Measure, and print a table for each set, and one with the means of the papers."""
    means: dict[str, list[list[float]]] = {}
    for name, images in data_sets(options.shared).items():
        if options.sets and name not in options.sets:
            continue
        models = prepare(name, images, options)
        print(f"\n{name}: {len(images.train)} images to train on; {len(images.normal)} normal and", end=" ")
        print(
            f"{len(images.anomalous)} anomalous images to test\n\n| | {' | '.join(METRICS)} | rejected normal images |"
        )
        print(f"|{'---|' * (len(METRICS) + 2)}", flush=True)
        for route in routes(name):
            found = measure(route, images, models, options)
            if isinstance(found, str):
                print(f"| {route.label} | none: {found.replace('|', '/')} |", flush=True)
                continue
            values = [found[metric] for metric in METRICS]
            if name != TILE:
                means.setdefault(route.label, []).append(values)
            parts = [f"{part.split()[-1]} alone {value:.4f}" for part, value in found.items() if " by " in part]
            cells = [f"{value:.4f}" for value in values]
            cells[0] += f" ({', '.join(parts)})" if parts else ""
            # Raw scores have no threshold.
            cells.append("" if route.model.endswith("raw") else f"{found['rejected normal images']:.1%}")
            print(f"| {route.label} | {' | '.join(cells)} |", flush=True)
        for kind in PEERS:
            if (trained := models / kind / "trained").exists():
                print(f"- {PEERS[kind]}: trained on {trained.read_text()}")
    if means:
        print(f"\nmeans of the papers\n\n| | papers | {' | '.join(METRICS)} |\n|{'---|' * (len(METRICS) + 2)}")
    for label, rows in means.items():
        cells = (f"{value:.4f}" for value in np.mean(rows, axis=0))
        print(f"| {label} | {len(rows)} | {' | '.join(cells)} |")
