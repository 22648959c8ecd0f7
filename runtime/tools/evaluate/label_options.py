"""The options that name labelled images, for the commands that need some."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.tools.evaluate.labelled import LabelledDataset

Dataset = Annotated[
    Path | None,
    typer.Argument(metavar="DATASET", help="A data set with test/good and test/<defect type>.", show_default=False),
]
Normal = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="Instead of DATASET: a folder of normal images; may be repeated."),
]
Abnormal = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="A folder of anomalous images, whose name is the defect type; may be repeated."),
]


def labelled_images(dataset: Path | None, normal: list[Path] | None, abnormal: list[Path] | None) -> "LabelledDataset":
    """The images that these options name. UsageError unless they name a data set or folders, and SourceError."""
    from msc_edge.errors import UsageError  # noqa: PLC0415
    from msc_edge.runtime.tools.evaluate.labelled import labelled_dataset, labelled_folders  # noqa: PLC0415

    if (dataset is None) == (not normal and not abnormal):
        raise UsageError("pass either a DATASET with test/good, or --normal DIR and --abnormal DIR")
    return labelled_dataset(dataset) if dataset else labelled_folders(normal or [], abnormal or [])
