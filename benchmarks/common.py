"""What several benchmarks need: the command line, the data sets, frames, and the models of a kit.

Without torch: some benchmarks print the memory of their own process.
"""

import argparse
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msc_edge.image_files import find_images
from msc_edge.images import decode_image, read_image
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED = CHECKOUT.parent / "shared"
_GREY = 127  # of masks
_NUMBERS_OF_A_TILE = 200  # at most, between two exposures; few jumps lie between 100 and 1000
_TRAINED_ON = 32  # normal images of each paper, the first by name; the others are tested


def parser_of(documentation: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the script."""
    return argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)


def msc_edge(*arguments: object) -> list[str]:
    """The command `msc-edge ARGUMENTS` of this environment."""
    return [sys.executable, "-m", "msc_edge", *map(str, arguments)]


def run_msc_edge(*arguments: object) -> None:
    """Run msc-edge. When it fails, exit with what it printed."""
    done = subprocess.run(msc_edge(*arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"msc-edge {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON Lines file, which may still be growing; none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@dataclass(frozen=True)
class LabelledImages:
    """The image files of one data set, each list in the order of the names."""

    train: list[Path]
    normal: list[Path]
    """Normal test images."""
    anomalous: list[Path]
    """Anomalous test images."""

    @property
    def test(self) -> list[Path]:
        """All test images, the normal ones first."""
        return self.normal + self.anomalous

    @property
    def truth(self) -> list[bool]:
        """Of each image of `test`: whether it is anomalous."""
        return [False] * len(self.normal) + [True] * len(self.anomalous)


def magnetic_tile(shared: Path) -> LabelledImages:
    """magnetic_tile: train/good, test/good, and every other folder of test/."""
    folder = shared / "data/magnetic_tile"
    test = found(folder / "test")
    return LabelledImages(
        train=found(folder / "train/good"),
        normal=[path for path in test if path.parent.name == "good"],
        anomalous=[path for path in test if path.parent.name != "good"],
    )


def tiles_of(names: Sequence[str]) -> np.ndarray:
    """The tile that each image of magnetic_tile shows, by its name; int64 (n,), numbered from 0.

    Each tile was photographed at up to six exposures, in ascending order, and the images were numbered on the way:
    `exp5_num_326642`, `exp6_num_326679`. A new tile begins where the exposure falls back, or the number jumps.
    """
    exposures, numbers = np.array([re.findall("[0-9]+", name) for name in names], dtype=np.int64).T
    order = np.argsort(numbers)
    begins = (np.diff(exposures[order]) <= 0) | (np.diff(numbers[order]) > _NUMBERS_OF_A_TILE)
    tiles = np.empty(len(names), dtype=np.int64)
    tiles[order] = np.concatenate([[0], np.cumsum(begins)])
    return tiles


def papers(shared: Path) -> dict[str, LabelledImages]:
    """The six papers by name: 32 normal images to train on, the other 16 and the 48 defects to test."""
    sets = {}
    for folder in sorted(path for path in (shared / "data/paper").iterdir() if path.is_dir()):
        normal = found(folder / "good")
        sets[folder.name] = LabelledImages(normal[:_TRAINED_ON], normal[_TRAINED_ON:], found(folder / "defect"))
    return sets


def mask_of(image: Path) -> np.ndarray:
    """The ground-truth mask of an anomalous image of magnetic_tile or of a paper, bool (height, width)."""
    if image.parent.name == "defect":  # a paper: defects are black
        path = image.parent.with_name("mask") / image.name.replace("_D_", "_GT_")
        return read_image(path).max(axis=2) <= _GREY
    return read_image(image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}.png").max(axis=2) > _GREY


def found(folder: Path) -> list[Path]:
    """The image files below a folder, by name."""
    return list(find_images([folder]).paths)


def random_frame(width: int, height: int, *, seed: int = 0) -> np.ndarray:
    """Random pixels, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def zipped_images(archive: zipfile.ZipFile, prefix: str = "") -> list[str]:
    """The names of the image files in a zip whose names begin with `prefix`, sorted."""
    names = (name for name in archive.namelist() if name.startswith(prefix))
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))


def read_zipped(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One image of a zip, uint8 (height, width, 3) RGB."""
    return decode_image(np.frombuffer(archive.read(name), np.uint8))


@contextmanager
def models_of(kit: Path) -> Iterator[dict[Precision, Path]]:
    """The ONNX files of a kit, by precision, as long as the context is open."""
    with Kit.open(kit) as opened:
        yield {precision: opened.file(model.file) for precision, model in opened.manifest.models.items()}
