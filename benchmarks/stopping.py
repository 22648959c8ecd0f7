"""Checkpoint selection: AUROC on synthetic anomalies and on the test set, at the same steps of fine-tuning.

    python benchmarks/stopping.py --shared ../shared --out FILE.jsonl [--sets tile cifar:cat ...]

Each line of FILE.jsonl is one measured step: the AUROC of held-out normal images against synthetic anomalies made from
them, as in `train/checkpoint_selection.py`, which uses no test label; and `test`, the image AUROC of the test set,
which selects nothing here. Sets:
- tile: magnetic_tile.
- cifar:CLASS: one class of CIFAR-10 against the rest, 1000 images to train on, 200 of each class to test. --cifar is
  the folder of the unzipped data set.
- validation:CLASS: the same with training images only, to choose settings without a test image: the last 200 of the
  class, and the last 100 of each other one.
The papers have too few normal images for checkpoint selection. The script can be stopped and started again: it skips a
run whose last step is in FILE.jsonl.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import SHARED, LabelledImages, found, json_lines, magnetic_tile, parser_of
from networks import pretrained_network

from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import preset
from msc_edge.train.checkpoint_selection import BestCheckpoint, CheckpointEvaluator, held_out_for_selection
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.devices import launch_fabric
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.one_vs_rest.protocol import auroc_of
from msc_edge.train.options import FineTuningOptions
from msc_edge.train.settings import fine_tuning

CIFAR, VALIDATION = "cifar", "validation"


def data_set(name: str, options: argparse.Namespace) -> LabelledImages:
    """The data set of a name, see the docstring of the module."""
    if name == "tile":
        return magnetic_tile(options.shared)
    kind, _, normal = name.partition(":")
    if kind == VALIDATION:
        folders = sorted((options.cifar / "train").iterdir())
        own, others = (found(options.cifar / "train" / normal), [each for each in folders if each.name != normal])
        return LabelledImages(own[:1000], own[-200:], [path for each in others for path in found(each)[-100:]])
    test = [path for each in sorted((options.cifar / "test").iterdir()) for path in found(each)[:200]]
    return LabelledImages(
        train=found(options.cifar / "train" / normal)[:1000],
        normal=[path for path in test if path.parent.name == normal],
        anomalous=[path for path in test if path.parent.name != normal],
    )


def read(paths: list[Path]) -> list[tuple[str, np.ndarray]]:
    """Image files, decoded, with their names."""
    return list(decoded(Path("/"), [str(path.resolve()) for path in paths], DecodePolicy(), task="decoding"))


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """Fine-tune once and write a line at each of --points."""
    run = {"set": name, "size": options.image_size, "recipe": options.recipe, "rate": options.rate, "seed": seed}
    run |= {"backbone": options.backbone, "batch": options.batch, "freeze_to": options.freeze_to}
    if any(run.items() <= line.items() and line["step"] == max(options.points) for line in json_lines(options.out)):
        return
    spec = preset("whole-frame", image_size=options.image_size)
    network = pretrained_network(options.backbone, options.weights, stop_at=options.stop_at, preprocessing=spec)
    images = data_set(name, options)
    normal, test = read(images.train), read(images.test)
    copies = [training_copy(image, spec) for _, image in normal]
    held_out = held_out_for_selection(len(copies))
    held, others = ([copy for i, copy in enumerate(copies) if (i in held_out) == side] for side in (True, False))
    evaluator = CheckpointEvaluator(network, held, others, seed=seed)
    best = BestCheckpoint(network.backbone)
    settings = fine_tuning(
        FineTuningOptions(
            steps=max(options.points),
            batch=options.batch,
            learning_rate=options.rate,
            frozen_up_to=options.freeze_to,
            select="last",
            dtype=options.dtype,
        ),
        backbone=network.backbone,
        images=len(others),
        recipe=options.recipe,
        seed=seed,
    )

    def write(step: int) -> None:
        bank = network.embed_all(normal)
        cosine = mean_pairwise_cosine(torch.from_numpy(bank))
        best.consider(evaluator.evaluate(step))
        line = run | best.candidates[-1].model_dump()
        line |= {"test": round(auroc_of(bank, network.embed_all(test), images.truth), 5), "cosine": round(cosine, 5)}
        print(json.dumps(line), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def write_at_points(step: int) -> None:
        if step in options.points:
            write(step)

    write(0)
    initial = network.embed_all(each for i, each in enumerate(normal) if i not in held_out)
    fabric = launch_fabric("cpu", 1, options.dtype)
    with tempfile.TemporaryDirectory() as scratch:
        fine_tune(
            fabric,
            network,
            others,
            initial,
            settings,
            folder=Path(scratch),
            checkpoint_every=10**9,
            on_step=write_at_points,
        )


def main() -> None:
    """Measure every set with every seed."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--cifar", type=Path, default=Path("/tmp/cifar"), help="default: %(default)s")
    parser.add_argument("--sets", nargs="+", default=["tile", "cifar:airplane", "cifar:cat", "cifar:horse"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--backbone", default="edge-small", help="default: %(default)s")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: those of the backbone")
    parser.add_argument("--stop-at", metavar="STAGE", help="the last stage of the backbone; default: all stages")
    parser.add_argument("--recipe", default="v2", help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate; default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--freeze-to", metavar="STAGE", help="the last frozen stage; default: the product's")
    parser.add_argument("--image-size", type=int, default=128, help="pixels; default: %(default)s")
    parser.add_argument(
        "--points", type=int, nargs="+", default=[5, 10, 20, 30, 40, 60, 80], help="steps to measure at; also step 0"
    )
    parser.add_argument(
        *("--dtype", "--precision"), default="bf16", choices=["fp32", "bf16"], help="of training; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="lines are appended")
    options = parser.parse_args()
    known = ("tile", CIFAR, VALIDATION)
    if unknown := [name for name in options.sets if name.partition(":")[0] not in known]:
        parser.error(f"--sets {unknown[0]}: expected tile, cifar:CLASS or validation:CLASS")
    for seed in options.seeds:
        for name in options.sets:
            measure(name, seed, options)


if __name__ == "__main__":
    main()
