"""Scores under drift: light, colour, focus, position and angle of the camera change, the parts do not.

    python benchmarks/peers.py setup --work DIR [--venv DIR]
    python benchmarks/drift.py --work DIR [--venv DIR] [--shared ../shared] [--sets NAME ...] [--images 300]
        [--out drift]

All contenders were trained on the images as they are, with the same weights (ResNet-18 to layer3, see peers.py). Each
drift changes all test images, normal and anomalous, with a severity from 0 (as they are) to 4:

- darker: each pixel times 1 - 0.1 severity, as when a lamp ages. brighter: times 1 + 0.1 severity, cut off at white.
- colour: red times 1 + 0.04 severity, blue times 1 - 0.04 severity.
- blur: Gaussian, with a standard deviation of 0.4 severity pixels of a view of 224 pixels.
- noise: Gaussian, with a standard deviation of 3 severity grey levels.
- shift: 1 % of the longer side times the severity, to the left or to the right. rotation: by 1.5 degrees times the
  severity, to either side. What comes into the image is reflected at its border.

Printed for each set and drift: AUROC by severity, and the share of normal images that a kit rejects. OUT gets
drift.json with all figures, and a plot for each set. Labels are used for nothing else.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from common import SHARED, LabelledImages, parser_of
from peers_prepare import INSIDE, data_sets, prepare
from sklearn.metrics import roc_auc_score

from msc_edge.export.run_images import evenly
from msc_edge.images import read_image

mpl.use("svg")
from matplotlib import pyplot as plt

PEERS = {"padim": "PaDiM", "patchcore": "PatchCore"}  # MH-PatchCore trains far longer than both
SEVERITIES = range(5)
OURS = {"score": "msc-edge", "image_score": "msc-edge, whole images", "patch_score": "msc-edge, patches"}


def scaled(image: np.ndarray, *factors: float) -> np.ndarray:
    """Each channel times its factor; one factor is for all channels."""
    return np.clip(np.rint(image * np.array(factors)), 0, 255).astype(np.uint8)


def moved(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """An affine map of the image, reflected at its border."""
    size = image.shape[1::-1]
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def blurred(image: np.ndarray, severity: int) -> np.ndarray:
    """Gaussian blur, relative to a view of 224 pixels."""
    return cv2.GaussianBlur(image, (0, 0), 0.4 * severity * max(image.shape[:2]) / 224)


def noisy(image: np.ndarray, severity: int, number: int) -> np.ndarray:
    """Noise of a sensor; the same for each contender."""
    noise = np.random.default_rng(number).normal(0, 3 * severity, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def shifted(image: np.ndarray, severity: int, number: int) -> np.ndarray:
    """Every other image to the left."""
    by = 0.01 * severity * max(image.shape[:2]) * (-1) ** number
    return moved(image, np.array([[1, 0, by], [0, 1, 0]], np.float64))


def turned(image: np.ndarray, severity: int, number: int) -> np.ndarray:
    """Every other image clockwise."""
    height, width = image.shape[:2]
    angle = 1.5 * severity * (-1) ** number
    return moved(image, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1))


DRIFTS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "darker": lambda image, severity, _: scaled(image, 1 - 0.1 * severity),
    "brighter": lambda image, severity, _: scaled(image, 1 + 0.1 * severity),
    "colour": lambda image, severity, _: scaled(image, 1 + 0.04 * severity, 1, 1 - 0.04 * severity),
    "blur": lambda image, severity, _: blurred(image, severity),
    "noise": noisy,
    "shift": shifted,
    "rotation": turned,
}


class Contender:
    """A process that scores image files."""

    def __init__(self, python: Path, kind: str, model: Path, options: argparse.Namespace) -> None:
        self.process = subprocess.Popen(
            [python, INSIDE, "scores", kind, model, str(options.cores), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=options.work,
        )

    def scores(self, files: Sequence[Path]) -> dict[str, list[float]]:
        """Each score of each file, and `reject`."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(list(map(str, files))), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")
        rows = json.loads(line)
        return {name: [row[name] for row in rows] for name in rows[0]}

    def __enter__(self) -> "Contender":
        """The contender itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def drifted(images: Sequence[Path], drift: str, severity: int, folder: Path) -> list[Path]:
    """Write the images, changed by a drift, as PNG."""
    paths = []
    for number, path in enumerate(images):
        image = read_image(path)
        changed = DRIFTS[drift](image, severity, number) if severity else image
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(changed, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return paths


def chosen(images: LabelledImages, most: int) -> LabelledImages:
    """At most so many test images, evenly chosen."""
    share = min(1.0, most / len(images.test))
    normal, anomalous = (evenly(part, round(share * len(part))) for part in (images.normal, images.anomalous))
    return LabelledImages(images.train, normal, anomalous)


def measure(name: str, images: LabelledImages, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """For each drift and each score of each contender: the AUROC by severity; and the kit's rejected normal images."""
    models = prepare(name, images, options, peers=PEERS)
    tested = chosen(images, options.images)
    truth = np.array(tested.truth)
    found: dict[str, dict[str, list[float]]] = {drift: {} for drift in DRIFTS}
    with ExitStack() as stack:
        contenders = {
            "msc-edge": Contender(options.work / "base/bin/python", "detector", models / "kit", options),
            **{
                peer: Contender(options.work / "bare/bin/python", "peer-onnx", models / folder / "raw", options)
                for folder, peer in PEERS.items()
            },
        }
        for contender in contenders.values():
            stack.enter_context(contender)

        def score(drift: str, severity: int) -> dict[str, float]:
            with tempfile.TemporaryDirectory(dir=options.work) as folder:
                paths = drifted(tested.test, drift, severity, Path(folder))
                values: dict[str, float] = {}
                for label, contender in contenders.items():
                    scores = contender.scores(paths)
                    rejected = scores.pop("reject")
                    for part, each in scores.items():
                        values[OURS[part] if label == "msc-edge" else label] = float(roc_auc_score(truth, each))
                    if label == "msc-edge":
                        values["msc-edge: rejected normal images"] = float(np.array(rejected)[~truth].mean())
            return values

        unchanged = score("darker", 0)
        for drift in DRIFTS:
            rows = [unchanged, *(score(drift, severity) for severity in SEVERITIES[1:])]
            found[drift] = {label: [row[label] for row in rows] for label in unchanged}
            print_table(name, drift, found[drift])
    return found


def print_table(name: str, drift: str, found: dict[str, list[float]]) -> None:
    """A Markdown table of one drift."""
    print(f"\n{name}, {drift}\n\n| | {' | '.join(map(str, SEVERITIES))} |\n|{'---|' * (len(SEVERITIES) + 1)}")
    for label, values in found.items():
        cells = (f"{value:.1%}" if "rejected" in label else f"{value:.3f}" for value in values)
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def plot(name: str, found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel for each drift."""
    figure, axes = plt.subplots(2, 4, figsize=(12, 6), sharex=True, sharey=True, layout="constrained")
    styles = ("-o", "--s", ":^", "-v", "--D", ":x")
    for axis, (drift, curves) in zip(axes.flat, found.items(), strict=False):
        shown = {label: values for label, values in curves.items() if "rejected" not in label}
        for style, (label, values) in zip(styles, shown.items(), strict=False):
            axis.plot(SEVERITIES, values, style, label=label, markersize=4)
        axis.set_title(drift)
        axis.set_xticks(SEVERITIES)
        axis.grid(alpha=0.3)
    rates = axes.flat[len(found)]
    rates.axis("off")
    rates.legend(*axes.flat[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.suptitle(f"{name}: image AUROC by severity of the drift")
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Measure, print and plot."""
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of peers.py: environments and models")
    parser.add_argument("--venv", type=Path, help="environment of anomalib; default: a folder in --work")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/ and weights/; default: ../shared")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="such as magnetic_tile; default: all")
    parser.add_argument("--images", type=int, default=300, help="most test images of a set; default: %(default)s")
    parser.add_argument("--cores", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=2000, help="largest memory bank of PatchCore; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("drift"), help="folder to write; default: %(default)s")
    options = parser.parse_args()
    options.work, options.shared = options.work.resolve(), options.shared.resolve()
    options.venv = (options.venv or options.work / "anomalib").resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    figures = options.out / "drift.json"
    found = json.loads(figures.read_text()) if figures.exists() else {}
    for name, images in data_sets(options.shared).items():
        if not options.sets or name in options.sets:
            found[name] = measure(name, images, options)
            figures.write_text(json.dumps(found, indent=1) + "\n")
            plot(name, found[name], options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
