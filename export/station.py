"""A new kit of a kit and what a station has learned for it: `msc-edge export --from-station`.

The learned images become normal images of the new kit: rows of its memory banks, and rows that the model compares
patches with. Its limits are the station limits, if there are any that count, and those of the old kit otherwise. Who
learned what, when and why is in the manifest.
"""

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from msc_edge.drawing import encode_image
from msc_edge.errors import KitError, UsageError
from msc_edge.export.index import build_index, preferred_search
from msc_edge.export.pack import checked_name
from msc_edge.export.parity import TOLERANCE, unit_of
from msc_edge.export.run_images import evenly
from msc_edge.files import folder_written_whole
from msc_edge.images import decode_image
from msc_edge.kit.layout import NORMAL_IMAGES, thumbnail_file
from msc_edge.kit.manifest import Manifest, Precision, kit_name
from msc_edge.kit.model_entry import Model
from msc_edge.kit.opening import Kit
from msc_edge.kit.writing import refuse_zip, seal
from msc_edge.patch_rows import ROUNDING
from msc_edge.runtime.additions import Additions
from msc_edge.runtime.additions_file import AdditionsFile
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.backends.interface import PATCH_DISTANCES, PATCH_EMBEDDINGS
from msc_edge.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from msc_edge.runtime.detector import Detector

_LOG = logging.getLogger("msc_edge")
_CHECKED = 16  # images of the kit whose scores are compared, and all learned ones


def export_station(kit: Path, out: Path, *, name: str | None = None, overwrite: bool = False) -> Manifest:
    """Write the kit `out`, and check that it scores as `kit` does with what was learned.

    Raises KitError, UsageError when nothing was learned or `out` exists, OutputError. No kit is written if scores
    differ.
    """
    refuse_zip(out)
    name = checked_name(name) or kit_name(out.resolve().name.removesuffix(".kit"))
    if out.resolve() == kit.resolve():
        raise UsageError(f"--out {out}: is the kit itself, and the new one is another kit; choose another name")
    with Kit.open(kit) as opened, AdditionsFile.open(kit, opened.identity) as file:
        detectors = _detectors(opened)
        additions: dict[Precision, Additions] = {
            precision: file.additions(precision, opened.model(precision)) for precision in detectors
        }
        if not (learned := next(iter(additions.values()))):
            raise UsageError(f"{kit}: this station has learned nothing for it that counts; there is nothing to pack")
        if learned.withdrawn:
            _LOG.warning("%s", learned.withdrawn)
        history = [asdict(image) for image in file.images()]
        policy = opened.manifest.decode
        images = [decode_image(np.frombuffer(file.content(each.id), np.uint8), policy) for each in learned.learned]
        images += [detectors[opened.manifest.precisions[0]].thumbnail(row) for row in _spread(opened.manifest)]
        with folder_written_whole(out, replace=overwrite) as folder:
            manifest = _written(opened, folder, additions, history, name=name)
            _check(folder, detectors, additions, images)
    return manifest


def _detectors(kit: Kit) -> dict[Precision, Detector]:
    """Of all models of the kit: each must have learned, and is checked."""
    return {
        precision: Detector.of(kit, precision=precision, backend="onnxruntime", search="exact")
        for precision in kit.manifest.precisions
    }


def _spread(manifest: Manifest) -> list[int]:
    """Some rows of the memory bank that have thumbnails."""
    count = manifest.normal_images.count if thumbnail_file(0) in manifest.files else 0
    return evenly(range(count), _CHECKED) if count else []


def _written(
    kit: Kit, folder: Path, additions: dict[Precision, Additions], history: list[dict], *, name: str
) -> Manifest:
    manifest = kit.manifest
    for file in manifest.files:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(kit.file(file), folder / file)
    models = {precision: _with_additions(kit, folder, precision, additions[precision]) for precision in manifest.models}
    learned, k = next(iter(additions.values())), manifest.reference_model.banks.images.k
    names = [*kit.normal_images(), *(name for name in learned.names for _ in range(k))]
    (folder / NORMAL_IMAGES).write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    first = manifest.normal_images.count
    if thumbnail_file(0) in manifest.files:
        for number, each in enumerate(each for each in learned.learned for _ in range(k)):
            (folder / thumbnail_file(first + number)).write_bytes(encode_image(each.thumbnail, ".jpg"))
    return seal(
        folder,
        manifest.model_copy(
            update={
                "name": name,
                "models": models,
                "normal_images": manifest.normal_images.model_copy(update={"count": len(names)}),
                "extensions": manifest.extensions | {"learned": {"kit": kit.identity.sha256, "images": history}},
            }
        ),
    )


def _with_additions(kit: Kit, folder: Path, precision: Precision, additions: Additions) -> Model:
    """Write the files of one model; its entry."""
    model = kit.model(precision)
    bank, patches = model.banks.images, model.banks.patches
    rows = np.concatenate([kit.embeddings(precision), additions.embeddings.repeat(bank.k, axis=0)])
    np.save(folder / bank.file, rows)
    index = bank.index and build_index(rows, additions.embeddings, bank.k, folder / bank.index.file)
    search = preferred_search(index, count=len(rows)) if index else bank.search
    images = bank.model_copy(update={"count": len(rows), "index": index, "search": search})
    quantization = model.quantization
    if patches:
        _compare_with(folder / model.file, additions.patches)
        patches = patches.model_copy(update={"count": patches.count + len(additions.patches)})
        if quantization:
            backend = OnnxRuntimeBackend(folder / model.file, outputs=model.outputs, threads=1)
            distances = backend.run(check_image(kit.manifest.preprocessing)).patch_distances
            assert distances is not None
            rounded = [round(float(value), 5) for value in distances.ravel()]
            quantization = quantization.model_copy(update={"check_patch_distances": rounded})
    banks = model.banks.model_copy(update={"images": images, "patches": patches})
    calibration = additions.calibration or model.calibration
    return model.model_copy(update={"banks": banks, "quantization": quantization, "calibration": calibration})


def _compare_with(path: Path, rows: np.ndarray) -> None:
    """Let the model `path` compare patches with further rows, float32 (n, dim), by the formula of `distances_to`."""
    if not len(rows):
        return
    model = onnx.load(path)
    graph = model.graph
    prefix = f"learned/{len(graph.node)}/"  # a kit may have been packed before
    (producer,) = (node for node in graph.node if PATCH_DISTANCES in node.output)
    producer.output[list(producer.output).index(PATCH_DISTANCES)] = f"{prefix}of_kit"
    (output,) = (each for each in graph.output if each.name == PATCH_DISTANCES)
    shape = [size.dim_value for size in output.type.tensor_type.shape.dim]
    constants = {
        "flat_shape": np.array([-1, rows.shape[1]], np.int64),
        "rows": (-2 * rows.T).astype(np.float32),
        "squares": np.square(rows).sum(axis=1).astype(np.float32),
        "last": np.array([1], np.int64),
        "rounding": np.float32(ROUNDING),
        "grid": np.array(shape, np.int64),
    }
    nodes = [
        ("Reshape", [PATCH_EMBEDDINGS, f"{prefix}flat_shape"], "flat", {}),
        ("ReduceSumSquare", [f"{prefix}flat", f"{prefix}last"], "own", {"keepdims": 0}),
        ("Gemm", [f"{prefix}flat", f"{prefix}rows", f"{prefix}squares"], "products", {}),
        ("ReduceMin", [f"{prefix}products", f"{prefix}last"], "nearest", {"keepdims": 0}),
        ("Add", [f"{prefix}nearest", f"{prefix}own"], "squared", {}),
        ("Mul", [f"{prefix}own", f"{prefix}rounding"], "least", {}),
        ("Max", [f"{prefix}squared", f"{prefix}least"], "bounded", {}),
        ("Sqrt", [f"{prefix}bounded"], "distances", {}),
        ("Reshape", [f"{prefix}distances", f"{prefix}grid"], "on_grid", {}),
    ]
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{prefix}{key}"))
    for kind, inputs, result, attributes in nodes:
        graph.node.append(helper.make_node(kind, inputs, [f"{prefix}{result}"], f"{prefix}{result}", **attributes))
    both = [f"{prefix}of_kit", f"{prefix}on_grid"]
    graph.node.append(helper.make_node("Min", both, [PATCH_DISTANCES], f"{prefix}smaller"))
    onnx.save(model, path)


def _check(
    folder: Path, detectors: dict[Precision, Detector], additions: dict[Precision, Additions], images: list[np.ndarray]
) -> None:
    """KitError where the new kit gives an image another score than the old one with its additions."""
    for precision, detector in detectors.items():
        taught = detector.with_additions(additions[precision])
        packed = Detector.load(folder, precision=precision, backend="onnxruntime", search="exact")
        for image in images:
            expected, found = taught.score(image), packed.score(image)
            if abs(expected.score - found.score) > TOLERANCE * unit_of(detector.scoring):
                raise KitError(
                    f"{precision}: the new kit scores {found.score:.6g} where the station scores {expected.score:.6g}; "
                    "no kit was written, please report this"
                )
