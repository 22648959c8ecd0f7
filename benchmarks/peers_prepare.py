"""What peers.py needs before it measures: environments, data sets, the models of both sides, and large images."""

import argparse
import os
import shutil
import subprocess
import venv
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import cv2
from common import CHECKOUT, LabelledImages, magnetic_tile, msc_edge, papers
from peers_inside import SIDE

from msc_edge.images import read_image

INSIDE = Path(__file__).with_name("peers_inside.py")
TRAIN = Path(__file__).with_name("peers_train.py")
SIZES = ("original files", "1024x1024 PNG")
TILE = "magnetic_tile"
PEERS = {"padim": "PaDiM", "patchcore": "PatchCore", "mh_patchcore": "MH-PatchCore"}
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


def data_sets(shared: Path) -> dict[str, LabelledImages]:
    """magnetic_tile and the six papers, by name."""
    return {TILE: magnetic_tile(shared)} | papers(shared)


def prepare(
    name: str, images: LabelledImages, options: argparse.Namespace, *, peers: Iterable[str] = tuple(PEERS)
) -> Path:
    """Train and export the models of a set that are missing, ours and those of `peers`; returns their folder.

    A failure is printed, and its rows of the tables then say so.
    """
    work, weights = options.work / "models" / name, options.shared / "weights/resnet18_to_layer3.safetensors"
    if not (train := work / "train").is_dir():
        train.mkdir(parents=True)
        for path in images.train:
            (train / path.name).symlink_to(path.resolve())

    def run(log_name: str, *command: object) -> None:
        with (work / f"{log_name}.log").open("w") as log:
            done = subprocess.run(
                list(map(str, command)), stdout=log, stderr=log, cwd=work, env=os.environ | _MALLOC, check=False
            )
        if done.returncode:
            lines = (work / f"{log_name}.log").read_text(errors="replace").strip().splitlines() or ["no message"]
            print(f"{name}, {log_name} failed: {lines[-1]}", flush=True)

    if not (work / "kit").exists():
        shutil.rmtree(work / "run", ignore_errors=True)
        backbone = ("--backbone", "resnet18", "--stop-at", "layer3", "--weights", weights, "--image-size", SIDE)
        run_options = (*backbone, "--steps", 0)
        run("train-msc-edge", *msc_edge("train", "--normal", train, "--out", work / "run", *run_options))
        run("export-msc-edge", *msc_edge("export", work / "run", "--out", work / "kit"))
    for kind in peers:
        if not (work / kind / "trained").exists():
            shutil.rmtree(work / kind, ignore_errors=True)
            python = options.venv / "bin/python"
            what = "all" if name == TILE else "onnx"
            run(f"train-{kind}", python, TRAIN, kind, train, weights, work / kind, options.rows, what)
    return work


def large_images(chosen: list[Path], folder: Path) -> list[Path]:
    """The images enlarged to 1024x1024 pixels, as PNG files."""
    folder.mkdir(exist_ok=True)
    large = []
    for path in chosen:
        large.append(folder / f"{path.parent.name}-{path.stem}.png")
        if not large[-1].exists():
            image = cv2.resize(read_image(path), (1024, 1024), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(large[-1]), image[..., ::-1])
    return large
