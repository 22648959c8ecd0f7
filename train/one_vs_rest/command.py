"""`msc-edge benchmark one-vs-rest`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

benchmark = typer.Typer(help="Benchmarks of the method, as the literature has them.", no_args_is_help=True)


@benchmark.callback()
def _benchmark() -> None:
    """Benchmarks of the method, as the literature has them."""


@benchmark.command("one-vs-rest")
def one_vs_rest(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables, curves and finished jobs.")],
    train: Annotated[Path | None, typer.Option(metavar="DIR", help="Training images, a folder for each class.")] = None,
    test: Annotated[Path | None, typer.Option(metavar="DIR", help="Test images, a folder for each class.")] = None,
    dataset: Annotated[
        Literal["cifar10", "cifar100", "fashion_mnist", "svhn"] | None,
        typer.Option(help="Or a data set that torchvision fetches, into DIR/data."),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Normal in turn; may be repeated. All by default.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="dn2, contrastive, v1, v2; may be repeated. All by default."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with seeds 0, 1, ...")] = 1,
    images: Annotated[
        int | None, typer.Option(min=2, help="Train on so many images of a class, the first by name.")
    ] = None,
    backbone: Annotated[str, typer.Option(metavar="NAME", help="As for train.")] = "resnet152",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="As for train.")] = None,
    stop_at: Annotated[str | None, typer.Option(metavar="STAGE", help="As for train.")] = None,
    preset: Annotated[Literal["whole-frame", "paper"], typer.Option(help="As for train.")] = "paper",
    image_size: Annotated[int, typer.Option(metavar="PIXELS", help="As for train.")] = 224,
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="of the preset", help="Training steps of each run.")
    ] = None,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", show_default="of the preset", help="Of SGD.")
    ] = None,
    freeze_to: Annotated[str | None, typer.Option(metavar="STAGE", help="As for train.")] = None,
    select: Annotated[
        Literal["synthetic", "last"] | None,
        typer.Option(show_default="last; with --preset whole-frame, of v1 and v2, synthetic", help="As for train."),
    ] = None,
    measure_every: Annotated[
        int | None, typer.Option(min=1, show_default="an epoch", help="Steps between points of the curve.")
    ] = None,
    accelerator: Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="As for train.")] = "auto",
    precision: Annotated[Literal["auto", "fp32", "bf16"], typer.Option(help="As for train.")] = "auto",
) -> None:
    """One class is normal, the others are not: DN2, plain contrastive, v1 and v2, at the last step or the selected one.

    What is finished is kept: the same command goes on where it was broken off.
    """
    from msc_edge.errors import UsageError, explain_missing_extra
    from msc_edge.progress import progress_bars
    from msc_edge.train.learning_rate import check_learning_rate

    with explain_missing_extra():
        from msc_edge.train.one_vs_rest.benchmark import fetched, run_protocol
        from msc_edge.train.one_vs_rest.protocol import METHODS, ProtocolOptions

    check_learning_rate(learning_rate)
    if unknown := sorted(set(method or []) - set(METHODS)):
        raise UsageError(f"--method {unknown[0]}: expected one of {', '.join(METHODS)}")
    named = [folder for folder in (train, test) if folder is not None]
    if len(named) != (0 if dataset else 2):
        raise UsageError("name --train DIR and --test DIR, or a --dataset and neither of them")
    options = ProtocolOptions(
        backbone=backbone,
        weights=weights,
        stop_at=stop_at,
        preset=preset,
        image_size=image_size,
        images=images,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        frozen_up_to=freeze_to,
        select=select,
        measure_every=measure_every,
        accelerator=accelerator,
        precision=precision,
    )
    with progress_bars() as report:
        if dataset:
            train, test = fetched(dataset, out / "data", report=report)
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
        )
    typer.echo(table, nl=False)
    typer.echo(f"see {out / 'table.md'}, {out / 'curves.csv'}", err=True)
