"""Options that several commands share."""

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
Threshold = Annotated[
    float | None, typer.Option(help="Reject scores above this value instead of the kit's limit.", show_default=False)
]
FalseAlarmRate = Annotated[
    float | None,
    typer.Option(help="Target false-alarm rate of the reject limit, such as 0.01.", show_default=False),
]
