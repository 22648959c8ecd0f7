"""From the configuration to sources."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.sources.address import Address, camera_number, parse_address
from msc_edge.runtime.stream.sources.camera import CameraSource
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.sources.video import VideoSource
from msc_edge.runtime.stream.state import State


def addresses_of(configs: Sequence[SourceConfig]) -> list[tuple[str, Address, SourceConfig]]:
    """The name, the address and the options of each source. Raises SourceError and UsageError for what is wrong."""
    found = []
    for config in configs:
        address = parse_address(config.address.get_secret_value())
        found.append((config.name or address.default_name, address, config))
    names = Counter(name for name, _, _ in found)
    for one, (_, address, _) in enumerate(found):
        if any(_is_same(address, other) for _, other, _ in found[:one]):
            raise UsageError(f"the source {address.shown} is named twice; name it once")
    if twice := [name for name, count in names.items() if count > 1]:
        raise UsageError(f"two sources are named {twice[0]}; give each a `name` of its own in the configuration file")
    return found


def _is_same(one: Address, other: Address) -> bool:
    if one.kind in ("folder", "video") and other.kind == one.kind:
        return Path(one.given).resolve() == Path(other.given).resolve()
    if one.kind == other.kind == "webcam":
        return camera_number(one.given) == camera_number(other.given)
    return one.given == other.given


def open_source(
    name: str,
    address: Address,
    config: SourceConfig,
    *,
    state: State,
    decode: Callable[[], DecodePolicy],
    restarted: Callable[[str], None],
) -> Source:
    """Open one source. `restarted` is told its name when its camera's process was started anew."""
    if address.is_live:
        return CameraSource(name, address, config, restarted=lambda: restarted(name))
    if address.kind == "video":
        return VideoSource(name, Path(address.given))
    return FolderSource(name, Path(address.given), state=state, decode=decode, settle=config.settle)
