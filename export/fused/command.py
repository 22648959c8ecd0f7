"""The command `msc-edge fuse`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msc_edge.runtime.option_types import TrustedKey

if TYPE_CHECKING:
    from msc_edge.export.fused.proof import Proof
    from msc_edge.export.fused.single_file import SingleFile


def fuse(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FILE.onnx", help="File to write.")],
    precision: Annotated[
        Literal["fp32", "int8"] | None,
        typer.Option(help="Model of the kit.", show_default="the kit's default model"),
    ] = None,
    bank: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(
            help="How the rows of the memory bank are stored. float16 takes half of the space and int8 a quarter; both "
            "move scores a little, and the largest difference is shown."
        ),
    ] = "float32",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Images that the file and the kit must score alike.",
            show_default="thumbnails of the kit",
        ),
    ] = None,
    trusted_key: TrustedKey = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.onnx.")] = False,
) -> None:
    """Write a kit as one ONNX file with scores and verdicts inside, for programs without Python.

    Input is an image, outputs are score, p-value, verdict and heatmap.
    No file is written if it scores otherwise than the kit. docs/embed.md shows how to use it.
    """
    from msc_edge.errors import explain_missing_extra

    with explain_missing_extra("train"):
        from msc_edge.export.fused.writing import fuse_kit

    single, proof = fuse_kit(
        kit,
        out,
        precision=precision,
        bank=bank,
        images=images,
        trusted_key=trusted_key,
        overwrite=overwrite,
    )
    show(out, single, proof)


def show(out: Path, single: "SingleFile", proof: "Proof") -> None:
    """Print what was written."""
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line, size

    detector = single.detector
    echo(
        one_line(
            f"{out}: {size(out.stat().st_size)}, the {detector.model} model of kit {detector.kit.name} with "
            f"{many(len(detector.normal_images), 'normal image')} as {single.bank}"
        )
    )
    changed = f"{many(proof.changed_verdicts, 'changed verdict')}" if proof.changed_verdicts else "no changed verdict"
    echo(
        f"proof: {many(proof.images, 'image')} scored with onnxruntime alone and with the kit, negatives among them; "
        f"largest difference of a score {proof.score:.1e}, of maps and embeddings {proof.rest:.1e}; {changed}"
    )
