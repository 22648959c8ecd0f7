"""Manifests of older formats, converted to the current one in memory.

One function for each format version converts a document to the next version. Files, scores and verdicts of such a kit
stay the same. Only `msc-edge upgrade` writes the new manifest to disk.
"""

from collections.abc import Callable
from typing import Any

from msc_edge.errors import KitError

FORMAT_VERSION = 2
Document = dict[str, Any]


def upgraded(document: object, *, name: str) -> Document:
    """Convert a manifest of an older format to the current format; `name` is the kit's name where it has none.

    KitError for a newer or unknown format, and for a document that is not a manifest of the format it states.
    """
    version = document.get("format_version") if isinstance(document, dict) else None
    version = None if isinstance(version, bool) else version
    if isinstance(version, int) and version > FORMAT_VERSION:
        writer = document.get("msc_edge_version") if isinstance(document, dict) else None
        needed = f"msc-edge {writer:.40}" if isinstance(writer, str) else "the msc-edge that wrote it"
        raise KitError(
            f"manifest.json: the kit has format {version}, and this msc-edge reads formats 1 to {FORMAT_VERSION}; "
            f"install {needed} or newer"
        )
    if not isinstance(document, dict) or not isinstance(version, int) or version not in _UPGRADES:
        raise KitError(
            f"manifest.json: format_version is {version!r:.40}, and this msc-edge reads formats 1 to {FORMAT_VERSION}; "
            "export the kit again"
        )
    try:
        while document["format_version"] != FORMAT_VERSION:
            document = _UPGRADES[document["format_version"]](document, name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise KitError(
            f"manifest.json: not a manifest of format {version} ({type(error).__name__}: {error!s:.200}); "
            "copy the kit again, or export it again"
        ) from error
    return document


def _from_1(old: Document, name: str) -> Document:
    """Format 1 had the float model at the top and int8 nested in `int8`, and no name."""
    opset, backbone = old["model"]["opset"], old["model"]
    models = {"fp32": _model_from_1(old, "", opset, backbone["dim"]) | {"parity": _parity_from_1(old["parity"])}}
    if int8 := old.get("int8"):
        quantization, agreement = int8["quantization"], int8["agreement"]
        models["int8"] = _model_from_1(int8, ".int8", opset, backbone["dim"]) | {
            "quantization": {
                "target": quantization["target"],
                "images": quantization["pictures"],
                "layers": quantization["layers"],
                "float_layers": quantization["in_float"],
                "check_embedding": quantization["check"],
            },
            "agreement": {
                "normal_images": agreement["good"],
                "synthetic_anomalies": agreement["spoiled"],
                "auroc_fp32": agreement["auroc_fp32"],
                "auroc": agreement["auroc_int8"],
                "rank_correlation": agreement["rank_correlation"],
            },
        }
    made = dict(old["provenance"])
    made["images"] = made.pop("pictures")
    made["recipe"] = dict(made["recipe"])
    if "kept_step" in made["recipe"]:
        made["recipe"]["selected_step"] = made["recipe"].pop("kept_step")
    return {
        "format_version": 2,
        "name": name,
        "msc_edge_version": old["msc_edge_version"],
        "decode": old["decode"],
        "preprocessing": old["preprocessing"],
        "network": {"backbone": backbone["backbone"], "stop_at": backbone["stop_at"]},
        "normal_images": {"file": "normals.json", "count": old["bank"]["count"]},
        "models": models,
        "default_model": old.get("preferred", "fp32"),
        "provenance": made,
        "files": old["files"],
    }


def _model_from_1(old: Document, infix: str, opset: int, dim: int) -> Document:
    """The entry of one model: `old` is the manifest itself, or its part `int8`."""
    bank = old["bank"]
    if bank["dim"] != dim:
        raise ValueError(f"the bank has dim {bank['dim']}, and the model has dim {dim}")
    index = bank["index"] and {"file": f"bank{infix}.hnsw", **bank["index"]}
    return {
        "file": f"model{infix}.onnx",
        "opset": opset,
        "outputs": {"embedding": {"dim": dim}},
        "banks": {
            "images": {
                "file": f"bank{infix}.npy",
                "count": bank["count"],
                "k": bank["k"],
                "search": bank["search"],
                "index": index,
            }
        },
        "calibration": _calibration_from_1(old["calibration"]),
    }


def _calibration_from_1(old: Document) -> Document:
    new = _renamed(old, {"why": "reason"}) | {"limits": _limits_from_1(old["limits"])}
    if "history" in old:
        new["history"] = [
            _renamed(earlier, {"why": "reason"}) | {"limits": _limits_from_1(earlier["limits"])}
            for earlier in old["history"]
        ]
    return new


def _limits_from_1(old: Document) -> Document:
    names = {"requested_rate": "target_rate", "promised_rate": "expected_rate"}
    return {name: _renamed(limit, names) for name, limit in old.items()}


def _parity_from_1(old: Document | None) -> Document | None:
    return None if old is None else _renamed(old, {"pictures": "images"})


def _renamed(old: Document, names: dict[str, str]) -> Document:
    return {names.get(key, key): value for key, value in old.items()}


_UPGRADES: dict[int, Callable[[Document, str], Document]] = {1: _from_1}
