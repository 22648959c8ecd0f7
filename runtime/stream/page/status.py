"""The state of the stream in plain values, for the page."""

import time
from collections.abc import Mapping, Sequence

from msc_edge.runtime.detector import Detector
from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.line.values import State
from msc_edge.runtime.stream.page.snapshot import KitStatus, SinkStatus, SourceStatus, StationStatus
from msc_edge.runtime.stream.parts import Parts

_OLD_AFTER = 5.0  # seconds without a frame of a live source: less than `lost_after`, so that no viewer is misled
_MISSED = 3.0  # frames of a slow one


def station_status(
    parts: Parts, *, states: Mapping[str, State], reasons: Mapping[str, str], not_ready: Sequence[str]
) -> StationStatus:
    """The state of all parts. `states` and `reasons` are of sources; see `StationStatus`."""
    detectors = {worker.source.name: parts.kits.detector(worker.source.name) for worker in parts.workers}
    backlog = parts.outbox.backlog()
    sinks = [
        SinkStatus(each.name, backlog.get(each.name, 0), each.set_aside, each.failure or "")
        for each in parts.deliveries
    ]
    config = parts.config
    if config.results.jsonl or config.results.csv:
        sinks.append(SinkStatus("results", parts.recorder.waiting, 0, parts.recorder.failure))
    return StationStatus(
        station=config.station,
        time=time.time(),
        sources=tuple(
            SourceStatus(
                name=(name := worker.source.name),
                state=states[name],
                reason=reasons.get(name, ""),
                old_after=_old_after(options) if name in parts.live and parts.triggers is None else None,
                drift=worker.drift is not None and worker.drift.is_called,
                kit=detectors[name].kit.sha256,
                limit=detectors[name].limits.reject.score,
                warn=detectors[name].limits.warn.score,
            )
            for worker, options in zip(parts.workers, config.source, strict=True)
        ),
        kits=tuple({each.kit.sha256: _kit(each) for each in detectors.values()}.values()),
        sinks=tuple(sinks),
        not_ready=tuple(not_ready),
    )


def _old_after(source: SourceConfig) -> float:
    return max(_OLD_AFTER, _MISSED / source.max_fps if source.max_fps else 0.0)


def _kit(detector: Detector) -> KitStatus:
    return KitStatus(
        sha256=detector.kit.sha256,
        name=detector.kit.name,
        model=detector.model,
        path=detector.path,
        learned=len(detector.additions),
    )
