"""Which learning rate, and how many steps: measured on normal pictures and drawn defects alone, no test label read.

    python benchmarks/choose_rate.py SET=DIR [SET=DIR ...] --weights FILE [--backbone mobilenet_v2] --out FILE.jsonl

For each set of normal pictures a fifth is held out (as in training). Defects are made from the held-out pictures by
pasting a piece of another place of the same picture, at random size, turn and brightness (after Li et al., CutPaste,
arXiv 2104.04015). One line a measurement: the AUROC of pasted against plain held-out pictures after 0, 10, 20, ...
steps, with 2-NN over the rest. The table in docs/results.md comes from this.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from sklearn.metrics import roc_auc_score

from msc_edge.bank import Bank
from msc_edge.images import read_image
from msc_edge.preprocessing import preset
from msc_edge.train.backbones import build_backbone
from msc_edge.train.fine_tune import fine_tune
from msc_edge.train.network import EmbeddingNetwork
from msc_edge.train.pictures import find_normals, hold_out, normal_folder
from msc_edge.train.reading import training_copy
from msc_edge.train.recipes import RecipeName, center_of, fine_tuning
from msc_edge.train.weights import load_into, weights_from_file


def paste_defect(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy of a picture with a piece of itself pasted elsewhere: 0.5 to 5 % of the area, or a thin scar."""
    height, width = image.shape[:2]
    area = rng.uniform(0.005, 0.05) * height * width
    ratio = rng.uniform(0.1, 0.3) if rng.random() < 0.5 else rng.uniform(0.4, 2.5)
    rows = int(np.clip(np.sqrt(area / ratio), 2, height // 2))
    columns = int(np.clip(np.sqrt(area * ratio), 2, width // 2))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    piece = image[top : top + rows, left : left + columns].astype(np.float32)
    piece = piece * rng.uniform(0.75, 1.25) + rng.uniform(-20, 20)
    piece = np.rot90(piece, k=int(rng.integers(4))) if rows == columns else piece[:: rng.choice([-1, 1])]
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    pasted = image.copy()
    pasted[top : top + rows, left : left + columns] = piece.clip(0, 255).astype(np.uint8)
    return pasted


def measure(name: str, folder: Path, options: argparse.Namespace, rate: float, recipe: RecipeName) -> None:
    """Fine-tune once and write a line at every tenth step."""
    spec = preset("whole-frame", image_size=options.image_size)
    pictures = hold_out(find_normals(folder)[: options.most], holdout=0.2)
    network = EmbeddingNetwork(build_backbone(options.backbone, stop_at=options.stop_at), spec)
    load_into(network.backbone, weights_from_file(options.weights).state, source=str(options.weights))
    images = {
        role: [read_image(folder / p.path) for p in pictures if p.role == role] for role in ("bank", "calibration")
    }
    rng = np.random.default_rng(options.seed)
    each = max(2, 120 // len(images["calibration"]))
    pasted = [paste_defect(image, rng) for image in images["calibration"] for _ in range(each)]

    def embed(some: list[np.ndarray]) -> np.ndarray:
        return network.embed_all(("", image) for image in some)

    settings = fine_tuning(
        "whole-frame",
        backbone=options.backbone,
        pictures=len(images["bank"]),
        recipe=recipe,
        steps=options.steps,
        batch=options.batch,
        learning_rate=rate,
        precision=options.precision,
        seed=options.seed,
    )
    initial = embed(images["bank"])

    def write(step: int, note: str = "") -> None:
        bank = Bank(initial if step == 0 else embed(images["bank"]))
        good, bad = ([bank.score(e) for e in embed(some)] for some in (images["calibration"], pasted))
        auroc = roc_auc_score([0] * len(good) + [1] * len(bad), good + bad)
        line = {"set": name, "backbone": options.backbone, "recipe": recipe, "rate": rate, "seed": options.seed}
        line |= {"step": step, "synthetic_auroc": round(float(auroc), 4), "note": note}
        print(json.dumps(line), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def report(task: str, done: int, total: int, note: str = "") -> None:  # noqa: ARG001
        if done % options.every == 0:
            write(done, note)

    write(0)
    copies = [training_copy(image, spec) for image in images["bank"]]
    fabric = Fabric(accelerator="cpu", precision="bf16-mixed" if options.precision == "bf16" else "32-true")
    with tempfile.TemporaryDirectory() as scratch:
        center = center_of(torch.from_numpy(initial), recipe)
        fine_tune(
            fabric,
            network,
            copies,
            center,
            settings,
            folder=Path(scratch),
            checkpoint_every=10**9,
            report=report,
        )


def main() -> None:
    """Parse, and measure every set at every rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="NAME=DIR")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--stop-at")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4, 1e-3])
    parser.add_argument("--recipes", nargs="+", default=["v2"])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--most", type=int, default=500, help="pictures of a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for pair in options.sets:
        name, _, folder = pair.partition("=")
        for recipe in options.recipes:
            for rate in options.rates:
                measure(name, normal_folder(Path(folder)), options, rate, recipe)


if __name__ == "__main__":
    main()
