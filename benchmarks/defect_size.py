"""How small a defect can be found at which size of input, and what that costs, measured with drawn defects.

    OMP_NUM_THREADS=1 python benchmarks/defect_size.py --work DIR [--surface brushed] [--contrast 20] [--images 24]

Frames of 1024 x 1024 pixels are drawn: a brushed or a cast surface whose texture, illumination gradient and position of
the feed marks differ in each frame, then blur of the lens and noise of the camera. Within 32 x 32 pixels of a normal
frame the standard deviation is 6 grey levels. For each setting a kit with a frozen edge-small is made of 60 normal
frames in the bank and 100 held-out ones, the number that a limit of the map at 1 % needs.

Then new frames are scored: normal ones, and frames with one defect each, a round spot or a straight scratch, CONTRAST
grey levels lighter or darker than the surface. All sizes are drawn at the same places of the same frames. A defect is
found if the box of a region of the heatmap touches it, or is at most MARGIN pixels away from it.

Times are medians of processor time: one frame in memory, one thread, all settings in turns. Memory is the peak of a
process that scores files (Linux). Frames, kits and scores in DIR are not computed again.
"""

import json
import math
import shutil
import statistics
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import parser_of, run_msc_edge

from msc_edge.anomaly_map import AnomalousRegion
from msc_edge.files import written_whole
from msc_edge.runtime import Detector

SIDE = 1024
BANK, HELD_OUT = 60, 100
ROUNDS = 15  # of the time
MARGIN = 32  # half a patch of 224 x 224 pixels
DIAMETERS = (4, 8, 16, 32, 64)
WIDTHS, LENGTH = (2, 4, 8), 160  # of scratches
SURFACES = ("brushed", "cast")
SETTINGS: dict[str, tuple[str, ...]] = {
    "224": (),
    "448": ("--image-size", "448"),
    "672": ("--image-size", "672"),
    "1024": ("--image-size", "1024"),
    "224, 2x2 tiles": ("--tiles", "2x2"),
    "224, 4x4 tiles": ("--tiles", "4x4"),
}
NORMAL = ("train", "normal")
GROUPS = ("normal", *(f"spot {each}" for each in DIAMETERS), *(f"scratch {each}" for each in WIDTHS))


@dataclass(frozen=True)
class Defect:
    """All that is within `size` / 2 of the points of a line, or of one point; in pixels of the frame."""

    points: np.ndarray  # (n, 2), x and y
    size: float

    @classmethod
    def of(cls, group: str, rng: np.random.Generator) -> "Defect":
        """The defect of a group at a random place. Equal generators give equal places for all groups."""
        kind, size = group.split()
        centre, turn = rng.uniform(64, SIDE - 64, 2), rng.uniform(0, np.pi)
        along = np.linspace(-LENGTH / 2, LENGTH / 2, LENGTH)[:, None] if kind == "scratch" else np.zeros((1, 1))
        return cls((centre + along * (math.cos(turn), math.sin(turn))).clip(0, SIDE - 1), float(size))

    def covers(self) -> np.ndarray:
        """The share of each pixel that the defect covers, float32 (SIDE, SIDE)."""
        blank = np.full((SIDE, SIDE), 255, np.uint8)
        x, y = self.points.round().astype(int).T
        blank[y, x] = 0
        distance = cv2.distanceTransform(blank, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.clip(self.size / 2 - distance + 0.5, 0, 1)

    def distance_to(self, region: AnomalousRegion) -> float:
        """Pixels between the defect and the box of a region, 0 where they touch."""
        low, high = (region.x, region.y), (region.x + region.width, region.y + region.height)
        away = np.linalg.norm(self.points - self.points.clip(low, high), axis=1)
        return max(0.0, float(away.min()) - self.size / 2)


def texture(surface: str, rng: np.random.Generator) -> np.ndarray:
    """Noise of several scales around 0, float32 (SIDE, SIDE); brushed: stretched along the lines of the brush."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for scale, amplitude in ((1, 6.0), (2, 4.0), (4, 4.0), (16, 3.0), (128, 4.0)):
        across = max(2, SIDE // scale // (24 if surface == "brushed" and scale < 128 else 1))
        noise = rng.standard_normal((SIDE // scale, across), np.float32)
        if surface == "cast" and scale <= 4:
            noise = np.abs(noise) * 1.6 - 1.28  # grains
        total += amplitude * cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return total


def frame_of(surface: str, rng: np.random.Generator, defect: Defect | None = None, contrast: float = 0) -> np.ndarray:
    """One frame of a grey camera, uint8 (SIDE, SIDE)."""
    rows, columns = (np.mgrid[:SIDE, :SIDE] / SIDE - 0.5).astype(np.float32)
    shift, turn, sign = rng.uniform(-8, 8), rng.uniform(0, 2 * np.pi), rng.choice((-1, 1))
    pixels = 120 + texture(surface, rng) + 3 * np.sin((rows * SIDE + shift) * (2 * np.pi / 37))  # feed marks
    if defect:
        pixels += sign * contrast * defect.covers()
    pixels *= 1 + rng.uniform(0, 0.25) * (np.cos(turn) * rows + np.sin(turn) * columns)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.7) + 2.5 * rng.standard_normal((SIDE, SIDE), np.float32)
    return pixels.clip(0, 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Frames:
    """The frames of one surface and contrast, as files."""

    folder: Path
    surface: str
    contrast: float
    count: int  # of each group of GROUPS

    def path(self, group: str, number: int) -> Path:
        """The file of a frame."""
        return self.folder / (group if group in NORMAL else f"{group} {self.contrast:g}") / f"{number:03}.png"

    def defect(self, group: str, number: int) -> Defect | None:
        """The defect of a frame, at the same place in all groups."""
        return None if group in NORMAL else Defect.of(group, self._random(group, number, 1))

    def draw(self) -> None:
        """Write the files that are missing. All groups of defects have the same frames."""
        for group in ("train", *GROUPS):
            for number in range(BANK + HELD_OUT if group == "train" else self.count):
                if not (path := self.path(group, number)).exists():
                    rng, defect = self._random(group, number, 0), self.defect(group, number)
                    with written_whole(path, durable=False) as partial:
                        pixels = frame_of(self.surface, rng, defect, self.contrast)
                        partial.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    def _random(self, group: str, number: int, stream: int) -> np.random.Generator:
        kind = NORMAL.index(group) if group in NORMAL else 2
        return np.random.default_rng((SURFACES.index(self.surface), kind, number, stream))


def make_kit(folder: Path, train: Path, options: Iterable[str]) -> Path:
    """The kit of a setting, trained unless it exists."""
    kit = folder / "kit"
    if not kit.exists():
        shutil.rmtree(folder, ignore_errors=True)
        holdout = ("--steps", 0, "--holdout", HELD_OUT / (BANK + HELD_OUT))
        run_msc_edge("train", "--normal", train, "--out", folder / "run", *holdout, *options)
        run_msc_edge("export", folder / "run", "--out", kit, "--precision", "fp32", "--no-thumbnails")
    return kit


def scored(kit: Path, frames: Frames) -> dict[str, Any]:
    """Each group's scores and distances from defect (or normal frame) to nearest region, inf for none; peak memory."""
    detector = Detector.load(kit, threads=1)
    groups: dict[str, dict[str, list[float]]] = {group: {"score": [], "distance": []} for group in GROUPS}
    for group, lists in groups.items():
        for number in range(frames.count):
            result = detector.score_file(frames.path(group, number))
            defect = frames.defect(group, number)
            distances = [defect.distance_to(region) if defect else 0.0 for region in result.regions]
            lists["score"].append(result.score)
            lists["distance"].append(min(distances, default=math.inf))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"groups": groups, "memory": int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6}


def processor_times(detectors: dict[str, Detector]) -> dict[str, float]:
    """Median milliseconds of processor time of one frame, for each setting."""
    frame = np.repeat(frame_of(SURFACES[0], np.random.default_rng(0))[..., None], 3, axis=2)
    recorded: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(1 + ROUNDS):
        for name, detector in detectors.items():
            start = time.thread_time()
            detector.score(frame)
            recorded[name].append(1000 * (time.thread_time() - start))
    return {name: statistics.median(each[1:]) for name, each in recorded.items()}  # the first round is a warm-up


def auroc(normal: list[float], anomalous: list[float]) -> float:
    """The share of pairs in which the anomalous image has the higher score; half of those with equal scores."""
    apart = np.subtract.outer(anomalous, normal)
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def table(title: str, columns: Iterable[object], rows: dict[str, list[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(map(str, [title, *columns]))} |\n{'|---' * (1 + len(next(iter(rows.values()))))}|")
    for name, cells in rows.items():
        print(f"| {' | '.join([name, *cells])} |", flush=True)


def show(results: dict[str, dict[str, Any]], sides: dict[str, int]) -> None:
    """Print what was found, the AUROC, and what was found by the size of a spot in the input."""
    found: dict[str, list[str]] = {}
    areas: dict[str, list[str]] = {}
    by_size: dict[int, list[float]] = {}
    for name, result in results.items():
        groups = result["groups"]
        shares = {group: float((np.array(lists["distance"]) <= MARGIN).mean()) for group, lists in groups.items()}
        found[name] = [f"{shares[group]:.0%}" for group in (*GROUPS[1:], "normal")]
        areas[name] = [f"{auroc(groups['normal']['score'], groups[group]['score']):.3f}" for group in GROUPS[1:]]
        for diameter in DIAMETERS:
            level = math.floor(2 * math.log2(diameter * sides[name] / SIDE))
            by_size.setdefault(level, []).append(shares[f"spot {diameter}"])
    table("share with a region", (*GROUPS[1:], "normal frames"), found)
    table("image AUROC", GROUPS[1:], areas)
    rows = {
        f"{2 ** (level / 2):.1f} to {2 ** (level / 2 + 0.5):.1f}": [f"{share:.0%}" for share in (min(each), max(each))]
        for level, each in sorted(by_size.items())
    }
    table("diameter of a spot in pixels of the input", ["lowest share with a region", "highest"], rows)


def main() -> None:
    """Draw, train, score, measure, and print Markdown tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="frames, kits and scores; 350 MB")
    parser.add_argument("--surface", choices=SURFACES, default="brushed", help="default: %(default)s")
    parser.add_argument("--contrast", type=float, default=20, help="grey levels of 255; default: %(default)s")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--images", type=int, default=24, help="tested frames of each group; default: %(default)s")
    options = parser.parse_args()
    work = options.work / options.surface
    frames = Frames(work / "frames", options.surface, options.contrast, options.images)
    frames.draw()
    kits: dict[str, Path] = {}
    results: dict[str, dict[str, Any]] = {}
    for name in options.settings:
        folder = work / name.replace(", ", "-").replace(" ", "-")
        kits[name] = make_kit(folder, frames.path("train", 0).parent, SETTINGS[name])
        found = folder / f"contrast-{options.contrast:g}-images-{options.images}.json"
        if not found.exists():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found.write_text(json.dumps(process.submit(scored, kits[name], frames).result()), encoding="utf-8")
        results[name] = json.loads(found.read_text(encoding="utf-8"))
    detectors = {name: Detector.load(kit, threads=1) for name, kit in kits.items()}
    sides = {name: detector.manifest.preprocessing.canvas[0] for name, detector in detectors.items()}
    show(results, sides)
    times = processor_times(detectors)
    costs: dict[str, list[str]] = {}
    for name, spent in times.items():
        side, ratio, memory = sides[name], spent / min(times.values()), results[name]["memory"]
        costs[name] = [f"{side} x {side}", f"{spent:.0f} ms", f"{ratio:.1f}", f"{memory:.0f} MB"]
    table("cost of a frame", ["pixels of the input", "time", "ratio", "memory"], costs)


if __name__ == "__main__":
    main()
