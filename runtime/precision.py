"""Float or int8: which model of a kit to use on this processor.

int8 is faster on some processors and slower on others, so `auto` tries both for a second, once per machine and kit.
Each has a bank and limits of its own, so the promise about false alarms is the same; the scores are not.
"""

import hashlib
import json
import platform
import time
from typing import get_args

import numpy as np
import onnxruntime
import platformdirs

from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.files import written_whole
from msc_edge.kit import Kit
from msc_edge.layout import MODELS
from msc_edge.manifest import Precision, PrecisionChoice
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.model import EmbeddingModel
from msc_edge.runtime.processor import about_processor, processor_name

_SECONDS = 1.0
_MOST_ROUNDS = 50
_WORTH_IT = 0.95  # of the time of float: less of a gain is not worth other scores
# Cosine distance between embeddings of one picture. Sums of int8 products are exact where they do not overflow; what
# is left is the rounding of the float layers around them.
_SAME_ARITHMETIC = 1e-3


def opened_model(
    kit: Kit, asked: PrecisionChoice | None, *, threads: int, spin: bool = False
) -> tuple[Precision, EmbeddingModel]:
    """The model to use, and its precision: what was asked for, else what the kit prefers, else what is faster here.

    UsageError for a precision that the kit does not have, and for int8 where `computes_as_made` says no: `auto` then
    takes float.
    """
    if asked is not None and asked not in get_args(PrecisionChoice):
        raise UsageError(f"precision is {asked!r}; expected one of {', '.join(get_args(PrecisionChoice))}")
    wanted = asked or kit.manifest.preferred
    if wanted == "int8" and kit.manifest.int8 is None:
        raise UsageError("this kit has no int8 model; use fp32, or export it again with --precision both")
    if wanted == "auto":
        wanted = _faster(kit, threads, spin) if kit.manifest.int8 else "fp32"
    model = open_model(kit, wanted, threads=threads, spin=spin)
    if wanted == "int8" and not computes_as_made(kit, model):
        raise UsageError(
            f"{MODELS['int8']}: this processor adds up otherwise than the one that it was made with, and its scores "
            "would not be those of its limits; use --precision fp32, or export with the --target of this processor"
        )
    return wanted, model


def computes_as_made(kit: Kit, int8: EmbeddingModel) -> bool:
    """Whether the int8 model embeds the check picture here as it did where it was made."""
    assert kit.manifest.int8 is not None
    expected = np.asarray(kit.manifest.int8.quantization.check)
    found = int8.embed(check_picture(kit.manifest.preprocessing)).astype(np.float64)
    return expected.shape == found.shape and 1 - float(expected @ found) <= _SAME_ARITHMETIC


def check_picture(spec: Preprocessing) -> np.ndarray:
    """The picture that every int8 model is checked with, uint8 (height, width, 3); 96 x 128, or as the region needs.

    In row y and column x: red (2 x + y) mod 256, green (x y / 16) mod 256 rounded down, blue 255 or 0 in a
    chequerboard of eight pixels.
    """
    region = spec.region
    height = region.y + region.height if region else 96
    width = region.x + region.width if region else 128
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + y) % 256, (x * y // 16) % 256, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8)


def open_model(kit: Kit, precision: Precision, *, threads: int, spin: bool = False) -> EmbeddingModel:
    """One of the kit's models, as it is."""
    return EmbeddingModel(kit.path(MODELS[precision]), dim=kit.manifest.model.dim, threads=threads, spin=spin)


def _faster(kit: Kit, threads: int, spin: bool) -> Precision:
    """What a test of a second found to be faster, now or when it was last asked."""
    memory = (
        platformdirs.user_cache_path("msc-edge", appauthor=False) / "precision" / f"{_key(kit, threads, spin)}.json"
    )
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))["precision"]
        if known in kit.manifest.precisions:
            return known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found, milliseconds = measured(kit, threads=threads, spin=spin)
    try:
        with written_whole(memory) as path:
            path.write_text(json.dumps({"precision": found, "milliseconds": milliseconds}) + "\n", encoding="utf-8")
    except MscEdgeError:  # where nothing can be remembered, the next start measures again
        pass
    return found


def measured(kit: Kit, *, threads: int, spin: bool = False) -> tuple[Precision, dict[str, float]]:
    """Which is faster here, and the median milliseconds of both: measured in turns, for a second."""
    models: dict[Precision, EmbeddingModel] = {
        precision: open_model(kit, precision, threads=threads, spin=spin) for precision in kit.manifest.precisions
    }
    if not computes_as_made(kit, models["int8"]):
        return "fp32", {}
    picture = check_picture(kit.manifest.preprocessing)
    for model in models.values():
        model.embed(picture)
    took: dict[Precision, list[float]] = {precision: [] for precision in models}
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end and len(took["int8"]) < _MOST_ROUNDS:
        for precision, model in models.items():
            begun = time.perf_counter()
            model.embed(picture)
            took[precision].append(1000 * (time.perf_counter() - begun))
    medians = {precision: float(np.median(each)) for precision, each in took.items()}
    return ("int8" if medians["int8"] <= _WORTH_IT * medians["fp32"] else "fp32"), medians


def _key(kit: Kit, threads: int, spin: bool) -> str:
    machine = f"{platform.machine()} {processor_name(about_processor())}"
    parts = (kit.sha256, str(threads), str(spin), onnxruntime.__version__, machine)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
