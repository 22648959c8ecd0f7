"""Metrics of a server for Prometheus: requests, images, time of the stages."""

from collections.abc import Mapping
from typing import Literal, get_args

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from msc_edge.calibration import Verdict
from msc_edge.kit.opening import KitIdentity
from msc_edge.runtime.metrics_registry import MetricsRegistry
from msc_edge.runtime.results.image_result import ImageResult

Stage = Literal["queue", "score"]
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds


class RequestMetrics:
    """The metrics of one server. Safe to use from several threads."""

    def __init__(self, kit: KitIdentity) -> None:
        self._registry = registry = MetricsRegistry()
        self._requests = Counter(
            "msc_edge_requests_total", "Responses, by path and status", ["path", "status"], registry=registry
        )
        self._images = Counter("msc_edge_images_total", "Images that were scored", ["verdict"], registry=registry)
        self._unreadable = Counter(
            "msc_edge_unreadable_total", "Bodies that could not be read as an image", registry=registry
        )
        self._in_work = Gauge("msc_edge_images_in_work", "Images that wait or are scored now", registry=registry)
        self._stages = Histogram(
            "msc_edge_image_seconds",
            "Duration of the stages of an image that was scored: queue (wait for a thread), score (decode and score)",
            ["stage"],
            registry=registry,
            buckets=_BUCKETS,
        )
        info = Gauge("msc_edge_kit_info", "Always 1; the labels identify the kit", ["kit", "name"], registry=registry)
        info.labels(kit.sha256, kit.name).set(1)
        ProcessCollector(registry=registry)
        # Prometheus does not see the first increase of a counter that appears with it.
        for verdict in get_args(Verdict):
            self._images.labels(verdict)
        for stage in get_args(Stage):
            self._stages.labels(stage)

    def add_response(self, path: str, status: int) -> None:
        """Count a response. `path`: one of a fixed set."""
        self._requests.labels(path, str(status)).inc()

    def add_image(self, image: ImageResult, seconds: Mapping[Stage, float]) -> None:
        """Count an image by its verdict, with the duration of its stages in seconds; or as unreadable, without."""
        if image.result is None:
            self._unreadable.inc()
            return
        self._images.labels(image.result.verdict).inc()
        for stage, duration in seconds.items():
            self._stages.labels(stage).observe(duration)

    def set_in_work(self, images: int) -> None:
        """Set the number of images that wait or are scored now."""
        self._in_work.set(images)

    def as_text(self) -> bytes:
        """All metrics in the text format of Prometheus. Its content type is prometheus_client.CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)


class CountedResponses:
    """ASGI middleware: counts each response by path and status."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics, paths: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        path = scope["path"] if scope["path"] in self._paths else "other"  # labels must not grow with requests

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.add_response(path, message["status"])
            await send(message)

        await self._app(scope, receive, counted)
