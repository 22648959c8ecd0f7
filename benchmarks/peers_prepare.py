"""What peers.py needs before it measures: environments, the models of both sides, and images."""

import argparse
import os
import shutil
import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

import cv2
from common import CHECKOUT, found, msc_edge
from peers_inside import SIDE

from msc_edge.export.run_images import evenly
from msc_edge.images import read_image

INSIDE = Path(__file__).with_name("peers_inside.py")
SETS = ("original files", "1024x1024 PNG")
# The versions that this script was written for; pip chooses the other packages.
ANOMALIB = (
    *("anomalib[openvino]==2.7.0", "openvino==2026.4.1", "timm==1.0.31"),
    *("torch==2.14.1", "torchvision==0.29.1", "onnx==1.23.2", "onnxscript==0.7.2"),
)
# Patchcore's selection of patches fragments glibc's heap, which grew to 21 GB without this setting.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def setup(options: argparse.Namespace) -> None:
    """Install the environments that are missing."""

    def install(folder: Path, *packages: object) -> None:
        if not (folder / "installed").exists():
            venv.create(folder, with_pip=True, clear=True)
            subprocess.run([folder / "bin/pip", "install", "--quiet", *map(str, packages)], check=True)
            (folder / "installed").touch()

    install(options.work / "base", CHECKOUT)
    install(options.work / "bare", f"onnxruntime=={version('onnxruntime')}", f"numpy=={version('numpy')}", "pillow")
    install(options.venv, *ANOMALIB)


def prepare(options: argparse.Namespace) -> None:
    """Train and export the models that are missing. Print a failure and go on: its row of the table then says so."""
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
        shutil.rmtree(work / "run", ignore_errors=True)
        backbone = ("--backbone", "resnet18", "--stop-at", "layer3", "--weights", weights, "--image-size", SIDE)
        run("train-msc-edge", *msc_edge("train", "--normal", train, "--out", work / "run", "--steps", 0, *backbone))
        run("export-msc-edge", *msc_edge("export", work / "run", "--out", work / "kit"))
    for kind, count in (("padim", None), ("patchcore", options.patchcore_images)):
        if (work / kind / "trained").exists():
            continue
        shutil.rmtree(work / kind, ignore_errors=True)
        paths = sorted(train.resolve().iterdir())
        (chosen := work / kind / "images").mkdir(parents=True)
        for path in evenly(paths, count or len(paths)):
            (chosen / path.name).symlink_to(path)
        run(f"train-{kind}", options.venv / "bin/python", INSIDE, "train", kind, chosen, weights, work / kind)


def images(options: argparse.Namespace) -> dict[str, list[str]]:
    """The test images of each set, as paths."""
    chosen = evenly(found(options.shared.resolve() / "data/magnetic_tile/test"), options.images)
    large = []
    (options.work / "large").mkdir(exist_ok=True)
    for path in chosen:
        large.append(options.work / "large" / f"{path.parent.name}-{path.stem}.png")
        if not large[-1].exists():
            image = cv2.resize(read_image(path), (1024, 1024), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(large[-1]), image[..., ::-1])
    return dict(zip(SETS, (list(map(str, chosen)), list(map(str, large))), strict=True))
