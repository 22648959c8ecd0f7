"""`msc-edge studio`."""

import importlib.util
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from msc_edge.runtime.option_types import Host, Insecure, Port, TlsCertificate, TlsKey


def studio(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the projects.")] = Path("msc-edge-studio"),
    host: Host = "127.0.0.1",
    port: Port = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token to log in with. Without it, the environment variable MSC_EDGE_TOKEN is used.",
            show_default=False,
        ),
    ] = None,
    insecure: Insecure = False,
    tls_cert: TlsCertificate = None,
    tls_key: TlsKey = None,
    browser: Annotated[bool, typer.Option(help="Open the studio in the browser.")] = True,
) -> None:
    """From images to a kit in the browser: choose images, train, set limits, compare, download.

    Trainings run in processes of their own: the page may be closed. Ctrl-C stops the studio and its training, which
    goes on when the studio is started again.

    Exit codes: 0 stopped on request, 2 usage.
    """
    from msc_edge.errors import explain_missing_extra
    from msc_edge.terminal import console

    with explain_missing_extra():
        if importlib.util.find_spec("torch") is None:  # imported in the processes of trainings only
            raise ModuleNotFoundError(name="torch")
        from msc_edge.runtime.web.settings import WebSettings, read_token
        from msc_edge.studio.server import studio as run

    screen = console(stderr=True)
    settings = WebSettings(
        host=host, port=port, token=read_token(token_file), insecure=insecure, tls_cert=tls_cert, tls_key=tls_key
    )

    def started(address: str) -> None:
        screen.print(f"the studio of {folder} is at {address}; Ctrl-C stops it")
        if browser:
            webbrowser.open(address)

    run(folder, settings, on_start=started)
