"""Folders of this PC that are no folders of images of parts, whatever is in them."""

from pathlib import Path

from msc_edge.errors import UsageError

_OF_THE_SYSTEM = tuple(Path(name) for name in ("/proc", "/sys", "/dev"))
_MEMORY = Path("/dev/shm")  # a folder of the main memory, where images may well be


def check_image_folder(images: Path, studio: Path) -> None:
    """UsageError for a folder of the system; and see `check_apart`."""
    check_apart(images, studio)
    _check_not_of_system(images)


def _check_not_of_system(images: Path) -> None:
    """UsageError for a folder that holds no files, only views of the running system.

    Some of its entries lead back to all files of this PC, and to read others never ends.
    """
    real = images.resolve()
    for folder in _OF_THE_SYSTEM:
        if real.is_relative_to(folder) and not real.is_relative_to(_MEMORY):
            raise UsageError(
                f"{images}: is in {folder}, where the system shows devices and processes, not images of parts; choose "
                "another folder of images"
            )


def check_apart(images: Path, studio: Path) -> None:
    """UsageError for a folder of images that contains the folder of the studio, or lies in it.

    A folder of images is searched with all folders in it: images that the studio writes, such as thumbnails and
    heatmaps, would be used as images of parts. Dropped images are not concerned: they have a folder of their own.
    """
    real, written = images.resolve(), studio.resolve()
    harm = "so images that it writes would be used as images of parts"
    if written.is_relative_to(real):
        raise UsageError(
            f"{images}: contains {written}, where the studio writes, {harm}; choose another folder of images, or start "
            "the studio in a folder outside of this one"
        )
    if real.is_relative_to(written):
        raise UsageError(
            f"{images}: lies in {written}, where the studio writes, {harm}; move the images to a folder outside of it "
            "and choose that one, or drop them"
        )
