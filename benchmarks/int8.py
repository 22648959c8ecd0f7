"""int8 beside float, for a run: how its embeddings and scores agree, what leaving layers in float does, and its time.

    python benchmarks/int8.py RUN

RUN is a run folder of `msc-edge train`, its images where they were. The kit is made as `msc-edge export` makes it, in
a temporary folder. Ranks and distances are over up to 64 held-out images and three spoiled copies of each, as the
gates of the export have them. Time: a frame of 224x224 in memory, the models in turns, median of 8 x --rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from scipy.stats import spearmanr

from msc_edge.bank import Bank
from msc_edge.export.int8 import AgreementTest
from msc_edge.export.pack import export
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.layout import INT8_MODEL, MODEL, MODELS
from msc_edge.progress import silent
from msc_edge.runtime import Detector
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_record import IMAGE_TABLE, read_record


def milliseconds(models: Mapping[str, OnnxRuntimeBackend], rounds: int) -> dict[str, float]:
    """Medians of one frame, in turns of eight, so that each model finds its weights in the cache as it does in use."""
    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    took: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            for _ in range(8):
                begun = time.perf_counter()
                model.embed(frame)
                took[name].append(1000 * (time.perf_counter() - begun))
    return {name: float(np.median(each[len(each) // 10 :])) for name, each in took.items()}


def moved_by_rounding(model: Path, images: RunImages, scratch: Path) -> np.ndarray:
    """By which share of itself each score moves with noise of 1e-7, as of another processor's rounding, on the pixels.

    For 40 held-out images against 150 of the bank; the noise is on the normalised pixels, behind preprocessing.
    """
    sessions = []
    for ends in (("image", "pixels"), ("pixels", "embedding")):
        part = scratch / f"{ends[0]}-{ends[1]}.onnx"
        onnx.utils.extract_model(str(model), str(part), [ends[0]], [ends[1]])
        sessions.append(ort.InferenceSession(str(part), providers=["CPUExecutionProvider"]))

    def pixels(names: Sequence[str]) -> Iterator[np.ndarray]:
        return (sessions[0].run(None, {"image": image[None]})[0] for _, image in images.decoded(names, "rounding"))

    def embedding(of: np.ndarray) -> np.ndarray:
        return sessions[1].run(None, {"pixels": of})[0][0]

    bank = Bank(np.stack([embedding(each) for each in pixels(evenly(images.in_bank, 150))]))
    rng = np.random.default_rng(0)
    moved = []
    for each in pixels(evenly(images.held_out, 40)):
        noisy = (each * (1 + 1e-7 * rng.standard_normal(each.shape))).astype(np.float32)
        before, after = bank.score(embedding(each)), bank.score(embedding(noisy))
        moved.append(abs(after - before) / before)
    return np.array(moved)


def compare(run: Path, scratch: Path, rounds: int) -> None:
    """Measure and print."""
    kit = scratch / "kit"
    manifest = export(run, kit, note=print)
    if manifest.int8 is None:
        return
    how, agreement = manifest.int8.quantization, manifest.int8.agreement
    print(f"the kit, {len(how.in_float)} of {how.layers} layers in float {how.in_float}: {agreement}", flush=True)

    record = read_record(run)
    images = RunImages.found(record, read_image_table(run / IMAGE_TABLE), None, silent)
    detectors = {name: Detector.load(kit, threads=1, precision=name) for name in manifest.precisions}
    score_embedding = AgreementTest(kit / MODEL, detectors["fp32"].bank, record.preprocessing, images)
    ranges = evenly(images.in_bank, how.images)
    Quantizer(
        kit / MODEL,
        lambda: (image for _, image in images.decoded(ranges, "ranges")),
        target=how.target,
        scratch=scratch,
    ).write(scratch / INT8_MODEL)
    print(f"no layer in float: {score_embedding.agreement(score_embedding.opened(scratch / INT8_MODEL))}", flush=True)

    embeddings = {
        name: score_embedding.embedded(score_embedding.opened(kit / MODELS[name])) for name in manifest.precisions
    }
    scores = {
        (bank, name): [detectors[bank].bank.score(row) for row in embeddings[name]]
        for bank in manifest.precisions
        for name in manifest.precisions
    }
    apart = 1 - (embeddings["fp32"] * embeddings["int8"]).sum(axis=1)
    good = scores["fp32", "fp32"][:: len(apart) // agreement.good]
    print(f"median distance of int8 from float {np.median(apart):.4f}; score of good images {np.median(good):.4f}")
    for bank in manifest.precisions:
        rank = np.asarray(spearmanr(scores["fp32", "fp32"], scores[bank, "int8"]))[0]
        print(f"rank correlation of int8 with float, compared with the bank of {bank}: {rank:.4f}")
    models = {name: kit / MODELS[name] for name in manifest.precisions} | {"no layer in float": scratch / INT8_MODEL}
    for name, path in models.items():
        moved = moved_by_rounding(path, images, scratch)
        print(
            f"scores of {name} moved by rounding: {np.median(moved):.2%} (median), {moved.max():.2%} at most",
            flush=True,
        )
    for threads in (1, 2):
        opened = {
            name: OnnxRuntimeBackend(path, dim=manifest.model.dim, threads=threads) for name, path in models.items()
        }
        took = milliseconds(opened, rounds)
        print(f"threads {threads}: " + ", ".join(f"{name} {each:.2f} ms" for name, each in took.items()), end="")
        print(f"; float / int8 {took['fp32'] / took['int8']:.2f}", flush=True)


def main() -> None:
    """Parse and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(options.run, Path(scratch), options.rounds)


if __name__ == "__main__":
    main()
