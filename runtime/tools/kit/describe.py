"""A kit described in words, for `msc-edge info`."""

from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msc_edge.describe import SCORE_KINDS, describe_default_model, describe_limits
from msc_edge.images import DecodePolicy
from msc_edge.kit.manifest import Manifest
from msc_edge.kit.model_entry import CalibrationInfo, MemoryBank, Model, Parity
from msc_edge.kit.opening import Kit
from msc_edge.kit.quantization import Agreement, Quantization
from msc_edge.preprocessing import Preprocessing
from msc_edge.scoring import Scoring
from msc_edge.terminal import STYLES
from msc_edge.text import many, one_line, percent, size


def show_kit(to: Console, kit: Kit) -> None:
    """The facts of a kit, one a line; a terminal gets a table."""
    facts = list(describe_kit(kit))
    if not to.is_terminal:
        for name, value in facts:
            to.print(f"{name}: {value}")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name, STYLES.get(name.split()[-1], "bold")), Text(value))
    to.print(table, soft_wrap=False)


def describe_kit(kit: Kit) -> Iterator[tuple[str, str]]:
    """The facts of a kit, as (name, value) pairs."""
    manifest, made = kit.manifest, kit.manifest.provenance
    network, weights = manifest.network, made.weights
    yield "kit", one_line(describe_place(kit))
    yield "SHA-256", kit.identity.sha256
    yield "size", describe_size(kit)
    if kit.signatures is not None:
        keys = many(len(kit.signatures.splitlines()), "key")
        yield "signed", f"by {keys}, not checked here: pass --trusted-key to verify"
    created = f"{made.created} by msc-edge {manifest.msc_edge_version} from {many(made.images, 'normal image')}"
    yield "created", one_line(created)
    stage = f" up to {network.stop_at}" if network.stop_at else ""
    yield "backbone", one_line(f"{network.backbone}{stage}")
    yield "weights", one_line(f"{weights.source}, SHA-256 {weights.sha256[:12]}..., licence {weights.licence}")
    yield "images", f"{_describe_preprocessing(manifest.preprocessing)}; {_describe_decoding(manifest.decode)}"
    yield "default model", describe_default_model(manifest)
    for precision, model in sorted(manifest.models.items()):
        for name, value in _describe_model(manifest, model):
            yield f"{precision} {name}" if len(manifest.models) > 1 else name, value
    yield "recipe", one_line(", ".join(f"{key} {value}" for key, value in made.recipe.items()))
    yield "seed", str(made.seed)
    yield "data", f"fingerprint {made.data_fingerprint[:12]}..."
    yield "versions", one_line(", ".join(f"{key} {value}" for key, value in made.versions.items()))


def describe_place(kit: Kit) -> str:
    """The path of a kit, and its name where the path does not end in it, as after a copy."""
    name, path = kit.manifest.name, kit.path
    return str(path) if name in (path.name, path.stem) else f"{name}, {path}"


def describe_size(kit: Kit) -> str:
    """Number and bytes of the files in the manifest, unpacked; of a .zip its own size too."""
    entries = kit.manifest.files.values()
    zipped = "" if kit.root == kit.path else f", {size(kit.path.stat().st_size)} zipped"
    return f"{many(len(entries), 'file')} and the manifest, {size(sum(entry.bytes for entry in entries))}{zipped}"


def _describe_model(manifest: Manifest, model: Model) -> Iterator[tuple[str, str]]:
    bank = model.banks.images
    yield "model", f"{model.file}, embeddings of {model.dim} values, opset {model.opset}"
    yield "score", SCORE_KINDS[model.scoring.kind]
    yield "memory bank", f"{many(bank.count, 'normal image')}; image score: {_describe_score(bank)}"
    if (patches := model.banks.patches) and (grid := model.outputs.patch_distances):
        yield (
            "patch bank",
            f"{many(patches.count, 'patch', 'patches')} of {patches.dim} values, compared with {grid.rows}x"
            f"{grid.columns} patches of an image",
        )
    yield "search", _describe_search(bank)
    yield "calibration", _describe_calibration(model.calibration)
    yield "calibrated", _describe_history(manifest, model.calibration)
    yield from describe_limits(model.calibration.limits, model.calibration.calibration, model.calibration.regions)
    if model.quantization and model.agreement:
        yield "quantization", _describe_quantization(model.quantization, model.agreement)
    else:
        yield "parity", _describe_parity(model.parity, model.scoring)


def _describe_preprocessing(spec: Preprocessing) -> str:
    region = spec.region
    whole = f"{region.width}x{region.height} pixels at ({region.x}, {region.y})" if region else "the whole frame"
    if spec.resize == "stretch":
        resized = f"stretched to {spec.resize_to}x{spec.resize_to}"
    else:
        resized = f"shorter side to {spec.resize_to}"
    cropped = f", centre {spec.image_size}x{spec.image_size}" if spec.resize_to != spec.image_size else ""
    tiles = f", patches from {spec.tiles.rows}x{spec.tiles.columns} tiles" if spec.tiles else ""
    ignored = f", {percent(float(spec.ignore.ignored.mean()))} of it ignored" if spec.ignore else ""
    return f"{whole}, {resized}{cropped}{tiles}{ignored} (preset {spec.preset})"


def _describe_decoding(policy: DecodePolicy) -> str:
    bits = policy.bit_depth
    depth = "files with 8 bits a channel" if bits == 8 else f"files with 8 bits a channel, or 16 that hold {bits}"
    if policy.jpeg_keep:
        return f"{depth}; JPEG files at a reduced size, shorter side at least {policy.jpeg_keep} pixels"
    return depth


def _describe_history(manifest: Manifest, calibration: CalibrationInfo) -> str:
    current = one_line(f"{calibration.created or manifest.provenance.created}, {calibration.reason}")
    if not calibration.history:
        return f"{current}; no earlier calibration"
    last = calibration.history[-1]
    return (
        f"{current}; {many(len(calibration.history), 'earlier calibration')}, the last {one_line(last.created)} "
        f"with {many(last.count, 'image')}: warn above {last.limits.warn.score:.6f}, "
        f"reject above {last.limits.reject.score:.6f}"
        + (f", regions above {last.region_limit.score:.6f}" if last.region_limit else "")
    )


def _describe_calibration(calibration: CalibrationInfo) -> str:
    scores = calibration.scores
    return (
        f"{many(len(scores), 'calibration image')}, scores {scores[0]:.6f} to {scores[-1]:.6f}, "
        f"median {np.median(scores):.6f}"
    )


def _describe_quantization(quantization: Quantization, agreement: Agreement) -> str:
    layers = f"{len(quantization.float_layers)} of {many(quantization.layers, 'layer')} in float"
    found = agreement.maps
    maps = (
        f"; maps: rank correlation {found.rank_correlation:.4f}, AU-PRO {found.au_pro:.4f} (fp32 "
        f"{found.au_pro_fp32:.4f})"
        if found
        else ""
    )
    return (
        f"for {quantization.target}; {layers}, "
        f"rank correlation with fp32 {agreement.rank_correlation:.4f}, AUROC on synthetic anomalies "
        f"{agreement.auroc:.4f} (fp32 {agreement.auroc_fp32:.4f}){maps}"
    )


def _describe_parity(parity: Parity | None, scoring: Scoring) -> str:
    if parity is None:
        return "NOT measured"
    unit = " standard deviations" if scoring.kind == "both" else ""
    images, changed = many(parity.images, "image"), many(parity.changed_verdicts, "changed verdict")
    return f"{images}: scores differ from training by at most {parity.max_score_difference:.1e}{unit}, {changed}"


def _describe_score(bank: MemoryBank) -> str:
    return f"mean cosine distance to the {bank.k} nearest" if bank.k > 1 else "cosine distance to the nearest"


def _describe_search(bank: MemoryBank) -> str:
    if (index := bank.index) is None:
        return f"{bank.search}; the kit has no index"
    return (
        f"{bank.search}; HNSW index M {index.m}, ef_construction {index.ef_construction}, ef {index.ef}, "
        f"recall {index.recall:.4f} over {many(index.queries, 'query', 'queries')}"
    )
