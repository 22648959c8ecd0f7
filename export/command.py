"""The command `msc-edge export`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msc_edge.export.fused.command import OnnxRuntimeWeb, WebDemo, show_web_demo

if TYPE_CHECKING:
    from msc_edge.kit.manifest import Manifest


def export(
    out: Annotated[Path, typer.Option(metavar="KIT", help="Kit folder to write.")],
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder of msc-edge train.", show_default=False)
    ] = None,
    from_station: Annotated[
        Path | None,
        typer.Option(
            metavar="KIT",
            help="Instead of RUN: a kit, with what this station has learned for it. Limits are those that count "
            "here; of the other options, --name and --overwrite apply.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the kit.", show_default="name of the folder KIT")
    ] = None,
    normal: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the training images, if they were moved."),
    ] = None,
    warn_rate: Annotated[
        float,
        typer.Option(
            metavar="RATE", help="Target false-alarm rate of the warn limit; equal to --reject-rate: no warnings."
        ),
    ] = 0.05,
    reject_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Target false-alarm rate of the reject limit.")
    ] = 0.01,
    region_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", help="Target share of good parts with any region in the heatmap.", show_default="0.01"
        ),
    ] = None,
    scores: Annotated[
        Literal["image", "patch", "both"] | None,
        typer.Option(help="What a score is made of; see msc-edge train.", show_default="as trained"),
    ] = None,
    precision: Annotated[
        Literal["both", "fp32", "int8"],
        typer.Option(
            help="Models in the kit. both: fp32, and int8 if it agrees with fp32; int8 scores only if it loses less "
            "than 0.003 of AUROC and AU-PRO on faint synthetic anomalies. int8: fp32 and int8, and int8 scores; fails "
            "if they disagree."
        ),
    ] = "both",
    target: Annotated[
        Literal["x86-vnni", "x86", "arm64"],
        typer.Option(help="Processors that the int8 model is made for. x86-vnni: x86 with VNNI; x86: without."),
    ] = "x86-vnni",
    thumbnails: Annotated[bool, typer.Option(help="Store a thumbnail of each normal image in the kit.")] = True,
    single_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="Also write the kit as one ONNX file for programs without Python; see msc-edge fuse.",
            show_default=False,
        ),
    ] = None,
    web_demo: WebDemo = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing kit.")] = False,
    context: typer.Context = None,  # pyright: ignore[reportArgumentType]  (typer gives it)
) -> None:
    """Pack a run into a kit, and check that the kit scores as training did.

    A kit holds the models, the memory bank, the limits and the manifest.
    No kit is written if the scores of the runtime differ from those of training.
    """
    from msc_edge.errors import UsageError, explain_missing_extra
    from msc_edge.progress import progress_bars
    from msc_edge.terminal import echo
    from msc_edge.text import one_line, size

    if (run is None) == (from_station is None):
        raise UsageError("name a RUN of msc-edge train, or --from-station KIT, and not both")
    if from_station is not None:
        kept = {"out", "name", "from_station", "overwrite"}
        given = [
            each for each in context.params if getattr(context.get_parameter_source(each), "name", "") == "COMMANDLINE"
        ]
        if wrong := [f"--{each.replace('_', '-')}" for each in given if each not in kept]:
            raise UsageError(f"{', '.join(wrong)}: of a training; --from-station leaves the kit as it is otherwise")
        _export_station(from_station, out, name=name, overwrite=overwrite)
        return
    assert run is not None

    with explain_missing_extra("train"):
        from msc_edge.export.fused.writing import Targets
        from msc_edge.export.pack import export as export_kit

    fused = None
    if single_file is not None or web_demo is not None:
        fused = Targets.checked(single_file, web_demo, onnxruntime_web, overwrite=overwrite)
    notes: list[str] = []
    with progress_bars() as report:
        manifest = export_kit(
            run,
            out,
            normal=normal,
            name=name,
            warn_rate=warn_rate,
            reject_rate=reject_rate,
            region_rate=region_rate,
            scores=scores,
            precision=precision,
            target=target,
            thumbnails=thumbnails,
            fused=fused,
            overwrite=overwrite,
            report=report,
            note=notes.append,
        )
    _show(out, manifest, notes)
    if single_file is not None:
        echo(one_line(f"single file: {single_file}, {size(single_file.stat().st_size)}; it scores as the kit does"))
    if web_demo is not None:
        show_web_demo(web_demo)


def _export_station(kit: Path, out: Path, *, name: str | None, overwrite: bool) -> None:
    from msc_edge.errors import explain_missing_extra
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line

    with explain_missing_extra("train"):
        from msc_edge.export.station import export_station

    manifest = export_station(kit, out, name=name, overwrite=overwrite)
    count = manifest.normal_images.count
    echo(one_line(f"{out}: kit {manifest.name}, {many(count, 'row')} in the memory bank; it scores as {kit} does here"))


def _show(out: Path, manifest: "Manifest", notes: list[str]) -> None:
    from msc_edge.describe import describe_default_model, describe_limits
    from msc_edge.export.parity import TOLERANCE, unit_of
    from msc_edge.terminal import echo
    from msc_edge.text import size

    fp32, total = manifest.models["fp32"], sum(entry.bytes for entry in manifest.files.values())
    bank, parity = fp32.banks.images, fp32.parity
    echo(
        f"{out}: kit {manifest.name}, {len(manifest.files)} files, {size(total)}; {bank.count} normal images in the "
        f"memory bank, {bank.search} search"
    )
    if index := bank.index:
        echo(f"index: recall {index.recall:.4f} at ef {index.ef}, over {index.queries} queries")
    int8 = manifest.models.get("int8")
    if int8 and int8.agreement and int8.quantization:
        agreement, quantization = int8.agreement, int8.quantization
        in_float = f", {len(quantization.float_layers)} of {quantization.layers} layers in float"
        echo(
            f"int8: rank correlation with fp32 {agreement.rank_correlation:.4f}, AUROC on synthetic anomalies "
            f"{agreement.auroc:.4f} (fp32 {agreement.auroc_fp32:.4f}){in_float if quantization.float_layers else ''}"
        )
    for note in notes:
        echo(note)
    echo(f"model: {describe_default_model(manifest)}")
    if parity:
        unit = unit_of(fp32.scoring)
        of_scores = "" if unit == 1 else " standard deviations of normal images"
        echo(
            f"parity: {parity.images} images scored as in training, synthetic anomalies among them; largest difference "
            f"{parity.max_score_difference:.1e}{of_scores}, allowed {TOLERANCE * unit:.1e}; no changed verdict"
        )
    for name, text in describe_limits(fp32.calibration.limits, fp32.calibration.calibration, fp32.calibration.regions):
        echo(f"{name}: {text}", err=name == "caution")
    echo(f"next: msc-edge score {shlex.quote(str(out))} IMAGES --out scores.csv")
