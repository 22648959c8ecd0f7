"""The command `msc-edge fuse`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from msc_edge.runtime.option_types import TrustedKey

WebDemo = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write a static page that scores images and the camera in the browser, without a network. It needs the "
        "npm package onnxruntime-web.",
        show_default=False,
    ),
]
OnnxRuntimeWeb = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder of the npm package onnxruntime-web.", show_default="node_modules/onnxruntime-web"
    ),
]

if TYPE_CHECKING:
    from msc_edge.export.fused.proof import Proof
    from msc_edge.export.fused.single_file import SingleFile


def fuse(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    out: Annotated[Path | None, typer.Option(metavar="FILE.onnx", help="File to write.", show_default=False)] = None,
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
    web_demo: WebDemo = None,
    onnxruntime_web: OnnxRuntimeWeb = None,
    trusted_key: TrustedKey = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.onnx and DIR.")] = False,
) -> None:
    """Write a kit as one ONNX file with scores and verdicts inside, for programs without Python.

    Input is an image, outputs are score, p-value, verdict and heatmap.
    No file is written if it scores otherwise than the kit. docs/embed.md shows how to use it.
    """
    from msc_edge.errors import UsageError, explain_missing_extra

    if out is None and web_demo is None:
        raise UsageError("nothing to write; pass --out FILE.onnx, or --web-demo DIR")
    with explain_missing_extra("train"):
        from msc_edge.export.fused.writing import fuse_kit

    single, proof = fuse_kit(
        kit,
        out,
        precision=precision,
        bank=bank,
        images=images,
        web_demo=web_demo,
        onnxruntime_web=onnxruntime_web,
        trusted_key=trusted_key,
        overwrite=overwrite,
    )
    _show(out, single, proof)
    if web_demo is not None:
        show_web_demo(web_demo)


def show_web_demo(folder: Path) -> None:
    """Print how to open the page."""
    from msc_edge.terminal import echo
    from msc_edge.text import one_line

    echo(one_line(f"web demo: {folder}; open it through any web server, such as: python -m http.server -d {folder}"))


def _show(out: Path | None, single: "SingleFile", proof: "Proof") -> None:
    from msc_edge.terminal import echo
    from msc_edge.text import many, one_line, size

    detector = single.detector
    echo(
        one_line(
            f"{out or 'kit.onnx'}: {size(len(single.content))}, the {detector.model} model of kit {detector.kit.name} "
            f"with {many(len(detector.normal_images), 'normal image')} as {single.bank}"
        )
    )
    changed = f"{many(proof.changed_verdicts, 'changed verdict')}" if proof.changed_verdicts else "no changed verdict"
    echo(
        f"proof: {many(proof.images, 'image')} scored with onnxruntime alone and with the kit, negatives among them; "
        f"largest difference of a score {proof.score:.1e}, of maps and embeddings {proof.rest:.1e}; {changed}"
    )
