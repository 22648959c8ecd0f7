"""`msc-edge serve`."""

from pathlib import Path
from typing import Annotated

import typer

from msc_edge.runtime.option_types import (
    FalseAlarmRate,
    Host,
    Insecure,
    Port,
    PrecisionOption,
    Threshold,
    TlsCertificate,
    TlsKey,
    TrustedKey,
)


def serve(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="A kit: a folder or a .zip.", show_default=False)],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that clients send as 'Authorization: Bearer TOKEN'. Without it, the environment "
            "variable MSC_EDGE_TOKEN is used.",
            show_default=False,
        ),
    ] = None,
    insecure: Insecure = False,
    tls_cert: TlsCertificate = None,
    tls_key: TlsKey = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Images scored in parallel.", show_default="all cores")
    ] = None,
    queue: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images that may wait; more are refused with 503.")
    ] = 32,
    max_bytes: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="Largest body; larger ones are refused with 413.")
    ] = 64_000_000,
    timeout: Annotated[
        int,
        typer.Option(
            min=1, metavar="SECONDS", help="Time that a client has to send a request, and to receive the response."
        ),
    ] = 30,
    threshold: Threshold = None,
    false_alarm_rate: FalseAlarmRate = None,
    precision: PrecisionOption = None,
    trusted_key: TrustedKey = None,
) -> None:
    """Score images over HTTP: POST an image to /score, and get its result as JSON.

    /docs on the server describes every path, with code for other languages.
    SIGTERM and Ctrl-C stop the server after the requests that have started.

    Exit codes: 0 stopped on request, 2 usage, 4 the kit cannot be used.
    """
    from msc_edge.errors import explain_missing_extra
    from msc_edge.terminal import console

    with explain_missing_extra():
        from msc_edge.runtime.tools.serve.server import serve as run
    from msc_edge.runtime.tools.serve.settings import ServeSettings
    from msc_edge.runtime.web.settings import read_token

    screen = console(stderr=True)
    settings = ServeSettings(
        host=host,
        port=port,
        queue=queue,
        max_bytes=max_bytes,
        timeout=timeout,
        token=read_token(token_file),
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
        **({} if workers is None else {"workers": workers}),
    )
    run(
        kit,
        settings,
        threshold=threshold,
        false_alarm_rate=false_alarm_rate,
        precision=None if precision == "auto" else precision,
        trusted_key=trusted_key,
        on_start=lambda addresses: screen.print(
            f"{kit} is served at {' and '.join(addresses)}; {addresses[0]}/docs describes the server"
        ),
    )
