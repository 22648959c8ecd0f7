"""The command `msc-edge benchmark one-vs-rest`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from msc_edge.deprecation import deprecated_option
from msc_edge.train import option_types
from msc_edge.train.registry_help import METHODS, RegistryCommand

benchmark = typer.Typer(help="Benchmarks of the method, as in the literature.", no_args_is_help=True)


@benchmark.callback()
def _benchmark() -> None:
    """Benchmarks of the method, as in the literature."""


@benchmark.command("one-vs-rest", cls=RegistryCommand)
def one_vs_rest(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables, curves and finished jobs.")],
    train: Annotated[Path | None, typer.Option(metavar="DIR", help="Training images, one folder per class.")] = None,
    test: Annotated[Path | None, typer.Option(metavar="DIR", help="Test images, one folder per class.")] = None,
    dataset: Annotated[
        Literal["cifar10", "cifar100", "fashion_mnist", "svhn"] | None,
        typer.Option(help="Instead of --train and --test: a data set that torchvision downloads to DIR/data."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="all", help="Class to use as the normal class; may be repeated."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default="all", help=f"dn2 (frozen backbone), or a recipe: {METHODS}; may be repeated."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each class and method, with seeds 0, 1, ...")] = 1,
    images: Annotated[
        int | None, typer.Option(min=2, show_default="all", help="Training images of each class, the first by name.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option(min=2, hidden=True, callback=deprecated_option("--pictures", "--images"))
    ] = None,
    backbone: option_types.Backbone = "resnet152",
    weights: option_types.BackboneWeights = None,
    stop_at: option_types.StopAt = None,
    preset: option_types.Preset = "paper",
    image_size: option_types.ImageSize = 224,
    steps: option_types.Steps = None,
    batch: option_types.Batch = 64,
    learning_rate: option_types.LearningRate = None,
    freeze_to: option_types.FreezeTo = None,
    select: option_types.SelectCheckpoint = None,
    measure_every: Annotated[
        int | None, typer.Option(min=1, show_default="one epoch", help="Steps between points of the AUROC curve.")
    ] = None,
    accelerator: option_types.Accelerator = "auto",
    dtype: option_types.Dtype = "auto",
    precision: option_types.DeprecatedPrecision = None,
) -> None:
    """Run the one-versus-rest benchmark: each class in turn is normal, the others are anomalous.

    The estimated time is printed before the first job. Finished jobs are kept: run the same command again to continue
    an interrupted benchmark.
    """
    from msc_edge.errors import UsageError, explain_missing_extra
    from msc_edge.progress import progress_bars
    from msc_edge.terminal import echo
    from msc_edge.text import many

    with explain_missing_extra("train"):
        from msc_edge.train.one_vs_rest.benchmark import download_dataset, run_protocol
        from msc_edge.train.one_vs_rest.protocol import METHODS, ProtocolOptions, read_jobs
        from msc_edge.train.options import check_learning_rate

    check_learning_rate(learning_rate)
    if unknown := sorted(set(method or []) - set(METHODS)):
        raise UsageError(f"--method {unknown[0]}: expected one of {', '.join(METHODS)}")
    given = [folder for folder in (train, test) if folder is not None]
    if len(given) != (0 if dataset else 2):
        raise UsageError("expected either --train DIR and --test DIR, or --dataset NAME")
    options = ProtocolOptions(
        backbone=backbone,
        weights=weights,
        stop_at=stop_at,
        preset=preset,
        image_size=image_size,
        images=images if pictures is None else pictures,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        frozen_up_to=freeze_to,
        select=select,
        measure_every=measure_every,
        accelerator=accelerator,
        dtype=dtype if precision is None else precision,
    )
    if finished := len(read_jobs(out)):
        kept = f"{out}: {many(finished, 'finished job')} will be kept"
        echo(f"{kept}; after a change of the code choose another --out", err=True)
    with progress_bars() as report:
        if dataset:
            train, test = download_dataset(dataset, out / "data", report=report)
        assert train is not None
        assert test is not None
        table = run_protocol(
            train,
            test,
            out,
            options,
            classes=classes or [],
            methods=[each for each in METHODS if not method or each in method],
            seeds=seeds,
            report=report,
            announce=lambda line: echo(line, err=True),
        )
    echo(table, nl=False)
    echo(f"see {out / 'table.md'}, {out / 'curves.csv'}", err=True)
