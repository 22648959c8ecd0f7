"""`msc-edge export`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of msc-edge train.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="KIT", help="Kit folder to write.")],
    normal: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the pictures lie that the run was trained on, if they have moved."),
    ] = None,
    warn_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Share of good parts that may be flagged 'warn' or worse.")
    ] = 0.05,
    reject_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Share of good parts that may be flagged 'reject'.")
    ] = 0.01,
    thumbnails: Annotated[bool, typer.Option(help="Keep a small picture of each normal in the kit.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a kit that stands there.")] = False,
) -> None:
    """Pack a run into a kit: model, bank, limits and manifest, proven with the runtime before it stands."""
    from msc_edge.errors import extras_named
    from msc_edge.progress import progress_bars

    with extras_named():
        from msc_edge.export.pack import export as export_kit
    from msc_edge.runtime.display import describe_limits

    with progress_bars() as report:
        manifest = export_kit(
            run,
            out,
            normal=normal,
            warn_rate=warn_rate,
            reject_rate=reject_rate,
            thumbnails=thumbnails,
            overwrite=overwrite,
            report=report,
        )
    megabytes = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    bank, parity = manifest.bank, manifest.parity
    typer.echo(f"{out}: {len(manifest.files)} files, {megabytes:.1f} MB; {bank.count} normals, {bank.search} search")
    if bank.index:
        typer.echo(f"index: recall {bank.index.recall:.4f} at ef {bank.index.ef}, over {bank.index.queries} queries")
    if parity:
        typer.echo(
            f"proof: {parity.pictures} pictures scored as in training, "
            f"largest difference {parity.max_score_difference:.1e}, no verdict changed"
        )
    for name, words in describe_limits(manifest.calibration.limits, manifest.calibrated):
        typer.echo(f"{name}: {words}", err=name == "caution")
    typer.echo(f"next: msc-edge score {shlex.quote(str(out))} PICTURES --out scores.csv")
