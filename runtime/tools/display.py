"""What an operator sees at the terminal: the summary of a scored folder, and a kit described."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msc_edge.calibration import Calibration, Limit, Limits, images_needed
from msc_edge.errors import writing
from msc_edge.images import IMAGE_SUFFIXES, DecodePolicy
from msc_edge.kit.manifest import BankInfo, CalibrationInfo, Int8, Manifest
from msc_edge.kit.opening import Kit
from msc_edge.preprocessing import Preprocessing
from msc_edge.runtime.batch import Row, Summary
from msc_edge.text import many, one_line, percent, size

_STYLES = {
    "normal": "green",
    "warn": "bold yellow",
    "reject": "bold red",
    "unreadable": "bold magenta",
    "caution": "bold yellow",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the exit code to the caller: rich's own is 1, which here says that anomalies were found."""
        raise BrokenPipeError


def console(*, stderr: bool) -> Console:
    """A console that prints file names as they are: no markup, no emoji, no colouring of numbers."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def to_standard_output() -> Iterator[None]:
    """StateChange a failure to print into an OutputError; a reader that has gone stays a BrokenPipeError."""
    with writing(Path("standard output")):
        try:
            yield
        except BrokenPipeError as error:
            gone = error
        else:
            return
    raise gone


def show_most_anomalous(to: Console, summary: Summary) -> None:
    """A table of the images with the largest scores."""
    rows = summary.most_anomalous
    if not rows:
        return
    several = summary.scored > len(rows)
    title = f"The {len(rows)} most_anomalous of {summary.scored} images" if several else "Strangest first"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("verdict")
    table.add_column("score", justify="right")
    table.add_column("p-value", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("nearest normal", overflow="fold", style="dim")
    for row in rows:
        verdict = str(row.verdict)
        table.add_row(
            Text(verdict, _STYLES[verdict]),
            f"{row.score:.6f}",
            f"{row.p_value:.4f}",
            Text(one_line(row.path)),
            Text(one_line(row.nearest or "")),
        )
    to.print(table)


def show_summary(to: Console, summary: Summary, *, done_now: int, seconds: float, other_files: int) -> None:
    """How many images got which verdict, which could not be read, and how fast it went."""
    earlier = summary.images - done_now
    before = f"{earlier} done earlier and {done_now} now" if earlier else ""
    speed = f"in {seconds:.1f} s, {done_now / seconds:.1f} a second" if done_now and seconds > 0 else ""
    about = f"{before}, {speed}" if before and speed else before or speed
    to.print(Text(f"{many(summary.images, 'image')}{': ' if before else ' '}{about}", "bold"))
    for verdict in ("normal", "warn", "reject"):
        _show_count(to, verdict, summary.verdicts[verdict], summary.images)
    if summary.unreadable:
        _show_count(to, "unreadable", summary.unreadable, summary.images)
        _show_unreadable(to, summary.first_unreadable[:5], summary.unreadable)
    if other_files:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        to.print(f"{many(other_files, 'other file')} passed over: not named {suffixes}")


def _show_count(to: Console, name: str, count: int, total: int) -> None:
    share = f"{100 * count / total:5.1f} %" if total else ""
    to.print(Text(f"  {name:<10} {count:>8}  {share}", _STYLES[name] if count else ""))


def _show_unreadable(to: Console, rows: list[Row], count: int) -> None:
    for row in rows:
        to.print(Text(f"      {one_line(row.path)}: {one_line(row.error or '')}"))
    if count > len(rows):
        to.print(f"      ... and {count - len(rows)} more")


def show_limits(to: Console, limits: Limits, calibration: Calibration) -> None:
    """The limits in force, and what share of good images they are expected to flag."""
    to.print("limits")
    for name, text in describe_limits(limits, calibration):
        to.print(Text.assemble("  ", (f"{name:<10}", _STYLES[name]), f" {text}"))


def describe_limits(limits: Limits, calibration: Calibration) -> Iterator[tuple[str, str]]:
    """What a score must exceed and what rate that promises, or why it promises none; as (name, words) pairs."""
    given = (("reject", limits.reject),)
    if limits.warn.score < limits.reject.score:
        given = (("warn", limits.warn), *given)
    else:
        yield "warn", "never given: its limit is that of reject"
    n = calibration.scores.size
    for name, limit in given:
        yield name, _describe(limit, calibration)
        if limit.target_rate and not limit.meets_target:
            yield (
                "caution",
                f"{name} does NOT keep to the {percent(limit.target_rate)} that was asked for: that takes at least "
                f"{images_needed(limit.target_rate)} held-out images, and the kit has {n}",
            )


def _describe(limit: Limit, calibration: Calibration) -> str:
    above = f"score above {limit.score:.6f}"
    if limit.expected_rate is None or limit.target_rate is None:
        exceeding = int((calibration.scores > limit.score).sum())
        return f"{above}, set by hand; {exceeding} of {many(calibration.scores.size, 'held-out image')} exceed it"
    promised, asked = percent(limit.expected_rate), percent(limit.target_rate)
    allowed = f"; {asked} allowed" if limit.meets_target and asked != promised else ""
    return f"{above}, expected to flag {promised} of good images ({_describe_interval(calibration, limit)}{allowed})"


def _describe_interval(calibration: Calibration, limit: Limit) -> str:
    """What so few held-out images cannot tell: between which rates the one lies that will be realised."""
    low, high = calibration.band(limit) or (0.0, 1.0)
    return f"{percent(low).removesuffix(' %')} to {percent(high)} with 90 % certainty"


def show_kit(to: Console, kit: Kit) -> None:
    """A kit described: a line a fact, with the values under each other in a terminal."""
    facts = list(describe_kit(kit))
    if not to.is_terminal:
        for name, value in facts:
            to.print(f"{name}: {value}")
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(name, _STYLES.get(name, "bold")), Text(value))
    to.print(table, soft_wrap=False)


def describe_kit(kit: Kit) -> Iterator[tuple[str, str]]:
    """The facts of a kit in words, as (name, value) pairs."""
    manifest, made = kit.manifest, kit.manifest.provenance
    model, weights, parity = manifest.model, made.weights, manifest.parity
    yield "kit", one_line(kit.name)
    yield "size", describe_size(kit)
    yield "made", f"{made.created} by msc-edge {manifest.msc_edge_version} from {many(made.images, 'normal image')}"
    stage = f" up to {model.stop_at}" if model.stop_at else ""
    yield "backbone", one_line(f"{model.backbone}{stage}, {model.dim} values, {model.precision}, opset {model.opset}")
    yield "weights", one_line(f"{weights.source}, SHA-256 {weights.sha256[:12]}..., licence {weights.licence}")
    yield "images", f"{_describe_pixels(manifest.preprocessing)}; {_describe_decoding(manifest.decode)}"
    yield (
        "bank",
        f"{many(manifest.bank.count, 'normal')} x {manifest.bank.dim}; score: {_describe_score(manifest.bank)}",
    )
    yield "search", _describe_search(manifest.bank)
    yield "calibration", _describe_calibration(manifest.calibration)
    yield "limits set", _describe_history(manifest)
    yield from describe_limits(manifest.calibration.limits, manifest.calibration.calibrated)
    if manifest.int8:
        yield "int8", _describe_int8(manifest.int8)
        yield "int8 calibration", _describe_calibration(manifest.int8.calibration)
        for name, words in describe_limits(manifest.int8.calibration.limits, manifest.int8.calibration.calibrated):
            yield f"int8 {name}", words
        yield "preferred", manifest.preferred
    yield (
        "parity",
        f"{many(parity.images, 'image')}: scores differ from training's by at most "
        f"{parity.max_score_difference:.1e}, {many(parity.changed_verdicts, 'changed verdict')}"
        if parity
        else "NOT measured",
    )
    yield "recipe", one_line(", ".join(f"{key} {value}" for key, value in made.recipe.items()))
    yield "seed", str(made.seed)
    yield "data", f"fingerprint {made.data_fingerprint[:12]}..."
    yield "versions", one_line(", ".join(f"{key} {value}" for key, value in made.versions.items()))


def describe_size(kit: Kit) -> str:
    """Number of files that the manifest lists and their bytes, as unpacked; for a .zip its own size too."""
    entries = kit.manifest.files.values()
    zipped = "" if kit.root == Path(kit.name) else f", {size(Path(kit.name).stat().st_size)} zipped"
    return f"{many(len(entries), 'file')} and the manifest, {size(sum(entry.bytes for entry in entries))}{zipped}"


def _describe_pixels(how: Preprocessing) -> str:
    region = how.region
    whole = f"{region.width}x{region.height} pixels from ({region.x}, {region.y})" if region else "the whole frame"
    if how.resize == "stretch":
        resized = f"stretched to {how.resize_to}x{how.resize_to}"
    else:
        resized = f"shorter side to {how.resize_to}"
    cropped = f", centre {how.image_size}x{how.image_size}" if how.resize_to != how.image_size else ""
    return f"{whole}, {resized}{cropped} (preset {how.preset})"


def _describe_decoding(policy: DecodePolicy) -> str:
    bits = policy.bit_depth
    depth = "files of 8 bits a channel" if bits == 8 else f"files of 8 bits a channel, or of 16 that hold {bits}"
    return f"{depth}; JPEG files at a reduced size, of {policy.jpeg_keep} at least" if policy.jpeg_keep else depth


def _describe_history(manifest: Manifest) -> str:
    now = manifest.calibration
    current = one_line(f"{now.created or manifest.provenance.created}, {now.why}")
    if not now.history:
        return f"{current}; for the first time"
    last = now.history[-1]
    return (
        f"{current}; {many(len(now.history), 'earlier calibration')}, the last of {one_line(last.created)} "
        f"by {many(last.count, 'image')}: warn above {last.limits.warn.score:.6f}, "
        f"reject above {last.limits.reject.score:.6f}"
    )


def _describe_calibration(calibration: CalibrationInfo) -> str:
    scores = calibration.scores
    return (
        f"{many(len(scores), 'held-out good image')}, scores {scores[0]:.6f} to {scores[-1]:.6f}, "
        f"median {np.median(scores):.6f}"
    )


def _describe_int8(int8: Int8) -> str:
    how, agreement = int8.quantization, int8.agreement
    return (
        f"for {how.target}, {len(how.in_float)} of {many(how.layers, 'layer')} left in float; rank correlation with "
        f"float {agreement.rank_correlation:.4f}, spoiled images are told by an AUROC of {agreement.auroc_int8:.4f} "
        f"(float {agreement.auroc_fp32:.4f})"
    )


def _describe_score(bank: BankInfo) -> str:
    return f"mean cosine distance to the {bank.k} nearest" if bank.k > 1 else "cosine distance to the nearest"


def _describe_search(bank: BankInfo) -> str:
    if (index := bank.index) is None:
        return f"{bank.search}; the kit has no index"
    return (
        f"{bank.search}; HNSW index M {index.m}, ef_construction {index.ef_construction}, ef {index.ef}, "
        f"recall {index.recall:.4f} over {many(index.queries, 'query', 'queries')}"
    )
