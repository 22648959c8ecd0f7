"""Images of the studio's pages: thumbnails, and heatmaps of a kit."""

import re
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from msc_edge.drawing import THUMBNAIL_SIDE, encode_image, fit
from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.images import read_image
from msc_edge.kit.layout import MANIFEST
from msc_edge.overlay import overlay
from msc_edge.runtime.detector import Detector
from msc_edge.runtime.results.result import Result

THUMBNAIL, LARGE = THUMBNAIL_SIDE, 1600
"""Longest side in pixels."""
_VIEW_BOX = re.compile(r'viewBox="0 0 (\d+) (\d+)"')
_UNREADABLE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128"><title>unreadable</title>'
    '<text x="64" y="80" font-size="48" text-anchor="middle" fill="#808080">?</text></svg>'
)


def side_of(request: Request) -> int:
    """The longest side of the image that a request wants: LARGE with `?large`."""
    return LARGE if "large" in request.query_params else THUMBNAIL


def image_response(path: Path, *, side: int = THUMBNAIL) -> Response:
    """A JPEG of an image file. SourceError if it cannot be read."""
    return _jpeg(_encoded(path, _stamp(path), None, 0, side))


def thumbnail_response(path: Path, *, side: int = THUMBNAIL) -> Response:
    """As `image_response`; for a file that cannot be read, or is no longer there, a question mark."""
    try:
        return image_response(path, side=side)
    except SourceError:  # the page says so beside it
        return Response(_UNREADABLE, media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def heatmap_response(path: Path, kit: Path, *, side: int = THUMBNAIL) -> Response:
    """A JPEG of an image file with its heatmap. SourceError if it cannot be read."""
    return _jpeg(_encoded(path, _stamp(path), kit, _stamp(kit / MANIFEST), side))


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file, in pixels. SourceError if it cannot be read."""
    try:
        height, width = read_image(path).shape[:2]
    except UnreadableImageError as error:
        raise SourceError(f"{path}: {error}") from error
    return width, height


def size_of_figure(path: Path) -> tuple[int, int]:
    """Width and height of a figure of `msc_edge.figures`, an SVG file. SourceError if it is none."""
    found = _VIEW_BOX.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    if found is None:
        raise SourceError(f"{path}: is not a figure of msc-edge; delete it")
    return int(found[1]), int(found[2])


def scored(path: Path, kit: Path) -> tuple[Result, tuple[int, int]]:
    """The result of an image file, and its width and height. SourceError if it cannot be read."""
    detector = detector_of(kit)
    try:
        image = read_image(path, detector.manifest.decode)
    except UnreadableImageError as error:
        raise SourceError(f"{path}: {error}") from error
    return detector.score_decoded(image), (image.shape[1], image.shape[0])


def detector_of(kit: Path) -> Detector:
    """The detector of a kit; it stays loaded until others were used."""
    return _detector(kit, _stamp(kit / MANIFEST))


@lru_cache(maxsize=3)
def _detector(kit: Path, stamp: int) -> Detector:  # noqa: ARG001 (another stamp is another kit)
    return Detector.load(kit)


@lru_cache(maxsize=512)
def _encoded(path: Path, stamp: int, kit: Path | None, kit_stamp: int, side: int) -> bytes:  # noqa: ARG001
    try:
        if kit is None:
            image = read_image(path)
        else:
            detector = detector_of(kit)
            image = read_image(path, detector.manifest.decode)
            found = detector.score_decoded(image).grid_map
            if found is not None:
                image = overlay(fit(image, width=side, height=side), found)
    except UnreadableImageError as error:
        raise SourceError(f"{path}: {error}") from error
    return encode_image(fit(image, width=side, height=side), ".jpg", quality=88)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror}; check the path") from error


def _jpeg(data: bytes) -> Response:
    # Not kept by the browser: after another check, a place in the list is another image.
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
