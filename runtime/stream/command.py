"""`msc-edge stream` and `msc-edge reload`."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from msc_edge.runtime.stream.config import StreamConfig
    from msc_edge.runtime.stream.service import Stream


def stream(
    kit: Annotated[
        Path | None, typer.Argument(metavar="[KIT]", help="A kit: a folder or a .zip.", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="0 or /dev/video0, rtsp:// or http:// stream, video file, or a folder being written to.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="SOURCE", help="One more source; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All options from this TOML file; those given here go first.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration in force, and exit.")
    ] = False,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row a frame, as JSON lines.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row a frame, as CSV.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the frames that are rejected.")] = None,
    every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Save every n-th normal frame too, with --images.")
    ] = None,
    mqtt: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Send events to this MQTT broker.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Send events by HTTP POST.")] = None,
    http: Annotated[
        int | None, typer.Option(min=1, max=65535, metavar="PORT", help="Serve /metrics, /healthz and /readyz here.")
    ] = None,
    alarm_after: Annotated[
        str | None,
        typer.Option(metavar="M-of-N", help="Reject event after m rejects in n frames.", show_default="1-of-1"),
    ] = None,
    cooldown: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="At most one reject event in this time.", show_default="0")
    ] = None,
    max_fps: Annotated[
        float | None, typer.Option(metavar="RATE", help="Score at most this many frames a second of a live source.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Reject scores above this one, instead of the kit's limit.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Reject at most this share of good images, such as 0.01.")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "int8"] | None,
        typer.Option(help="Which of the kit's models; auto: the faster one here.", show_default="the kit's"),
    ] = None,
    station: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of this line.", show_default="the PC's name")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep undelivered events and what was done here.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open a window.")] = False,
    log_format: Annotated[Literal["text", "json"] | None, typer.Option(help="Of the log.", show_default="text")] = None,
) -> None:
    """Score cameras, streams, videos or a folder being written to, for as long as they run.

    Ctrl-C and SIGTERM end it in order; SIGHUP and `msc-edge reload` load the kit anew.

    Exit codes: 0 ended in order, 2 usage, 3 source, 4 kit, 5 output cannot be written,
    70 a defect of msc-edge.
    """
    if hasattr(signal, "SIGHUP") and sys.stderr and not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # one that comes before we can load a kit anew must not end us
    from msc_edge.errors import UsageError
    from msc_edge.runtime.stream.config_file import config_as_toml

    if every and not images and not config:
        raise UsageError("--every: saves images, and needs --images DIR")
    addresses = [*([address] if address else []), *(source or [])]
    given: dict[str, Any] = {
        "kit": str(kit) if kit else None,
        "station": station,
        "state": str(state) if state else None,
        "precision": precision,
        "show": True if show else None,
        "source": [_without_none({"address": each, "max_fps": max_fps}) for each in addresses] or None,
        "limits": {"threshold": threshold, "false_alarm_rate": false_alarm_rate},
        "alarm": {"after": alarm_after, "cooldown": cooldown},
        "results": {"jsonl": jsonl, "csv": csv},
        "images": {"folder": images, "every": every},
        "mqtt": _broker(mqtt),
        "webhook": {"url": webhook},
        "http": {"port": http},
        "log": {"format": log_format},
    }
    if max_fps is not None and not addresses:
        raise UsageError("--max-fps: concerns a source that is given here; in a configuration file it stands there")
    options = _configured(config, _without_none(given))
    if print_config:
        typer.echo(config_as_toml(options), nl=False)
        return
    _run(options)


def reload(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration file of the stream.", show_default=False)
    ] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Or its state folder.", show_default=False)] = None,
    station: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or its station, where the state folder is the user's own.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Wait at most so long.")] = 60,
) -> None:
    """Let a running stream load its kit again, without missing a frame.

    Exit codes: 0 the kit is in force, 4 it does not verify and the one before stays,
    2 no stream answered.
    """
    from msc_edge.runtime.stream.config import state_folder
    from msc_edge.runtime.stream.config_file import check_config, where_its_state_is
    from msc_edge.runtime.stream.control import request_reload

    found = where_its_state_is(config) if config else {}
    given = _without_none({"station": station, "state": str(state) if state else None})
    options = check_config({"kit": ".", "source": [{"address": "0"}], **found, **given})
    typer.echo(request_reload(state_folder(options), timeout=timeout))


def _configured(file: Path | None, given: dict[str, Any]) -> "StreamConfig":
    from msc_edge.runtime.stream.config_file import check_config, read_config

    return read_config(file, given) if file else check_config(given)


def _without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    cleaned = {key: _without_none(each) for key, each in value.items() if each is not None}
    return {key: each for key, each in cleaned.items() if each != {}}


def _broker(given: str | None) -> dict[str, Any]:
    host, colon, port = (given or "").rpartition(":")
    if not colon:
        return {"host": given}
    return {"host": host, "port": int(port) if port.isdecimal() else port}


def _run(options: "StreamConfig") -> None:
    from msc_edge.runtime.stream.logs import log_to, standard_error
    from msc_edge.runtime.stream.service import Stream
    from msc_edge.runtime.stream.status import status_line

    log_to(standard_error(), options.log.format)
    running = Stream(options)
    with ExitStack() as stack:
        _stop_on_signals(running, stack)
        status = stack.enter_context(status_line(options.log))
        in_order = running.run(status)
    if not in_order:
        raise typer.Exit(70)


def _stop_on_signals(running: "Stream", stack: ExitStack) -> None:
    """Ctrl-C and SIGTERM: in order. A second Ctrl-C: at once."""

    def stop(signum: int, frame: object) -> None:  # noqa: ARG001
        signal.signal(signal.SIGINT, signal.default_int_handler)
        running.stop()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        if hasattr(signal, name):
            number = getattr(signal, name)
            stack.callback(signal.signal, number, signal.signal(number, stop))
    if hasattr(signal, "SIGHUP") and not sys.stderr.isatty():  # from a terminal it says that this was closed
        stack.callback(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, lambda *_: running.reload()))
