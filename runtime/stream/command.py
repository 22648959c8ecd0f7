"""`msc-edge stream` and `msc-edge reload`."""

import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from msc_edge.deprecation import deprecated_option, renamed
from msc_edge.runtime.option_types import FalseAlarmRate, PrecisionOption, Threshold, TrustedKey
from msc_edge.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from msc_edge.runtime.stream.config import StreamConfig

_LAST_PORT = 65535
_ANSWER_TIMEOUT = 5.0  # seconds that a running stream has to answer


def stream(
    kit: Annotated[
        Path | None, typer.Argument(metavar="[KIT]", help="A kit: a folder or a .zip.", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="0 or /dev/video0, an rtsp:// or http:// stream, a video file, or a folder that receives images.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="SOURCE", help="Another source; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read options from this TOML file; options given here override it."),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the resulting configuration and exit. Names, types and ranges of the options are checked; "
            "nothing is opened: no kit, no source, no file, no broker.",
        ),
    ] = False,
    running: Annotated[
        bool,
        typer.Option("--running", help="With --print-config: print what the running stream uses."),
    ] = False,
    jsonl: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row per frame, as JSON lines.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a row per frame, as CSV.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Save rejected frames here.")] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", hidden=True, callback=deprecated_option("--pictures", "--images"))
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --images, save every n-th normal frame too.")
    ] = None,
    mqtt: Annotated[str | None, typer.Option(metavar="HOST[:PORT]", help="Send events to this MQTT broker.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Send events by HTTP POST.")] = None,
    trigger: Annotated[
        Literal["http", "mqtt", "modbus", "opcua"] | None,
        typer.Option(help="Score a frame of a live source only when asked for one, this way.", show_default=False),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Serve /metrics, /healthz and /readyz on this port."),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve the station's page here: live frames, and a gallery of rejects and warnings (extra web). "
            "Without a host on this PC only.",
        ),
    ] = None,
    alarm_after: Annotated[
        str | None,
        typer.Option(
            metavar="M-of-N", help="Raise a reject event after m rejects among n frames.", show_default="1-of-1"
        ),
    ] = None,
    cooldown: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Raise at most one reject event of a source in this time.", show_default="0"
        ),
    ] = None,
    max_fps: Annotated[
        float | None, typer.Option(metavar="RATE", help="Score at most this many frames a second of each live source.")
    ] = None,
    threshold: Threshold = None,
    false_alarm_rate: FalseAlarmRate = None,
    precision: PrecisionOption = None,
    trusted_key: TrustedKey = None,
    station: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of this PC or line.", show_default="the PC's name")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the outbox and of the list of processed files.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Open a window with the frame and its verdict.")] = False,
    log_format: Annotated[
        Literal["text", "json"] | None, typer.Option(help="Format of the log.", show_default="text")
    ] = None,
) -> None:
    """Score cameras, streams, videos, or folders that receive images, until stopped.

    Ctrl-C and SIGTERM stop the stream; SIGHUP and `msc-edge reload` load the kit again.

    Exit codes: 0 stopped on request or all sources ended, 2 usage, 3 a source cannot be used,
    4 the kit cannot be used, 5 output cannot be written, 70 internal error.
    """
    if hasattr(signal, "SIGHUP") and sys.stderr and not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # before the kit can be reloaded, SIGHUP must not end the process
    from msc_edge.errors import UsageError
    from msc_edge.runtime.stream.config_toml import config_as_toml
    from msc_edge.runtime.stream.option_names import naming_options

    images = renamed("--pictures", pictures, "--images", images)
    if every and not images and not config:
        raise UsageError("--every saves images; add --images DIR")
    addresses = [*([address] if address else []), *(source or [])]
    given: dict[str, Any] = {
        "kit": str(kit) if kit else None,
        "station": station,
        "state": str(state) if state else None,
        "precision": precision,
        "trusted_key": str(trusted_key) if trusted_key else None,
        "show": True if show else None,
        "source": [_without_none({"address": each, "max_fps": max_fps}) for each in addresses] or None,
        "limits": {"threshold": threshold, "false_alarm_rate": false_alarm_rate},
        "alarm": {"after": alarm_after, "cooldown": cooldown},
        "results": {"jsonl": jsonl, "csv": csv},
        "images": {"folder": images, "every": every},
        "mqtt": _broker(mqtt),
        "webhook": {"url": webhook},
        "http": {"port": http},
        "web": _page_address(web),
        "trigger": {"by": trigger},
        "log": {"format": log_format},
    }
    if max_fps is not None and not addresses:
        raise UsageError("--max-fps applies to sources given here; for others set max_fps in the configuration file")
    if running:
        _print_running(config, given, print_config=print_config)
        return
    with naming_options(given := _without_none(given)):
        options = _configured(config, given)
        if print_config:
            typer.echo(config_as_toml(options), nl=False)
            return
        _run(options, reread=lambda: _configured(config, given))


def reload(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration file of the stream.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="State folder of the stream.", show_default=False)
    ] = None,
    station: Annotated[
        str | None, typer.Option(metavar="NAME", help="Station of the stream, if it uses the default state folder.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Longest wait for an answer.")] = 60,
) -> None:
    """Make a running stream load its kits and its configuration file again, without dropping a frame.

    Limits, alarms, kits and the options of sinks change at once. If an option needs a restart, or a kit does not
    score, everything remains as it was. Identify the stream by --config, --state or --station.

    Exit codes: 0 the new kit is active, 4 it was refused and everything remains
    as it was, 2 no stream answered.
    """
    from msc_edge.runtime.stream.control import request_reload
    from msc_edge.terminal import echo

    given = {"station": station, "state": str(state) if state else None}
    echo(request_reload(_state_folder(config, given), timeout=timeout))


def _print_running(config: Path | None, given: dict[str, Any], *, print_config: bool) -> None:
    from msc_edge.errors import UsageError
    from msc_edge.runtime.stream.control import request_config

    if not print_config:
        raise UsageError("--running belongs to --print-config; give both, or neither")
    names = {name: given[name] for name in ("station", "state")}
    typer.echo(request_config(_state_folder(config, names), timeout=_ANSWER_TIMEOUT), nl=False)


def _state_folder(config: Path | None, given: dict[str, Any]) -> Path:
    """The state folder of a running stream."""
    from msc_edge.runtime.station import state_folder
    from msc_edge.runtime.stream.config_file import check_config, read_state_options

    found = read_state_options(config) if config else {}
    options = check_config({"kit": ".", "source": [{"address": "0"}], **found, **_without_none(given)})
    return state_folder(options.state, station=options.station)


def _configured(file: Path | None, given: dict[str, Any]) -> "StreamConfig":
    from msc_edge.runtime.stream.config_file import check_config, read_config
    from msc_edge.runtime.stream.config_warnings import password_without_tls
    from msc_edge.terminal import echo

    def warn(message: str) -> None:
        echo(one_line(f"warning: {message}"), err=True)

    config = read_config(file, given, on_warning=warn) if file else check_config(given)
    if password_without_tls(config):
        warn("mqtt: the password crosses the network in plain text; set tls = true and the broker's TLS port")
    return config


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


def _page_address(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    found = re.fullmatch(r"(?:(?P<host>[^\s:\[\]]+|\[[0-9A-Fa-f:.%\w]+\]):)?(?P<port>\d{1,5})", given, re.ASCII)
    if not found or not 1 <= int(found["port"]) <= _LAST_PORT:
        from msc_edge.errors import UsageError

        raise UsageError(
            f"--web {given}: not a port from 1 to {_LAST_PORT}, or a host and such a port; pass for example --web 8765 "
            "for this PC only, --web 0.0.0.0:8765 for the network, or --web [::1]:8765"
        )
    port = {"port": int(found["port"])}
    return {"host": found["host"].strip("[]"), **port} if found["host"] else port


def _run(options: "StreamConfig", *, reread: "Callable[[], StreamConfig]") -> None:
    from msc_edge.runtime.stream.logs import log_to, standard_error
    from msc_edge.runtime.stream.service import Stream
    from msc_edge.runtime.stream.status import status_line
    from msc_edge.runtime.stream.stop_signals import stop_on_signals

    log_to(standard_error(), options.log.format)
    running = Stream(options, reread=reread)
    with ExitStack() as stack:
        stop_on_signals(running.stop, stack)
        if hasattr(signal, "SIGHUP") and not sys.stderr.isatty():  # from a terminal, SIGHUP means that it was closed
            stack.callback(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, lambda *_: running.reload()))
        status = stack.enter_context(status_line(options.log))
        in_order = running.run(status)
    if not in_order:
        raise typer.Exit(70)
