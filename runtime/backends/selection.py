"""Float or int8, and by which backend: how to compute with a kit on this processor.

int8 is faster on some processors and slower on others, and so is OpenVINO where it is installed; `auto` tries them for
a second, once per machine and kit. Each precision has a bank and limits of its own, so the promise about false alarms
is the same; the scores are not. The backends agree on float to 1e-6.
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
from msc_edge.kit.layout import MODELS
from msc_edge.kit.manifest import Precision, PrecisionChoice
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.backends.openvino_backend import Backend, BackendChoice, BackendName, installed_backends, opened
from msc_edge.runtime.processor import about_processor, processor_name

_SECONDS = 1.0
_MOST_ROUNDS = 50
_LARGEST_MEMORY = 4096  # bytes; what is written has some 150
_WORTH_IT = 0.95  # of the time of float: less of a gain is not worth other scores
# Cosine distance between embeddings of one image. Sums of int8 products are exact where they do not overflow; what
# is left is the rounding of the float layers around them.
_SAME_ARITHMETIC = 1e-3
# Distance between the embeddings of the two backends: 4e-6 and 0.04 were measured, and 0.4 to 1.2 for an operator that
# OpenVINO computes otherwise (`Resize` with antialiasing, in kits of msc-edge before preprocessing was products).
_SAME_EMBEDDING: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.2}


@dataclass(frozen=True)
class BackendSpec:
    """One way to compute with a kit."""

    precision: Precision
    backend: BackendName = "onnxruntime"

    def __str__(self) -> str:
        return self.precision if self.backend == "onnxruntime" else f"{self.precision} by OpenVINO"


def select_backend(
    kit: Kit, precision: PrecisionChoice | None, backend: BackendChoice = "auto", *, threads: int, spin: bool = False
) -> tuple[BackendSpec, Backend]:
    """The model to use, and how: what was asked for, else what the kit prefers, else what is faster here.

    UsageError for a precision that the kit does not have, for int8 where `matches_check_embedding` says no, and for OpenVINO
    where `matches_onnxruntime` does: `auto` then takes another.
    """
    for name, asked, choices in (("precision", precision, PrecisionChoice), ("backend", backend, BackendChoice)):
        if asked is not None and asked not in get_args(choices):
            raise UsageError(f"{name} is {asked!r}; expected one of {', '.join(get_args(choices))}")
    wanted = precision or kit.manifest.preferred
    if wanted == "int8" and kit.manifest.int8 is None:
        raise UsageError("this kit has no int8 model; use fp32, or export it again with --precision both")
    ways = backend_specs(kit, wanted, backend)
    way = ways[0] if len(ways) == 1 else _faster(kit, ways, threads, spin)
    model = create_backend(kit, way, threads=threads, spin=spin)
    if way.precision == "int8" and not matches_check_embedding(kit, model):
        raise UsageError(
            f"{MODELS['int8']}: this processor adds up otherwise than the one that it was made with, and its scores "
            "would not be those of its limits; use --precision fp32, or export with the --target of this processor"
        )
    if len(ways) == 1 and not matches_onnxruntime(kit, way, model):  # among several, the test has asked that
        raise UsageError(
            f"{MODELS[way.precision]}: OpenVINO computes something else here than onnxruntime, which the "
            "limits were set with; use --backend onnxruntime, or export the kit again"
        )
    return way, model


def backend_specs(kit: Kit, precision: PrecisionChoice = "auto", backend: BackendChoice = "auto") -> list[BackendSpec]:
    """Those that the choices leave open; float by onnxruntime is the first, where it is among them.

    int8 by OpenVINO is taken only where both are named: it rounds otherwise, and scores differ by some per cent.
    """
    precisions = kit.manifest.precisions if precision == "auto" else (precision,)
    backends = installed_backends() if backend == "auto" else (backend,)
    ways = [BackendSpec(each, by) for each in precisions for by in backends]
    named = precision != "auto" and backend != "auto"
    return [way for way in ways if named or way != BackendSpec("int8", "openvino")] or [BackendSpec(precisions[0])]


def matches_check_embedding(kit: Kit, int8: Backend) -> bool:
    """Whether the int8 model embeds the check image here as it did where it was made."""
    assert kit.manifest.int8 is not None
    expected = np.asarray(kit.manifest.int8.quantization.check)
    found = int8.embed(check_image(kit.manifest.preprocessing)).astype(np.float64)
    return expected.shape == found.shape and 1 - float(expected @ found) <= _SAME_ARITHMETIC


def matches_onnxruntime(kit: Kit, way: BackendSpec, model: Backend) -> bool:
    """Whether the model of an backend embeds a small and a large image as onnxruntime does here."""
    if way.backend == "onnxruntime":
        return True
    reference = create_backend(kit, BackendSpec(way.precision), threads=1)
    images = [check_image(kit.manifest.preprocessing, times=times) for times in (1, 8)]
    apart = [float(np.linalg.norm(model.embed(each) - reference.embed(each))) for each in images]
    return max(apart) <= _SAME_EMBEDDING[way.precision]


def check_image(spec: Preprocessing, *, times: int = 1) -> np.ndarray:
    """The image that every int8 model is checked with, uint8 (height, width, 3); 96 x 128, or as the region needs.

    Without a region it is `times` as high and as wide. In row y and column x: red (2 x + y) mod 256, green (x y / 16)
    mod 256 rounded down, blue 255 or 0 in a chequerboard of eight pixels.
    """
    region = spec.region
    height = region.y + region.height if region else 96 * times
    width = region.x + region.width if region else 128 * times
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + y) % 256, (x * y // 16) % 256, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8)


def create_backend(kit: Kit, way: BackendSpec, *, threads: int, spin: bool = False) -> Backend:
    """One of the kit's models, as it is."""
    path = kit.path(MODELS[way.precision])
    return opened(way.backend, path, dim=kit.manifest.model.dim, threads=threads, spin=spin)


def _faster(kit: Kit, ways: Sequence[BackendSpec], threads: int, spin: bool) -> BackendSpec:
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


def _remembered(memory: Path) -> BackendSpec | None:
    """What an earlier start wrote; None where that is nothing, or cannot be used whatever it is."""
    try:
        if memory.stat().st_size > _LARGEST_MEMORY or not memory.is_file():
            return None
        return BackendSpec(**json.loads(memory.read_text(encoding="utf-8"))["way"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def measured(
    kit: Kit, ways: Sequence[BackendSpec], *, threads: int, spin: bool = False
) -> tuple[BackendSpec, dict[BackendSpec, float]]:
    """Which is the fastest here, and the median milliseconds of each: measured in turns, for a second.

    int8 is left out where it does not compute as where it was made, and OpenVINO where not as onnxruntime.
    """
    models = {way: create_backend(kit, way, threads=threads, spin=spin) for way in ways}
    models = {
        way: model
        for way, model in models.items()
        if (way.precision == "fp32" or matches_check_embedding(kit, model)) and matches_onnxruntime(kit, way, model)
    }
    image = check_image(kit.manifest.preprocessing)
    for model in models.values():
        model.embed(image)
    took: dict[BackendSpec, list[float]] = {way: [] for way in models}
    begun = time.perf_counter()
    for _ in range(_MOST_ROUNDS):
        for way, model in models.items():
            before = time.perf_counter()
            model.embed(image)
            took[way].append(1000 * (time.perf_counter() - before))
        if time.perf_counter() - begun > _SECONDS:
            break
    medians = {way: float(np.median(each)) for way, each in took.items()}
    return min(medians, key=lambda way: medians[way] * (1 if way == ways[0] else 1 / _WORTH_IT)), medians


def _key(kit: Kit, ways: Sequence[BackendSpec], threads: int, spin: bool) -> str:
    machine = f"{platform.machine()} {processor_name(about_processor())}"
    backends = [f"{name} {version(name)}" for name in sorted({way.backend for way in ways})]
    parts = (kit.sha256, *map(str, ways), str(threads), str(spin), *backends, machine)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
