"""Settings in JSON files."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from msc_edge.errors import KitError
from msc_edge.files import written_whole

_Model = TypeVar("_Model", bound=BaseModel)


class Stored(BaseModel):
    """Settings that a file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def write_stored(path: Path, stored: BaseModel) -> None:
    """Write the file, whole or not at all. OutputError from the disk."""
    with written_whole(path) as partial:
        partial.write_text(stored.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_stored(path: Path, model: type[_Model]) -> _Model:
    """Read the file. KitError if it is damaged."""
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise KitError(f"{path}: cannot be read ({type(error).__name__}); delete its folder, or restore it") from error
