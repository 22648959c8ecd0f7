"""Applying a changed configuration and changed kits to a running stream: all of it, or nothing."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from msc_edge.errors import MscEdgeError, UsageError
from msc_edge.runtime.stream.config import StreamConfig
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.parts import Parts

_SECTIONS = {"limits", "alarm", "images", "mqtt", "webhook", "outbox"}
_OPTIONS = {"kit", "precision", "backend", "trusted_key", "http.ready_within"}
_OF_A_SOURCE = {"kit", "limits", "alarm", "roi", "not_scored_after"}


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """Outcome of a reload."""

    loaded: bool
    """False: everything remains as it was."""
    message: str


class Reloader:
    """Reloads a running stream, one request at a time, on a thread. The stream goes on meanwhile."""

    def __init__(self, parts: Parts, *, reread: Callable[[], StreamConfig]) -> None:
        """`reread` gives the configuration as it is now."""
        self._parts = parts
        self._reread = reread
        self._busy = threading.Lock()

    def start(self, on_finished: Callable[[ReloadResult], None]) -> None:
        """Reload; `on_finished` is called once with the outcome. A reload during another one is refused."""
        if not self._busy.acquire(blocking=False):
            on_finished(ReloadResult(False, "a kit is being loaded already; try again afterwards"))
            return

        def work() -> None:
            try:
                result = self._reload()
            finally:
                self._busy.release()
            on_finished(result)

        threading.Thread(target=work, name="msc-edge reload", daemon=True).start()

    def _reload(self) -> ReloadResult:
        active = self._parts.config
        try:
            config = self._reread().with_images_of_page(self._parts.folder)
            changed = changed_options(active, config)
            if refused := [name for name in changed if not is_reloadable(name)]:
                raise UsageError(f"restart the stream to change {', '.join(refused)}; nothing was changed")
            if _has_channel(active) != _has_channel(config):
                raise UsageError("restart the stream to add or remove mqtt.host or webhook.url; nothing was changed")
            if active.trigger.by == "mqtt" and active.mqtt != config.mqtt:
                raise UsageError("restart the stream to change [mqtt], by which triggers come; nothing was changed")
            detectors = self._parts.load(config)
            self._parts.apply(config, detectors)
        except (MscEdgeError, MemoryError) as error:
            return _refused(str(error) or "not enough memory")
        except Exception:
            LOG.exception("internal error while loading a kit; please report it")
            return _refused("internal error, see the log")
        kits = {use.path: detectors[source].kit.sha256[:12] for source, use in self._parts.uses(config).items()}
        message = "; ".join(f"{path} is active, SHA-256 of its manifest {sha256}" for path, sha256 in kits.items())
        return ReloadResult(True, f"{message}; changed: {', '.join(changed)}" if changed else message)


def _refused(reason: str) -> ReloadResult:
    return ReloadResult(False, f"the previous kit remains active: {reason}")


def _has_channel(config: StreamConfig) -> tuple[bool, bool]:
    return bool(config.mqtt.host), bool(config.webhook.url)


def is_reloadable(name: str) -> bool:
    """Whether a running stream can apply a change of this option."""
    first, _, rest = name.partition(".")
    if first == "source":
        return rest.partition(".")[2].partition(".")[0] in _OF_A_SOURCE
    return first in _SECTIONS or name in _OPTIONS


def changed_options(old: StreamConfig, new: StreamConfig) -> list[str]:
    """The names of the options that differ, such as `mqtt.port` and `source.1.limits.threshold`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    if len(old.source) != len(new.source):
        return ["source"]
    names = dict.fromkeys([*before, *after])
    return [name for name in names if before.get(name) != after.get(name)]


def _flat(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for index, each in enumerate(value, start=1):
                yield from _flat(each, f"{prefix}{name}.{index}.")
        else:
            yield prefix + name, value
