"""Test images that are also normal images: training has seen them, and an evaluation on them is too good."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msc_edge.files import sha256_of
from msc_edge.images import DecodePolicy
from msc_edge.progress import Report, silent
from msc_edge.train.dataset import NormalImage
from msc_edge.train.loading import decoded, pixel_digest


def leaked_images(
    images: Sequence[NormalImage],
    test: Sequence[Path],
    policy: DecodePolicy | None = None,
    *,
    report: Report = silent,
    unreadable: Callable[[Path, str], None] = lambda _path, _reason: None,
) -> dict[Path, NormalImage]:
    """The image files of `test` that have the bytes or the pixels of a normal image, each with that normal image.

    `images`: as `check_images` returns them. `unreadable` is called with the path and the reason of each test image
    that cannot be read.
    """
    by_bytes, by_pixels = (
        {getattr(image, name): image for image in reversed(images) if getattr(image, name)}
        for name in ("sha256", "pixels")
    )
    found: dict[Path, NormalImage] = {}
    for path in test:
        try:
            digest = sha256_of(path)
        except OSError:  # decoding it gives the reason
            continue
        if digest in by_bytes:
            found[path] = by_bytes[digest]
    others = {str(path): path for path in test if path not in found}
    for name, image in decoded(
        Path(),
        list(others),
        policy or DecodePolicy(),
        task="comparing labelled images",
        report=report,
        unreadable=lambda name, reason: unreadable(others[name], reason),
    ):
        if (normal := by_pixels.get(pixel_digest(image))) is not None:
            found[others[name]] = normal
    return {path: found[path] for path in test if path in found}
