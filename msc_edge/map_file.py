"""Files of anomaly maps: 16-bit grey PNG, with the scale in its metadata.

A value of the map is the value of the pixel times `scale`. The metadata are PNG text chunks (tEXt) named `scale` and
`limit`: the limit above which the map has regions. Any viewer opens the file, and most libraries show the metadata.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from msc_edge.errors import UsageError
from msc_edge.files import written_whole

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = len(_SIGNATURE) + 25  # the header chunk comes first and has 13 bytes of data
_LARGEST = 65535


def write_map(path: Path, anomaly_map: np.ndarray, *, limit: float) -> None:
    """Write a map, float32 (height, width), values from 0. The error is at most half of `scale`.

    OutputError from the disk.
    """
    scale = max(float(anomaly_map.max()), limit) / _LARGEST
    png = cv2.imencode(".png", (anomaly_map / scale).round().astype(np.uint16))[1].tobytes()
    texts = b"".join(
        _chunk(b"tEXt", f"{name}\0{value!r}".encode("latin-1")) for name, value in (("scale", scale), ("limit", limit))
    )
    with written_whole(path, durable=False) as partial:
        partial.write_bytes(png[:_HEADER_END] + texts + png[_HEADER_END:])


def read_map(path: Path) -> tuple[np.ndarray, float]:
    """Read a map, float32 (height, width), and its limit. UsageError if the file is not one."""
    try:
        data = path.read_bytes()
        texts = dict(_texts(data))
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
            raise ValueError("not a 16-bit grey PNG")
        return pixels.astype(np.float32) * np.float32(texts["scale"]), float(texts["limit"])
    except (OSError, ValueError, KeyError, struct.error, cv2.error) as error:
        raise UsageError(f"{path}: not an anomaly map of msc-edge score --maps ({error})") from error


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _texts(png: bytes) -> Iterator[tuple[str, float]]:
    place = len(_SIGNATURE)
    while png[:place] and place < len(png):
        (length,), kind = struct.unpack_from(">I", png, place), png[place + 4 : place + 8]
        if kind == b"tEXt":
            name, _, value = png[place + 8 : place + 8 + length].decode("latin-1").partition("\0")
            yield name, float(value)
        place += length + 12
