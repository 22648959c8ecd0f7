"""Creates the configured sources."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msc_edge.errors import UsageError
from msc_edge.images import DecodePolicy
from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.sources.address import Address, camera_number, parse_address, with_login
from msc_edge.runtime.stream.sources.camera import CameraSource
from msc_edge.runtime.stream.sources.folder import FolderSource
from msc_edge.runtime.stream.sources.interface import Source
from msc_edge.runtime.stream.sources.video import VideoSource
from msc_edge.runtime.stream.state import State


def addresses_of(configs: Sequence[SourceConfig]) -> list[tuple[str, Address, SourceConfig]]:
    """The name, the address and the options of each source.

    Raises SourceError for an address that is none, UsageError for a source or a name that is given twice and for
    options that do not fit the address.
    """
    found = []
    for config in configs:
        address = _address_of(config)
        found.append((config.name or address.default_name, address, config))
    for index, (_, address, _) in enumerate(found):
        if any(_is_same(address, other) for _, other, _ in found[:index]):
            raise UsageError(f"the source {address.shown} is given twice; give it once")
    names = Counter(name for name, _, _ in found)
    if duplicates := [name for name, count in names.items() if count > 1]:
        raise UsageError(f"two sources have the name {duplicates[0]}; give each its own `name` in the configuration")
    return found


def _address_of(config: SourceConfig) -> Address:
    given = config.address.get_secret_value()
    if config.username is not None:
        given = with_login(given, config.username, config.password.get_secret_value() if config.password else "")
    address = parse_address(given)
    if (config.ca_file or config.insecure) and not address.uses_tls:
        raise UsageError(
            f"source {address.shown}: `ca_file` and `insecure` are for https:// and rtsps:// addresses; remove them"
        )
    return address


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
    on_restart: Callable[[str], None],
) -> Source:
    """Open one source. `on_restart` takes its name whenever the process of its camera was restarted."""
    if address.is_live:
        return CameraSource(name, address, config, on_restart=lambda: on_restart(name))
    if address.kind == "video":
        return VideoSource(name, Path(address.given))
    return FolderSource(name, Path(address.given), state=state, decode=decode, settle=config.settle)
