"""int8 compared with fp32 for one run: agreement of embeddings and scores, effect of the float layers, and time.

    python benchmarks/int8.py RUN [--only-loss]

RUN is a run folder of `msc-edge train`; its images must still be where they were. Of a run that was held out in turn
only the figures of its kit and the times are printed, because the held-out images are in its banks.

The kit is exported to a temporary folder, as `msc-edge export` does. Loss: AUROC and AU-PRO on the faint anomalies of
the export, with the standard error of each difference: 200 (AU-PRO: 40) resamples of the held-out images, each with its
anomalies. Ranks and distances are over up to 64 held-out images and three synthetic anomalies of each, the same as in
the checks of the export. Time: a frame of 224x224 in memory, the models in turns, median of 8 x --rounds.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msc_edge  # noqa: F401  (first: it turns off the telemetry of onnxruntime)

# isort: split
import numpy as np
import onnx
import onnxruntime as ort
from common import models_of, parser_of, random_frame
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from timing import as_text, medians

from msc_edge.bank import Bank
from msc_edge.describe import describe_default_model
from msc_edge.export.accuracy_loss import MAX_HELD_OUT, Sample, choose_strength, samples
from msc_edge.export.agreement import AgreementTest
from msc_edge.export.pack import export
from msc_edge.export.quantize import Quantizer
from msc_edge.export.run_images import RunImages, evenly
from msc_edge.kit.manifest import Precision
from msc_edge.kit.model_entry import Outputs
from msc_edge.map_metrics.curves import area_metrics
from msc_edge.map_metrics.histograms import ImageHistograms, image_histograms
from msc_edge.runtime import Detector, Result
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.train.dataset import read_image_table
from msc_edge.train.run_record import IMAGE_TABLE, read_record

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def rounding_effect(model: Path, images: RunImages, scratch: Path) -> np.ndarray:
    """Relative change of each score under noise of 1e-7 on the pixels: the rounding of another processor, simulated.

    40 held-out images are scored against 150 images of the bank. The noise is added after preprocessing.
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
    changes = []
    for each in pixels(evenly(images.held_out, 40)):
        noisy = (each * (1 + 1e-7 * rng.standard_normal(each.shape))).astype(np.float32)
        before, after = bank.score(embedding(each)), bank.score(embedding(noisy))
        changes.append(abs(after - before) / before)
    return np.array(changes)


def print_loss(fp32: Detector, int8: Detector, images: RunImages, strength: float) -> None:
    """Print AUROC and AU-PRO of both models on the faint anomalies, and the standard errors of the differences."""
    groups: list[list[Scored]] = []
    for sample in samples(images, fp32.manifest.preprocessing, [strength], most=MAX_HELD_OUT, seed=0):
        if sample.strength == 0:
            groups.append([])
        groups[-1].append(Scored.of(sample, [detector.score(sample.image) for detector in (fp32, int8)]))
    rng = np.random.default_rng(0)
    for name, metric, resamples in (("AUROC", auroc, 200), ("AU-PRO", au_pro, 40)):
        if metric is au_pro and groups[0][0].histograms[0] is None:
            continue
        ours, theirs = metric(groups)
        differences = []
        for _ in range(resamples):
            one, other = metric([groups[place] for place in rng.integers(len(groups), size=len(groups))])
            differences.append(one - other)
        print(
            f"{name} on faint anomalies (strength {strength:.3f}), {len(groups)} normal images: fp32 {ours:.4f}, int8 "
            f"{theirs:.4f}, loss {ours - theirs:+.4f}, standard error {np.std(differences):.4f}",
            flush=True,
        )


class Scored(NamedTuple):
    """An image under both models, fp32 first."""

    anomalous: bool
    scores: list[float]
    histograms: list[ImageHistograms | None]
    """Of the maps; None for a kit without maps, and for an anomaly without a mask."""

    @classmethod
    def of(cls, sample: Sample, results: Sequence[Result]) -> "Scored":
        """The image of `sample`, scored by both models."""
        anomalous = sample.strength > 0
        histograms = [
            image_histograms(each.grid_map.at_input(), sample.mask)
            if each.grid_map and (sample.mask is not None or not anomalous)
            else None
            for each in results
        ]
        return cls(anomalous, [each.score for each in results], histograms)


def auroc(groups: Sequence[Sequence[Scored]]) -> list[float]:
    """AUROC of the scores of both models."""
    images = [each for group in groups for each in group]
    return [
        float(roc_auc_score([each.anomalous for each in images], [each.scores[model] for each in images]))
        for model in (0, 1)
    ]


def au_pro(groups: Sequence[Sequence[Scored]]) -> list[float]:
    """AU-PRO(0.3) of the maps of both models."""
    values = []
    for model in (0, 1):
        images = [(each.anomalous, each.histograms[model]) for group in groups for each in group]
        normal, anomalous = ([found for kind, found in images if kind is is_one and found] for is_one in (False, True))
        (metrics,), _ = area_metrics(normal, anomalous, [np.arange(len(anomalous))], resamples=1, seed=0)
        assert metrics.au_pro_30 is not None
        values.append(metrics.au_pro_30.value)
    return values


def compare(run: Path, scratch: Path, rounds: int, *, only_loss: bool) -> None:
    """Export, compare, measure and print. A run whose export rejects int8 ends after the reason."""
    kit = scratch / "kit"
    manifest = export(run, kit, note=print)
    print(describe_default_model(manifest), flush=True)
    if "int8" not in manifest.models:
        return
    quantization, agreement = manifest.models["int8"].quantization, manifest.models["int8"].agreement
    assert quantization is not None
    assert agreement is not None
    in_float = quantization.float_layers
    print(f"the kit, float layers {len(in_float)} of {quantization.layers} {in_float}: {agreement}", flush=True)

    record = read_record(run)
    images = RunImages.find(record, read_image_table(run / IMAGE_TABLE))
    detectors: dict[Precision, Detector] = {
        precision: Detector.load(kit, threads=1, precision=precision) for precision in PRECISIONS
    }
    if record.in_turn:
        # The held-out images are in the banks of the kit: only trial models without them could be compared here.
        print(f"held out in turn; the loss that export measured with trial models: {agreement.loss}", flush=True)
        with models_of(kit) as files:
            print_all_times({**files}, detectors["fp32"], rounds)
        return
    strength = choose_strength(detectors["fp32"], images, seed=0)
    print_loss(detectors["fp32"], detectors["int8"], images, strength)
    if only_loss:
        return
    with models_of(kit) as files:
        test = AgreementTest(
            files["fp32"],
            detectors["fp32"].manifest.models["fp32"].outputs,
            detectors["fp32"].bank,
            record.preprocessing,
            images,
            maps=record.map,
        )
        ranges = evenly(images.in_bank, quantization.images)
        all_int8 = scratch / "all.int8.onnx"
        Quantizer(
            files["fp32"],
            lambda: (image for _, image in images.decoded(ranges, "ranges")),
            target=quantization.target,
            scratch=scratch,
        ).write(all_int8)
        print(f"without float layers: {test.agreement(test.open(all_int8))}", flush=True)
        embeddings: dict[Precision, np.ndarray] = {
            precision: np.stack([each.embedding for each in test.outputs_of(test.open(files[precision]))])
            for precision in PRECISIONS
        }
        print_distances(embeddings, detectors, agreement.normal_images)
        models = {**files, "int8 without float layers": all_int8}
        for name, path in models.items():
            change = rounding_effect(path, images, scratch)
            print(
                f"scores of {name} changed by rounding: {np.median(change):.2%} (median), {change.max():.2%} (maximum)",
                flush=True,
            )
        print_all_times(models, detectors["fp32"], rounds)


def print_all_times(models: Mapping[str, Path], fp32: Detector, rounds: int) -> None:
    """Print the times on one and on two threads."""
    for threads in (1, 2):
        print_times(models, fp32.manifest.models["fp32"].outputs, threads=threads, rounds=rounds)


def print_distances(
    embeddings: Mapping[Precision, np.ndarray], detectors: Mapping[Precision, Detector], normal: int
) -> None:
    """Print how embeddings and scores of int8 differ from those of fp32.

    `embeddings`: unit rows (n, dim) of the same images; each of the `normal` images comes before its anomalies.
    """
    scores = {
        (bank, precision): [detectors[bank].bank.score(row) for row in embeddings[precision]]
        for bank in PRECISIONS
        for precision in PRECISIONS
    }
    distances = 1 - (embeddings["fp32"] * embeddings["int8"]).sum(axis=1)
    of_normal = scores["fp32", "fp32"][:: len(distances) // normal]
    print(f"median distance of int8 from fp32 {np.median(distances):.4f}; score of normal images", end=" ")
    print(f"{np.median(of_normal):.4f}")
    for bank in PRECISIONS:
        rank = np.asarray(spearmanr(scores["fp32", "fp32"], scores[bank, "int8"]))[0]
        print(f"rank correlation of int8 with fp32, int8 embeddings scored with the {bank} bank: {rank:.4f}")


def print_times(models: Mapping[str, Path], outputs: Outputs, *, threads: int, rounds: int) -> None:
    """Print the median time of one frame; eight in a row, so that the weights are in the cache as in use."""
    frame = random_frame(224, 224)
    actions = {
        name: partial(OnnxRuntimeBackend(path, outputs=outputs, threads=threads).run, frame)
        for name, path in models.items()
    }
    found = medians(actions, rounds=rounds, in_a_row=8, warm_up=max(1, rounds // 10))
    print(f"threads {threads}: {as_text(found)}; fp32 / int8 {found['fp32'] / found['int8']:.2f}", flush=True)


def main() -> None:
    """Compare int8 and fp32 of one run."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder of `msc-edge train`")
    parser.add_argument("--rounds", type=int, default=50, help="of eight frames per model; default: %(default)s")
    parser.add_argument("--only-loss", action="store_true", help="leave out the rest")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(options.run, Path(scratch), options.rounds, only_loss=options.only_loss)


if __name__ == "__main__":
    main()
