"""Selecting a backend: the precision of the model and the library that computes it.

The kit says which precision scores, and the caller may name the other one. No measurement decides it: scores of fp32
and int8 differ, and two PCs with the same kit must give the same verdicts. OpenVINO is faster on some processors and
slower on others, and agrees with onnxruntime on fp32 scores to 1e-6. So the faster library is measured, once per
machine and kit, for a second.
"""

import hashlib
import json
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import platformdirs

from msc_edge.deprecation import AUTO_PRECISION
from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.files import written_whole
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.interface import Backend, BackendChoice, BackendName, ModelOutput, installed_backends
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.backends.openvino_backend import OpenVinoBackend
from msc_edge.runtime.processor import processor_facts, processor_name

_SECONDS = 1.0
_MAX_ROUNDS = 50
_MAX_CACHE_BYTES = 4096  # a cache entry has about 150
_MIN_GAIN = 0.95  # of the time in onnxruntime: a smaller gain does not justify another library
# Cosine distance between two embeddings of the check image. Sums of int8 products are exact unless they overflow; the
# rest is rounding in the float layers around them.
_SAME_ARITHMETIC = 1e-3
_SAME_DISTANCES = 0.05  # of patch distances of the check image, relative: the same angle
# Distance between the embeddings of two libraries, and relative difference of their patch distances. Measured for
# embeddings: 4e-6 and 0.04; 0.4 to 1.2 for an operator that OpenVINO computes differently (`Resize` with antialiasing,
# in kits of early versions).
_SAME_OUTPUT: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.2}


@dataclass(frozen=True)
class BackendSpec:
    """The precision of a model, and the library that computes it."""

    precision: Precision
    name: BackendName = "onnxruntime"

    def __str__(self) -> str:
        return self.precision if self.name == "onnxruntime" else f"{self.precision} with OpenVINO"


def select_backend(
    kit: Kit, precision: Precision | None, backend: BackendChoice = "auto", *, threads: int
) -> tuple[BackendSpec, Backend]:
    """Open the requested model, or the kit's default, in the requested library; `auto` is the faster one here.

    UsageError for a precision that the kit does not have, for int8 where `matches_check_image` is false, and for
    OpenVINO where `matches_onnxruntime` is false; `auto` then takes onnxruntime.
    """
    if str(precision) == "auto":
        warnings.warn(f"precision='auto' {AUTO_PRECISION}", DeprecationWarning, stacklevel=2)
        precision = None
    for option, value, choices in (("precision", precision, Precision), ("backend", backend, BackendChoice)):
        if value is not None and value not in get_args(choices):
            raise UsageError(f"{option} is {value!r}; expected one of {', '.join(get_args(choices))}")
    wanted = precision or kit.manifest.default_precision
    if wanted not in kit.manifest.models:
        raise UsageError(
            f"this kit has no {wanted} model; use {', '.join(kit.manifest.precisions)}, or export it again with "
            "--precision both"
        )
    if (precision, wanted, backend) == (None, "int8", "openvino"):
        raise UsageError(
            "this kit scores with int8, which OpenVINO rounds differently than onnxruntime; name both (--precision "
            "int8 --backend openvino), or use --precision fp32 or --backend onnxruntime"
        )
    specs = backend_specs(wanted, backend)
    spec = specs[0] if len(specs) == 1 else _fastest(kit, specs, threads)
    created = create_backend(kit, spec, threads=threads)
    file = kit.model(spec.precision).file
    if not matches_check_image(kit, spec.precision, created):
        raise UsageError(
            f"{file}: this processor computes other int8 embeddings than the one the kit was made on, so the limits do "
            "not apply; use --precision fp32, or export with the --target of this processor"
        )
    if backend == "openvino" and not matches_onnxruntime(kit, spec, created):  # `_fastest` has checked it for `auto`
        raise UsageError(
            f"{file}: OpenVINO computes other embeddings here than onnxruntime, so the limits do not apply; use "
            "--backend onnxruntime, or export the kit again"
        )
    return spec, created


def backend_specs(precision: Precision, backend: BackendChoice = "auto") -> list[BackendSpec]:
    """The libraries that may compute a model of this precision here; onnxruntime comes first where it is one of them.

    int8 runs in OpenVINO only where that is named: it rounds differently, and scores differ by some per cent.
    """
    if backend != "auto":
        return [BackendSpec(precision, backend)]
    return [BackendSpec(precision, name) for name in installed_backends() if (precision, name) != ("int8", "openvino")]


def create_backend(kit: Kit, spec: BackendSpec, *, threads: int) -> Backend:
    """Open one model of the kit, without any check of its outputs."""
    model = kit.model(spec.precision)
    create = OpenVinoBackend if spec.name == "openvino" else OnnxRuntimeBackend
    return create(kit.file(model.file), outputs=model.outputs, threads=threads)


def matches_check_image(kit: Kit, precision: Precision, backend: Backend) -> bool:
    """Whether a quantised model computes the outputs for the check image that its manifest states; true for fp32."""
    quantization = kit.model(precision).quantization
    if quantization is None:
        return True
    output = backend.run(check_image(kit.manifest.preprocessing))
    expected, found = np.asarray(quantization.check_embedding), output.embedding.astype(np.float64)
    if expected.shape != found.shape or not 1 - float(expected @ found) <= _SAME_ARITHMETIC:  # also true for NaN
        return False
    if quantization.check_patch_distances is None or output.patch_distances is None:
        return quantization.check_patch_distances is output.patch_distances
    expected, found = np.asarray(quantization.check_patch_distances), output.patch_distances.ravel()
    same_size = expected.shape == found.shape
    return same_size and bool(np.linalg.norm(found - expected) <= _SAME_DISTANCES * np.linalg.norm(expected))


def matches_onnxruntime(kit: Kit, spec: BackendSpec, backend: Backend) -> bool:
    """Whether a backend computes the embeddings of onnxruntime, for a small and a large image."""
    if spec.name == "onnxruntime":
        return True
    reference = create_backend(kit, BackendSpec(spec.precision), threads=1)
    images = [check_image(kit.manifest.preprocessing, times=times) for times in (1, 8)]
    return all(_agree(backend.run(each), reference.run(each), spec.precision) for each in images)


def _agree(found: ModelOutput, expected: ModelOutput, precision: Precision) -> bool:
    tolerance = _SAME_OUTPUT[precision]
    if not np.linalg.norm(found.embedding - expected.embedding) <= tolerance:  # also true for NaN
        return False
    if found.patch_distances is None or expected.patch_distances is None:
        return found.patch_distances is expected.patch_distances
    difference = np.abs(found.patch_distances - expected.patch_distances).max()
    return bool(difference <= tolerance * expected.patch_distances.max())


def measure_backends(
    kit: Kit, specs: Sequence[BackendSpec], *, threads: int
) -> tuple[BackendSpec, dict[BackendSpec, float]]:
    """The fastest of several backends, and the median milliseconds of each, measured in turns for a second.

    Backends whose embeddings do not match (see `select_backend`) are left out.
    """
    backends = {spec: create_backend(kit, spec, threads=threads) for spec in specs}
    backends = {
        spec: backend
        for spec, backend in backends.items()
        if matches_check_image(kit, spec.precision, backend) and matches_onnxruntime(kit, spec, backend)
    }
    image = check_image(kit.manifest.preprocessing)
    for backend in backends.values():
        backend.run(image)
    times: dict[BackendSpec, list[float]] = {spec: [] for spec in backends}
    start = time.perf_counter()
    for _ in range(_MAX_ROUNDS):
        for spec, backend in backends.items():
            before = time.perf_counter()
            backend.run(image)
            times[spec].append(1000 * (time.perf_counter() - before))
        if time.perf_counter() - start > _SECONDS:
            break
    medians = {spec: float(np.median(each)) for spec, each in times.items()}
    return min(medians, key=lambda spec: medians[spec] * (1 if spec == specs[0] else 1 / _MIN_GAIN)), medians


def _fastest(kit: Kit, specs: Sequence[BackendSpec], threads: int) -> BackendSpec:
    """The fastest backend, from the cache or measured now."""
    folder = platformdirs.user_cache_path("msc-edge", appauthor=False) / "backend"
    cache = folder / f"{_cache_key(kit, specs, threads)}.json"
    cached = _read_cache(cache)
    if cached is not None and cached in specs:
        return cached
    fastest, milliseconds = measure_backends(kit, specs, threads=threads)
    entry = {"backend": asdict(fastest), "milliseconds": {str(spec): value for spec, value in milliseconds.items()}}
    try:
        with written_whole(cache) as path:
            path.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    except MscEdgeError:  # without a cache the next start measures again
        pass
    return fastest


def _read_cache(path: Path) -> BackendSpec | None:
    """The backend that an earlier start measured; None where the file is missing or unusable."""
    try:
        if path.stat().st_size > _MAX_CACHE_BYTES or not path.is_file():
            return None
        return BackendSpec(**json.loads(path.read_text(encoding="utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _cache_key(kit: Kit, specs: Sequence[BackendSpec], threads: int) -> str:
    machine = f"{platform.machine()} {processor_name(processor_facts())}"
    libraries = [f"{name} {version(name)}" for name in sorted({spec.name for spec in specs})]
    parts = (kit.identity.sha256, *map(str, specs), str(threads), *libraries, machine)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
