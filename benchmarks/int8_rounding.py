"""What int8 loses on real defects, by how its weights are rounded: magnetic_tile.

    python benchmarks/int8_rounding.py RUN [--shared ../shared] [--work DIR]

RUN is a run folder of `msc-edge train` on magnetic_tile with patches, such as `--backbone edge-small --steps 0`; its
images must still be where they were. int8 models are made from it as `msc-edge export` makes them, with and without
each of the two steps before quantisation; the stem stays in float. For each: AUROC of the kit's score and of its parts
over all test images, and the error, which is the variance of the difference from fp32 as a share of the variance of
fp32, for embeddings and for patch distances. Outputs are kept in --work for the next call. Test labels are used for the
AUROC alone.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from common import SHARED, magnetic_tile, parser_of
from sklearn.metrics import roc_auc_score

from msc_edge.anomaly_map import patch_score
from msc_edge.bank import Bank
from msc_edge.export import quantize
from msc_edge.export.pack import export
from msc_edge.export.quantize import Quantizer
from msc_edge.export.rounding import Rounding
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.images import read_image
from msc_edge.kit.model_entry import Outputs
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.scoring import MapSettings, Scoring, Standard
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_record import IMAGE_TABLE, read_record

EQUAL, GPTQ = (quantize, "equalise"), (Rounding, "apply")
VARIANTS = {  # the steps that are left out
    "nearest step": (EQUAL, GPTQ),
    "more equal ranges, nearest step": (GPTQ,),
    "GPTQ": (EQUAL,),
    "GPTQ and more equal ranges, as built": (),
}
_RANGE_IMAGES = 64  # as in the export


class Found(NamedTuple):
    """Outputs of a model: float32 (images, dim) and (images, patches)."""

    embeddings: np.ndarray
    distances: np.ndarray


def outputs_of(model: Path, outputs: Outputs, paths: Sequence[Path], kept: Path) -> Found:
    """The outputs for image files, from `kept` where they were computed before."""
    if not kept.exists():
        backend = OnnxRuntimeBackend(model, outputs=outputs, threads=1)
        found = [backend.run(read_image(path)) for path in paths]
        np.savez(
            kept,
            embeddings=np.stack([each.embedding for each in found]),
            distances=np.stack([each.patch_distances for each in found if each.patch_distances is not None]),
        )
    with np.load(kept) as file:
        return Found(file["embeddings"], file["distances"])


def aurocs(parts: dict[str, Found], truth: Sequence[bool], settings: MapSettings) -> list[float]:
    """AUROC of the combined score, by whole images, and by patches, against the model's own memory bank."""
    bank = Bank(parts["bank"].embeddings)

    def scores(found: Found) -> tuple[np.ndarray, np.ndarray]:
        by_patches = [patch_score(each, smoothing=settings.smoothing) for each in found.distances]
        return np.array([bank.score(each) for each in found.embeddings]), np.array(by_patches)

    scoring = Scoring.fitted("both", Standard.of_images(*scores(parts["calibration"])), settings)
    images, patches = scores(parts["test"])
    combined = [scoring.score(*each) for each in zip(images.tolist(), patches.tolist(), strict=True)]
    return [float(roc_auc_score(truth, each)) for each in (combined, images, patches)]


def error(found: np.ndarray, fp32: np.ndarray) -> float:
    """The variance of the difference as a share of the variance of fp32."""
    rows, exact = (each.reshape(len(each), -1) for each in (found, fp32))
    return float((rows - exact).var(axis=0).sum() / exact.var(axis=0).sum())


def main() -> None:
    """Make the models, and print a Markdown table."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data/; default: ../shared")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "int8-rounding"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    record, tile = read_record(options.run), magnetic_tile(options.shared)
    assert record.map
    if not (kit := options.work / "kit").exists():
        export(options.run, kit, precision="fp32")
    with Kit.open(kit) as opened:
        entry = opened.model("fp32")
    fp32 = kit / entry.file
    images, folder = RunImages.find(record, read_image_table(options.run / IMAGE_TABLE)), Path(record.folder)
    files = {
        "bank": [folder / name for name in images.in_bank],
        "calibration": [folder / name for name in images.held_out],
        "test": tile.test,
    }
    ranges = [read_image(folder / name) for name in evenly(images.in_bank, _RANGE_IMAGES)]

    def made(name: str, path: Path) -> Path:
        """An int8 model of a variant."""
        if not path.exists():
            with ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
                for owner, step in VARIANTS[name]:
                    stack.enter_context(patch.object(owner, step, lambda *_: None))
                quantizer = Quantizer(fp32, lambda: iter(ranges), target="x86-vnni", scratch=Path(scratch))
                quantizer.write(path, float_layers=quantizer.stem)
        return path

    def found_by(model: Path) -> dict[str, Found]:
        return {
            part: outputs_of(model, entry.outputs, paths, options.work / f"{model.stem}-{part}.npz")
            for part, paths in files.items()
        }

    print("| | AUROC, combined | by whole images | by patches | error of embeddings | of patch distances |")
    print("|---|---|---|---|---|---|")
    floats = found_by(fp32)
    print(
        f"| fp32 | {' | '.join(f'{value:.4f}' for value in aurocs(floats, tile.truth, record.map))} | | |", flush=True
    )
    for number, name in enumerate(VARIANTS):
        parts = found_by(made(name, options.work / f"int8-{number}.onnx"))
        values = [*aurocs(parts, tile.truth, record.map), *map(error, parts["test"], floats["test"])]
        print(f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
