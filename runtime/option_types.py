"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from msc_edge.deprecation import AUTO_PRECISION, deprecated_value

PrecisionOption = Annotated[
    Literal["auto", "fp32", "int8"] | None,
    typer.Option(
        metavar="<fp32|int8>",
        help="Model that scores; each has its own limits.",
        show_default="the kit's",
        callback=deprecated_value("--precision", "auto", AUTO_PRECISION),
    ),
]
"""`auto` is deprecated: the kit's default model."""
LearnedOption = Annotated[
    bool,
    typer.Option(
        "--learned",
        help="With what this station has learned for the kit (see msc-edge learn), as its streams score.",
    ),
]
TrustedKey = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="A public key, or a folder of them (*.pub): refuse a kit that none of them has signed (extra `sign`).",
        show_default=False,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Reject scores above this value instead of the kit's limit; a score equal to it is not rejected. A warn "
        "limit above it becomes equal to it: no image then gets warn.",
        show_default=False,
    ),
]
FalseAlarmRate = Annotated[
    float | None,
    typer.Option(help="Target false-alarm rate of the reject limit, such as 0.01.", show_default=False),
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 is every network of this PC, and needs a token.")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any free one.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Let other PCs use the server without a token.")]
TlsCertificate = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Certificate for https, PEM.", show_default=False)
]
TlsKey = Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, PEM.", show_default=False)]
