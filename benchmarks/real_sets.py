"""Image AUROC on magnetic_tile and the six papers, from score files that the command line wrote.

    python benchmarks/real_sets.py --shared ../shared --work DIR [--recipes frozen v1 v2] [--sets tile paper]
        [--backbone mobilenet_v2] [--precision int8]

Each run is `msc-edge train`, `msc-edge export`, `msc-edge score`, with the product's defaults (`frozen` is
`--steps 0`): edge-small, or the MobileNetV2 of ../shared/weights; scored in float, unless told otherwise.
magnetic_tile: train/good against test/*. Papers: the first 32 good images by name are trained on, the other 16 are
scored with the 48 defects. Finished runs in --work are kept, so that the script can be broken off. Test labels are read
here, at the end, and nowhere before.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

RECIPES = {"frozen": ["--steps", "0"], "v1": ["--recipe", "v1"], "v2": ["--recipe", "v2"]}


def run(*command: object) -> None:
    """Run msc-edge; stop with what it printed when it fails."""
    done = subprocess.run(
        [Path(sys.executable).with_name("msc-edge"), *map(str, command)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"msc-edge {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def auroc_of(scores: Path, is_bad: str) -> tuple[float, float]:
    """AUROC, and the share of good images rejected, from a score file; the bad ones have `is_bad` in their path."""
    with scores.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not any(row["error"] for row in rows), "an image could not be read"
    bad = np.array([is_bad in row["path"] for row in rows])
    rejected = np.array([row["verdict"] == "reject" for row in rows])
    return float(roc_auc_score(bad, [float(row["score"]) for row in rows])), float(rejected[~bad].mean())


def split_paper(product: Path, work: Path) -> tuple[Path, Path]:
    """Lay out one paper: a folder to train on, and a folder to score with `good` and `defect` in it."""
    train, test = work / "train", work / "test"
    if not test.exists():
        for folder in (train, test / "good", test / "defect"):
            folder.mkdir(parents=True)
        good = sorted((product / "good").iterdir())
        for number, path in enumerate(good):
            shutil.copy(path, train if number < 32 else test / "good")
        for path in (product / "defect").iterdir():
            shutil.copy(path, test / "defect")
    return train, test


def measure(name: str, train: Path, test: Path, is_bad: str, recipe: str, options: argparse.Namespace) -> float:
    """Train, export and score one set with one recipe."""
    steps = ["--steps", options.steps] if options.steps and recipe != "frozen" else []
    grouped = ["--group-by", options.group_by] if options.group_by else []
    parts = [name, options.backbone, recipe, *steps[1:], *(["grouped"] if grouped else []), options.seed]
    place = options.work / "-".join(map(str, parts))
    of = options.precision
    scores, kit, done = place / f"scores-{of}.csv", place / f"kit-{of}", place / f"done-{of}"
    if not (place / "trained").exists():
        shutil.rmtree(place, ignore_errors=True)
        backbone = ["--backbone", options.backbone]
        if options.backbone != "edge-small":
            backbone += ["--weights", options.shared / f"weights/{options.backbone}.safetensors"]
        run(
            "train",
            "--normal",
            train,
            "--out",
            place / "run",
            *backbone,
            "--seed",
            options.seed,
            *RECIPES[recipe],
            *steps,
            *grouped,
        )
        (place / "trained").touch()
    if not done.exists():
        run("export", place / "run", "--out", kit, "--precision", of, "--overwrite")
        run("score", kit, test, "--out", scores, "--precision", of, "--overwrite")
        done.touch()
    auroc, false_alarms = auroc_of(scores, is_bad)
    print(f"| {name} | {recipe} | {options.seed} | {auroc:.4f} | {false_alarms:.3f} |", flush=True)
    return auroc


def main() -> None:
    """Parse, measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=["frozen", "v1", "v2"], choices=list(RECIPES))
    parser.add_argument("--sets", nargs="+", default=["tile", "paper"], choices=["tile", "paper"])
    parser.add_argument("--backbone", default="edge-small", choices=["edge-small", "mobilenet_v2"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8"])
    parser.add_argument("--group-by", help=r"of train; magnetic_tile by tile: 'num_([0-9]+)[0-9][0-9]\.jpg'")
    parser.add_argument("--steps", type=int, help="of v1 and v2; without it, the product's default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| set | recipe | seed | AUROC | rejected good |\n|---|---|---|---|---|")
    for recipe in options.recipes:
        if "tile" in options.sets:
            tile = options.shared / "data/magnetic_tile"
            # Everything below test/ but test/good is defective.
            with_links = options.work / "tile-test"
            if not with_links.exists():
                (with_links / "defect").mkdir(parents=True)
                for kind in (tile / "test").iterdir():
                    place = with_links / (kind.name if kind.name == "good" else f"defect/{kind.name}")
                    place.symlink_to(kind.resolve())
            measure("magnetic_tile", tile, with_links, "/defect/", recipe, options)
        if "paper" in options.sets:
            each = [
                measure(product.name, *split_paper(product, options.work / product.name), "/defect/", recipe, options)
                for product in sorted((options.shared / "data/paper").iterdir())
                if product.is_dir()
            ]
            print(f"| papers, mean of {len(each)} | {recipe} | {options.seed} | {np.mean(each):.4f} | |", flush=True)


if __name__ == "__main__":
    main()
