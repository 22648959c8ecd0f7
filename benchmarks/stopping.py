"""When to stop: what drawn defects say at each step of fine-tuning, and what the test set says at the same step.

    python benchmarks/stopping.py --shared ../shared --out FILE.jsonl [--sets tile PA_BRG01_RL ... cifar:cat ...]

One line a measurement: AUROC of held-out normals against their copies with drawn defects (msc_edge.train.checkpoint_selection:
no test label is read), and image AUROC of the test set, which nothing here depends on. Sets: magnetic_tile; papers
(32 good ones by name to train on, 16 and the 48 defects to test); classes of CIFAR-10 against the rest (1000 to train
on, 200 of each class to test, unzipped at --cifar). Each line is measured once: a script that is broken off goes on.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric

from msc_edge.image_files import find_images
from msc_edge.images import DecodePolicy
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import build_backbone
from msc_edge.train.checkpoint_selection import BestCheckpoint, Selection, held_out_for_selection
from msc_edge.train.collapse import mean_pairwise_cosine
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.loading import decoded, training_copy
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.one_vs_rest.protocol import auroc_of
from msc_edge.train.recipes import fine_tuning
from msc_edge.train.weights import load_into, pretrained_weights


def images_of(name: str, options: argparse.Namespace) -> tuple[list[Path], list[Path], list[bool]]:
    """What to train on, what to test, and which of those are anomalous."""
    if name == "tile":
        folder = options.shared / "data/magnetic_tile"
        train, test = found(folder / "train/good"), found(folder / "test")
        return train, test, [path.parent.name != "good" for path in test]
    if name.startswith("cifar:"):
        normal = name.partition(":")[2]
        test = [path for each in sorted((options.cifar / "test").iterdir()) for path in found(each)[:200]]
        return found(options.cifar / "train" / normal)[:1000], test, [path.parent.name != normal for path in test]
    folder = options.shared / "data/paper" / name
    good, bad = found(folder / "good"), found(folder / "defect")
    return good[:32], good[32:] + bad, [False] * len(good[32:]) + [True] * len(bad)


def found(folder: Path) -> list[Path]:
    """Images below a folder, by name."""
    return list(find_images([folder]).paths)


def measure(name: str, seed: int, options: argparse.Namespace) -> None:
    """Fine-tune once; a line at each of the points."""
    train, test, truth = images_of(name, options)
    spec = preset("whole-frame", image_size=options.image_size)
    network = EmbeddingNetwork(build_backbone(options.backbone, stop_at=options.stop_at), spec)
    weights = pretrained_weights(options.backbone, options.weights)
    load_into(network.backbone, weights.state, source=weights.origin.source)

    def read(paths: list[Path]) -> list[tuple[str, np.ndarray]]:
        return list(decoded(Path("/"), [str(path.resolve()) for path in paths], DecodePolicy(), task="reading"))

    normals, tested = read(train), read(test)
    copies = [training_copy(image, spec) for _, image in normals]
    held_out = held_out_for_selection(len(copies))
    held, others = ([copy for i, copy in enumerate(copies) if (i in held_out) == side] for side in (True, False))
    selection = Selection(network, held, others, seed=seed)
    kept = BestCheckpoint(network.backbone)
    settings = fine_tuning(
        "whole-frame",
        backbone=network.backbone,
        images=len(others),
        recipe=options.recipe,
        steps=max(options.points),
        batch=options.batch,
        learning_rate=options.rate,
        frozen_up_to=options.freeze_to,
        select="last",
        precision=options.precision,
        seed=seed,
    )
    run = {"set": name, "size": options.image_size, "recipe": options.recipe, "rate": options.rate, "seed": seed}
    run |= {"backbone": options.backbone, "batch": options.batch, "freeze_to": options.freeze_to}

    def write(step: int) -> None:
        bank = network.embed_all(normals)
        cosine = mean_pairwise_cosine(torch.from_numpy(bank))
        kept.consider(selection.evaluate(step))
        line = run | kept.candidates[-1].model_dump()
        line |= {"test": round(auroc_of(bank, network.embed_all(tested), truth), 5), "cosine": round(cosine, 5)}
        print(json.dumps(line), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if task == "fine-tuning" and done in options.points:
            write(done)

    if any(run.items() <= line.items() and line["step"] == max(options.points) for line in lines_of(options.out)):
        return
    write(0)
    initial = network.embed_all(normal for i, normal in enumerate(normals) if i not in held_out)
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed" if options.precision == "bf16" else "32-true")
    with tempfile.TemporaryDirectory() as scratch:
        fine_tune(
            fabric, network, others, initial, settings, folder=Path(scratch), checkpoint_every=10**9, report=report
        )


def lines_of(path: Path) -> list[dict]:
    """What was measured before."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Parse, and measure every set with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--cifar", type=Path, default=Path("/tmp/cifar"))
    parser.add_argument("--sets", nargs="+", default=["tile", "cifar:airplane", "cifar:cat", "cifar:horse"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--backbone", default="edge-small")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--stop-at")
    parser.add_argument("--recipe", default="v2")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--freeze-to")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--points", type=int, nargs="+", default=[5, 10, 20, 30, 40, 60, 80])
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.sets:
            measure(name, seed, options)


if __name__ == "__main__":
    main()
