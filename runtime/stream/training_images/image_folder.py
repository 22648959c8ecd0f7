"""The folder of captured images: numbered PNG files that are whole or absent, continued by later runs.

Name: `<YYYYMMDD>-<HHMMSS>-<milliseconds>Z_<number>.png`, in UTC, so that names sort in the order of time also at the
end of daylight saving time. The number continues across runs; the images of all runs count.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from msc_edge.drawing import encode_image
from msc_edge.errors import UsageError, writing
from msc_edge.files import written_whole
from msc_edge.left_over import lock

_PATTERN = r"(\d{8}-\d{6}-\d{3})Z_(\d{4,})\.png"
_NAME = re.compile(_PATTERN, re.ASCII)
_PARTIAL = re.compile(rf"\.{_PATTERN}\.[0-9a-f]+\.partial", re.ASCII)


class ImageFolder:
    """Use `open_image_folder`."""

    def __init__(self, folder: Path) -> None:
        """Find the images of earlier runs, and remove what a killed process has left. OutputError from the disk."""
        self.folder = folder
        numbered: list[tuple[int, Path]] = []
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if match := _NAME.fullmatch(path.name):
                    numbered.append((int(match[2]), path))
                elif _PARTIAL.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        numbered.sort()
        self._last = numbered[-1][0] if numbered else 0
        self.paths = [path for _, path in numbered]
        """The images, in the order in which they were kept."""

    def save(self, image: np.ndarray, moment: datetime) -> Path:
        """Write an image, uint8 (height, width, 3) RGB, without loss. OutputError when the disk does not take it."""
        moment = moment.astimezone(UTC)
        stamp = f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03d}Z"
        path = self.folder / f"{stamp}_{self._last + 1:04d}.png"
        data = encode_image(image, ".png")
        with written_whole(path) as partial:
            partial.write_bytes(data)
        self._last += 1
        self.paths.append(path)
        return path

    def remove(self, path: Path) -> None:
        """Remove an image that this run has saved. OutputError from the disk."""
        with writing(path):
            path.unlink(missing_ok=True)
        self.paths.remove(path)


@contextmanager
def open_image_folder(folder: Path) -> Iterator[ImageFolder]:
    """Open or create a folder of captured images. UsageError while another process captures into it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with lock(folder.resolve()) as locked:
        if locked is False:
            raise UsageError(f"{folder}: another msc-edge capture uses it; choose another folder, or stop that one")
        yield ImageFolder(folder)


def label_of(path: Path) -> tuple[int, str]:
    """Number and time of day, in UTC, of an image of such a folder."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, "a name that was checked before"
    moment = datetime(1970, 1, 1, tzinfo=UTC)
    with suppress(ValueError):  # no such date: renamed by hand
        moment = datetime.strptime(match[1][:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    return int(match[2]), f"{moment:%H:%M:%S}"
