"""`msc-edge export`."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of msc-edge train.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="KIT", help="Kit folder to write.")],
    normal: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the images lie that the run was trained on, if they have moved."),
    ] = None,
    warn_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Share of good parts that may be flagged 'warn' or worse.")
    ] = 0.05,
    reject_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Share of good parts that may be flagged 'reject'.")
    ] = 0.01,
    precision: Annotated[
        Literal["both", "fp32", "int8"],
        typer.Option(help="Float alone, or int8 beside it where that ranks images as float does; int8 insists on it."),
    ] = "both",
    target: Annotated[
        Literal["x86-vnni", "x86", "arm64"], typer.Option(help="Processors that int8 is made for.")
    ] = "x86-vnni",
    thumbnails: Annotated[bool, typer.Option(help="Keep a small image of each normal in the kit.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a kit that stands there.")] = False,
) -> None:
    """Pack a run into a kit: model, bank, limits and manifest, proven with the runtime before it stands."""
    from msc_edge.errors import extras_named
    from msc_edge.progress import progress_bars

    with extras_named():
        from msc_edge.export.pack import export as export_kit
    from msc_edge.runtime.tools.display import describe_limits

    notes: list[str] = []
    with progress_bars() as report:
        manifest = export_kit(
            run,
            out,
            normal=normal,
            warn_rate=warn_rate,
            reject_rate=reject_rate,
            precision=precision,
            target=target,
            thumbnails=thumbnails,
            overwrite=overwrite,
            report=report,
            note=notes.append,
        )
    megabytes = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    bank, parity = manifest.bank, manifest.parity
    typer.echo(f"{out}: {len(manifest.files)} files, {megabytes:.1f} MB; {bank.count} normals, {bank.search} search")
    if bank.index:
        typer.echo(f"index: recall {bank.index.recall:.4f} at ef {bank.index.ef}, over {bank.index.queries} queries")
    if of := manifest.int8:
        agreement, quantization = of.agreement, of.quantization
        left = f", {len(quantization.in_float)} of {quantization.layers} layers left in float"
        typer.echo(
            f"int8: rank correlation with float {agreement.rank_correlation:.4f}, AUROC on spoiled images "
            f"{agreement.auroc_int8:.4f} ({agreement.auroc_fp32:.4f} in float){left if quantization.in_float else ''}"
        )
    for note in notes:
        typer.echo(note)
    if parity:
        typer.echo(
            f"proof: {parity.images} images scored as in training, "
            f"largest difference {parity.max_score_difference:.1e}, no verdict changed"
        )
    for name, words in describe_limits(manifest.calibration.limits, manifest.calibration.calibrated):
        typer.echo(f"{name}: {words}", err=name == "caution")
    typer.echo(f"next: msc-edge score {shlex.quote(str(out))} IMAGE_TABLE --out scores.csv")
