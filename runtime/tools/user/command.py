"""`msc-edge user`: the file of those who may use a station's page."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

user = typer.Typer(no_args_is_help=True, help="Keep the file of the users who may log in to a station's page.")

UsersPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file: `users` in section web of the configuration.")
]
UserName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]


@user.command()
def add(
    file: UsersPath,
    name: UserName,
    role: Annotated[
        Literal["viewer", "operator", "engineer"],
        typer.Option(
            help="viewer: look. operator: also mark defects and false alarms. engineer: also change what is learned."
        ),
    ] = "operator",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input, for a script.")
    ] = False,
) -> None:
    """Add a user, or replace the role and the password of one (extra web).

    A running page uses the changed file at once; open sessions of this user end.

    Exit codes: 0 done, 2 usage, 5 the file cannot be written.
    """
    from msc_edge.runtime.web.users import add_user
    from msc_edge.terminal import echo

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else _asked()
    add_user(file, name, role=role, password=password)
    echo(f"{file}: {name} is {role}")


@user.command()
def remove(file: UsersPath, name: UserName) -> None:
    """Remove a user. Open sessions of this user end at once.

    Exit codes: 0 done, 2 usage, 5 the file cannot be written.
    """
    from msc_edge.runtime.web.users import remove_user
    from msc_edge.terminal import echo

    remove_user(file, name)
    echo(f"{file}: {name} is removed")


@user.command("list")
def list_users(file: UsersPath) -> None:
    """List the users and their roles.

    Exit codes: 0 done, 2 usage.
    """
    from msc_edge.runtime.web.users import read_users
    from msc_edge.terminal import echo

    for each in read_users(file).values():
        echo(f"{each.name}: {each.role}")


def _asked() -> str:
    from msc_edge.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("the password is asked for at a terminal; give --password-stdin to read it from a pipe")
    return typer.prompt("Password", hide_input=True, confirmation_prompt=True)
