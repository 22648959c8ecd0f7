from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from msc_edge.deprecation import deprecated_option, deprecated_value, renamed
from msc_edge.errors import UsageError


def run(*arguments: str) -> Result:
    app = typer.Typer()

    @app.command()
    def command(
        images: Annotated[Path, typer.Option()] = Path("default"),
        dtype: Annotated[Literal["auto", "fp32"], typer.Option()] = "auto",
        pictures: Annotated[
            Path | None, typer.Option(hidden=True, callback=deprecated_option("--pictures", "--images"))
        ] = None,
        precision: Annotated[
            Literal["auto", "fp32"] | None,
            typer.Option(hidden=True, callback=deprecated_option("--precision", "--dtype")),
        ] = None,
        words: Annotated[
            list[str] | None, typer.Option(hidden=True, callback=deprecated_option("--words", "--terms"))
        ] = None,
    ) -> None:
        images = images if pictures is None else pictures
        dtype = dtype if precision is None else precision
        typer.echo(f"{images} {dtype} {words}")

    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "output", "warnings"),
    [
        ("", "default auto None", []),
        ("--images in --dtype fp32", "in fp32 None", []),
        ("--pictures in", "in auto None", ["--pictures is deprecated; use --images"]),
        ("--pictures=in", "in auto None", ["--pictures is deprecated; use --images"]),
        ("--words a --words b", "default auto ['a', 'b']", ["--words is deprecated; use --terms"]),
        (
            "--precision fp32 --pictures in",
            "in fp32 None",
            ["--precision is deprecated; use --dtype", "--pictures is deprecated; use --images"],
        ),
    ],
)
def test_an_old_name_works_and_prints_one_warning(arguments: str, output: str, warnings: list[str]) -> None:
    done = run(*arguments.split())
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == output
    assert done.stderr.splitlines() == [f"warning: {warning}" for warning in warnings]


def test_a_value_that_the_new_option_refuses_is_refused() -> None:
    refused = run("--precision", "int8")
    assert refused.exit_code == 2
    assert "--precision" in refused.output


def test_the_help_shows_new_names_only() -> None:
    shown = run("--help").output
    assert "--images" in shown
    assert "--pictures" not in shown


@pytest.mark.parametrize(
    ("arguments", "output", "warning"),
    [
        ("", "None", ""),
        ("--model fp32", "fp32", ""),
        ("--model auto", "auto", "warning: --model auto is old; leave it out"),
    ],
)
def test_a_deprecated_value_works_and_prints_one_warning(arguments: str, output: str, warning: str) -> None:
    app = typer.Typer()

    @app.command()
    def command(
        model: Annotated[
            Literal["auto", "fp32"] | None,
            typer.Option(callback=deprecated_value("--model", "auto", "is old; leave it out")),
        ] = None,
    ) -> None:
        typer.echo(str(model))

    done = CliRunner().invoke(app, arguments.split())
    assert (done.stdout.strip(), done.stderr.strip()) == (output, warning)


def test_a_value_may_have_the_old_or_the_new_name_but_not_both() -> None:
    assert renamed("--old", 1, "--new", None) == 1
    assert renamed("--old", None, "--new", 2) == 2
    assert renamed("--old", None, "--new", None) is None
    with pytest.raises(UsageError, match="--old is the deprecated name of --new, and both are given; remove --old"):
        renamed("--old", 1, "--new", 1)
