"""The whole of `msc-edge serve`, for Python users."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msc_edge.kit.manifest import Precision
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.tools.serve.app import Service, create_app
from msc_edge.runtime.tools.serve.settings import ServeSettings
from msc_edge.runtime.web.server import open_port


def serve(
    kit: str | Path,
    settings: ServeSettings | None = None,
    *,
    threshold: float | None = None,
    false_alarm_rate: float | None = None,
    precision: Precision | None = None,
    trusted_key: Path | None = None,
    on_start: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Score images over HTTP until SIGTERM or Ctrl-C: the whole of `msc-edge serve`.

    `threshold`, `false_alarm_rate`: see `Detector.with_limits`. `precision`, `trusted_key`: see `Detector.load`.
    `on_start` receives the addresses as soon as requests are answered. On a signal, no new connections are accepted,
    and the requests that have started are answered. Call this on the main thread.

    Raises UsageError when the port cannot be opened, or other PCs could use it without a token; KitError.
    """
    settings = settings or ServeSettings()
    # The port is opened first: loading a kit takes a second, and a wrong port none.
    with open_port(settings) as port:
        detector = Detector.load(kit, threads=1, precision=precision, trusted_key=trusted_key).with_limits(
            threshold=threshold, false_alarm_rate=false_alarm_rate
        )
        service = Service.of(detector, settings)
        try:
            port.run(create_app(service, hosts=port.hosts), on_start=lambda _: on_start(port.addresses))
        finally:
            service.pool.close()
