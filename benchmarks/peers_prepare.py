"""What peers.py needs before it can measure: environments, models of both sides, and images."""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import cv2
from peers_inside import SIDE

from msc_edge.export.run_images import evenly
from msc_edge.image_files import find_images
from msc_edge.images import read_image

CHECKOUT = Path(__file__).resolve().parent.parent
INSIDE = Path(__file__).with_name("peers_inside.py")
SETS = ("as they are", "1024x1024 PNG")
# The versions that this script was written against; the rest is what pip finds for them.
ANOMALIB = (
    *("anomalib[openvino]==2.7.0", "openvino==2026.4.1", "timm==1.0.31"),
    *("torch==2.14.1", "torchvision==0.29.1", "onnx==1.23.2", "onnxscript==0.7.2"),
)
# Patchcore's choice of patches keeps small tensors among large ones that it frees; glibc's heap grew to 21 GB of holes.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def setup(options: argparse.Namespace) -> None:
    """Install what is not there yet."""

    def install(place: Path, *packages: object) -> None:
        if not (place / "installed").exists():
            venv.create(place, with_pip=True, clear=True)
            subprocess.run([place / "bin/pip", "install", "--quiet", *map(str, packages)], check=True)
            (place / "installed").touch()

    install(options.work / "base", CHECKOUT)
    install(options.work / "bare", f"onnxruntime=={version('onnxruntime')}", f"numpy=={version('numpy')}", "pillow")
    install(options.venv, *ANOMALIB)


def prepare(options: argparse.Namespace) -> None:
    """Train and export each model that is not there yet; what fails is said, and missed later."""
    work, train = options.work, options.shared / "data/magnetic_tile/train/good"
    weights = options.shared / "weights/resnet18_to_layer3.safetensors"

    def run(name: str, *command: object) -> None:
        with (work / f"{name}.log").open("w") as log:
            done = subprocess.run(
                list(map(str, command)), stdout=log, stderr=log, cwd=work, env=os.environ | _MALLOC, check=False
            )
        if done.returncode:
            print(f"{name} failed: {(work / f'{name}.log').read_text().strip().splitlines()[-1]}", flush=True)

    if not (work / "kit").exists():
        program = Path(sys.executable).with_name("msc-edge")
        shutil.rmtree(work / "run", ignore_errors=True)
        backbone = ("--backbone", "resnet18", "--stop-at", "layer3", "--weights", weights, "--image-size", SIDE)
        run("train-msc-edge", program, "train", "--normal", train, "--out", work / "run", "--steps", 0, *backbone)
        run("export-msc-edge", program, "export", work / "run", "--out", work / "kit")
    for kind, count in (("padim", None), ("patchcore", options.patchcore_images)):
        if (work / kind / "trained").exists():
            continue
        shutil.rmtree(work / kind, ignore_errors=True)
        found = sorted(train.resolve().iterdir())
        (chosen := work / kind / "images").mkdir(parents=True)
        for path in evenly(found, count or len(found)):
            (chosen / path.name).symlink_to(path)
        run(f"train-{kind}", options.venv / "bin/python", INSIDE, "train", kind, chosen, weights, work / kind)


def images(options: argparse.Namespace) -> dict[str, list[str]]:
    """The files of each set."""
    found = find_images([options.shared.resolve() / "data/magnetic_tile/test"]).paths
    chosen, large = evenly(found, options.images), []
    (options.work / "large").mkdir(exist_ok=True)
    for path in chosen:
        large.append(options.work / "large" / f"{path.parent.name}-{path.stem}.png")
        if not large[-1].exists():
            image = cv2.resize(read_image(path), (1024, 1024), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(large[-1]), image[..., ::-1])
    return dict(zip(SETS, (list(map(str, chosen)), list(map(str, large))), strict=True))
