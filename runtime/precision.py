"""Float or int8, and by which engine: how to compute with a kit on this processor.

int8 is faster on some processors and slower on others, and so is OpenVINO where it is installed; `auto` tries them for
a second, once per machine and kit. Each precision has a bank and limits of its own, so the promise about false alarms
is the same; the scores are not. The engines agree on float to 1e-6.
"""

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import platformdirs

from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.files import written_whole
from msc_edge.kit import Kit
from msc_edge.layout import MODELS
from msc_edge.manifest import Precision, PrecisionChoice
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.engine import Embedder, Engine, EngineChoice, engines_here, opened
from msc_edge.runtime.processor import about_processor, processor_name

_SECONDS = 1.0
_MOST_ROUNDS = 50
_LARGEST_MEMORY = 4096  # bytes; what is written has some 150
_WORTH_IT = 0.95  # of the time of float: less of a gain is not worth other scores
# Cosine distance between embeddings of one picture. Sums of int8 products are exact where they do not overflow; what
# is left is the rounding of the float layers around them.
_SAME_ARITHMETIC = 1e-3
# Distance between the embeddings of the two engines: 4e-6 and 0.04 were measured, and 0.4 to 1.2 for an operator that
# OpenVINO computes otherwise (`Resize` with antialiasing, in kits of msc-edge before preprocessing was products).
_SAME_EMBEDDING: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.2}


@dataclass(frozen=True)
class Way:
    """One way to compute with a kit."""

    precision: Precision
    engine: Engine = "onnxruntime"

    def __str__(self) -> str:
        return self.precision if self.engine == "onnxruntime" else f"{self.precision} by OpenVINO"


def opened_model(
    kit: Kit, precision: PrecisionChoice | None, engine: EngineChoice = "auto", *, threads: int, spin: bool = False
) -> tuple[Way, Embedder]:
    """The model to use, and how: what was asked for, else what the kit prefers, else what is faster here.

    UsageError for a precision that the kit does not have, for int8 where `computes_as_made` says no, and for OpenVINO
    where `computes_as_onnxruntime` does: `auto` then takes another.
    """
    for name, asked, choices in (("precision", precision, PrecisionChoice), ("engine", engine, EngineChoice)):
        if asked is not None and asked not in get_args(choices):
            raise UsageError(f"{name} is {asked!r}; expected one of {', '.join(get_args(choices))}")
    wanted = precision or kit.manifest.preferred
    if wanted == "int8" and kit.manifest.int8 is None:
        raise UsageError("this kit has no int8 model; use fp32, or export it again with --precision both")
    ways = ways_of(kit, wanted, engine)
    way = ways[0] if len(ways) == 1 else _faster(kit, ways, threads, spin)
    model = open_model(kit, way, threads=threads, spin=spin)
    if way.precision == "int8" and not computes_as_made(kit, model):
        raise UsageError(
            f"{MODELS['int8']}: this processor adds up otherwise than the one that it was made with, and its scores "
            "would not be those of its limits; use --precision fp32, or export with the --target of this processor"
        )
    if len(ways) == 1 and not computes_as_onnxruntime(kit, way, model):  # among several, the test has asked that
        raise UsageError(
            f"{MODELS[way.precision]}: OpenVINO computes something else here than onnxruntime, which the "
            "limits were set with; use --engine onnxruntime, or export the kit again"
        )
    return way, model


def ways_of(kit: Kit, precision: PrecisionChoice = "auto", engine: EngineChoice = "auto") -> list[Way]:
    """Those that the choices leave open; float by onnxruntime is the first, where it is among them.

    int8 by OpenVINO is taken only where both are named: it rounds otherwise, and scores differ by some per cent.
    """
    precisions = kit.manifest.precisions if precision == "auto" else (precision,)
    engines = engines_here() if engine == "auto" else (engine,)
    ways = [Way(each, by) for each in precisions for by in engines]
    named = precision != "auto" and engine != "auto"
    return [way for way in ways if named or way != Way("int8", "openvino")] or [Way(precisions[0])]


def computes_as_made(kit: Kit, int8: Embedder) -> bool:
    """Whether the int8 model embeds the check picture here as it did where it was made."""
    assert kit.manifest.int8 is not None
    expected = np.asarray(kit.manifest.int8.quantization.check)
    found = int8.embed(check_picture(kit.manifest.preprocessing)).astype(np.float64)
    return expected.shape == found.shape and 1 - float(expected @ found) <= _SAME_ARITHMETIC


def computes_as_onnxruntime(kit: Kit, way: Way, model: Embedder) -> bool:
    """Whether the model of an engine embeds a small and a large picture as onnxruntime does here."""
    if way.engine == "onnxruntime":
        return True
    reference = open_model(kit, Way(way.precision), threads=1)
    pictures = [check_picture(kit.manifest.preprocessing, times=times) for times in (1, 8)]
    apart = [float(np.linalg.norm(model.embed(each) - reference.embed(each))) for each in pictures]
    return max(apart) <= _SAME_EMBEDDING[way.precision]


def check_picture(spec: Preprocessing, *, times: int = 1) -> np.ndarray:
    """The picture that every int8 model is checked with, uint8 (height, width, 3); 96 x 128, or as the region needs.

    Without a region it is `times` as high and as wide. In row y and column x: red (2 x + y) mod 256, green (x y / 16)
    mod 256 rounded down, blue 255 or 0 in a chequerboard of eight pixels.
    """
    region = spec.region
    height = region.y + region.height if region else 96 * times
    width = region.x + region.width if region else 128 * times
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + y) % 256, (x * y // 16) % 256, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8)


def open_model(kit: Kit, way: Way, *, threads: int, spin: bool = False) -> Embedder:
    """One of the kit's models, as it is."""
    path = kit.path(MODELS[way.precision])
    return opened(way.engine, path, dim=kit.manifest.model.dim, threads=threads, spin=spin)


def _faster(kit: Kit, ways: Sequence[Way], threads: int, spin: bool) -> Way:
    """What a test of a second found to be faster, now or when it was last asked."""
    folder = platformdirs.user_cache_path("msc-edge", appauthor=False) / "precision"
    memory = folder / f"{_key(kit, ways, threads, spin)}.json"
    known = _remembered(memory)
    if known and known in ways:
        return known
    found, milliseconds = measured(kit, ways, threads=threads, spin=spin)
    told = {"way": asdict(found), "milliseconds": {str(way): took for way, took in milliseconds.items()}}
    try:
        with written_whole(memory) as path:
            path.write_text(json.dumps(told) + "\n", encoding="utf-8")
    except MscEdgeError:  # where nothing can be remembered, the next start measures again
        pass
    return found


def _remembered(memory: Path) -> Way | None:
    """What an earlier start wrote; None where that is nothing, or cannot be used whatever it is."""
    try:
        if memory.stat().st_size > _LARGEST_MEMORY or not memory.is_file():
            return None
        return Way(**json.loads(memory.read_text(encoding="utf-8"))["way"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def measured(kit: Kit, ways: Sequence[Way], *, threads: int, spin: bool = False) -> tuple[Way, dict[Way, float]]:
    """Which is the fastest here, and the median milliseconds of each: measured in turns, for a second.

    int8 is left out where it does not compute as where it was made, and OpenVINO where not as onnxruntime.
    """
    models = {way: open_model(kit, way, threads=threads, spin=spin) for way in ways}
    models = {
        way: model
        for way, model in models.items()
        if (way.precision == "fp32" or computes_as_made(kit, model)) and computes_as_onnxruntime(kit, way, model)
    }
    picture = check_picture(kit.manifest.preprocessing)
    for model in models.values():
        model.embed(picture)
    took: dict[Way, list[float]] = {way: [] for way in models}
    begun = time.perf_counter()
    for _ in range(_MOST_ROUNDS):
        for way, model in models.items():
            before = time.perf_counter()
            model.embed(picture)
            took[way].append(1000 * (time.perf_counter() - before))
        if time.perf_counter() - begun > _SECONDS:
            break
    medians = {way: float(np.median(each)) for way, each in took.items()}
    return min(medians, key=lambda way: medians[way] * (1 if way == ways[0] else 1 / _WORTH_IT)), medians


def _key(kit: Kit, ways: Sequence[Way], threads: int, spin: bool) -> str:
    machine = f"{platform.machine()} {processor_name(about_processor())}"
    engines = [f"{name} {version(name)}" for name in sorted({way.engine for way in ways})]
    parts = (kit.sha256, *map(str, ways), str(threads), str(spin), *engines, machine)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
