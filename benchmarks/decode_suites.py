"""Compare the decoder with other decoders, on every file of a folder: equal, refused with a reason, or different.

    python benchmarks/decode_suites.py FOLDER... [--memory 4] [--seconds 60] [--list]

Each file is decoded in a child process of limited memory: by msc-edge, and by tifffile (TIFF), Pillow, OpenCV (JPEG)
or imagecodecs (BMP). A file is `equal` when no pixel differs by more than the format allows: 0, but 1 where levels are
rounded (16 or 5 bits to 8), 2 for lossy formats, and 3 for CMYK, where decoders round differently. Everything else than
`equal` and `refused` is a fault: `different`, `not compared` (no other decoder reads it), `crashed`, `too slow`. Exit
code 1 when there is one.
"""

import argparse
import io
import json
import multiprocessing
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.PngImagePlugin
import tifffile
from common import parser_of

from msc_edge.errors import UnreadableImageError
from msc_edge.formats.orientation import turned
from msc_edge.images import DecodePolicy, bytes_of, decode_image

FAULTS = ("different", "not compared", "crashed", "too slow")
LOSSY, ROUNDED, CMYK = 2, 1, 3
_ORIENTATION = 274
Outcome = tuple[str, str]
"""One of `equal`, `refused` and FAULTS, and the reason."""


def by_msc_edge(data: np.ndarray) -> np.ndarray:
    """RGB uint8 (h, w, 3), with the bit depth that the file has."""
    depths = get_args(DecodePolicy.model_fields["bit_depth"].annotation)
    reason = UnreadableImageError("")
    for bit_depth in (8, 16, *depths):
        try:
            return decode_image(data, DecodePolicy(bit_depth=bit_depth))
        except UnreadableImageError as error:
            reason = error
            if "bits a channel" not in str(error):
                break
    raise reason


def by_pillow(data: bytes) -> tuple[np.ndarray, int]:
    """RGB uint8 (h, w, 3), and the largest difference to allow."""
    with PIL.Image.open(io.BytesIO(_critical_chunks(data) if data[:4] == b"\x89PNG" else data)) as image:
        lossy = image.format in ("JPEG", "MPO", "AVIF") or (image.format == "WEBP" and b"VP8 " in data[:4096])
        tolerance = CMYK if image.mode == "CMYK" else LOSSY if lossy else 0
        image.load()
        turn = _orientation(image, data)
        if image.mode.startswith("I"):  # 16 bits of grey
            grey = np.asarray(image).astype(np.int64)
            grey = np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return turned(grey, turn), ROUNDED
        if image.mode in ("LA", "La"):  # alpha is dropped, not multiplied
            return turned(np.asarray(image.getchannel(0).convert("RGB")), turn), tolerance
        return turned(np.asarray(image.convert("RGB")), turn), max(tolerance, ROUNDED if _is_rounded(data) else 0)


def _orientation(image: PIL.Image.Image, data: bytes) -> int:
    """Not of XMP, and not of text chunks, which viewers ignore."""
    if is_tiff(data):
        return image.getexif().get(_ORIENTATION, 1)
    exif = PIL.Image.Exif()
    if image.format != "PNG" or b"eXIf" in data:
        with suppress(Exception):  # damaged EXIF data
            exif.load(image.info.get("exif", b""))
    return exif.get(_ORIENTATION, 1)


def _critical_chunks(png: bytes) -> bytes:
    """A PNG file without the chunks at which Pillow gives up, though they change no pixel."""
    kept, position = png[:8], 8
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        name = png[position + 4 : position + 8]
        kept += png[position:end] if name[:1].isupper() or name == b"eXIf" else b""
        position = end
    return kept


def by_imagecodecs(data: bytes) -> tuple[np.ndarray, int]:
    """As `by_pillow`, for BMP with bit masks that Pillow does not read."""
    return imagecodecs.bmp_decode(data), ROUNDED


def by_opencv(data: bytes) -> tuple[np.ndarray, int]:
    """As `by_pillow`, for JPEG with metadata at which Pillow gives up."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("no image")
    return image[..., ::-1], 0


def _is_rounded(data: bytes) -> bool:
    """Whether 16 bits become 8, or 5 become 8."""
    depths = {b"\x89P": data[24:25] == b"\x10", b"BM": data[28:29] == b"\x10", b"P5": True, b"P6": True}
    return depths.get(data[:2], False)


def is_tiff(data: bytes) -> bool:
    """From the first bytes."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def by_tifffile(data: bytes) -> tuple[np.ndarray, int]:
    """As `by_pillow`, for grey and colour TIFF."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        pixels, bits = page.asarray(), page.bitspersample
        photometric = int(page.photometric)
        tag = page.tags.get("Orientation")
        lossy = int(page.compression) in (6, 7, 34712)
        if page.axes not in ("YX", "YXS", "SYX") or photometric not in (0, 1, 2, 3) or pixels.dtype.kind not in "ub":
            raise ValueError(f"axes {page.axes}, photometric {photometric}, {pixels.dtype}")
        if page.axes == "SYX":
            pixels = pixels.transpose(1, 2, 0)
        if photometric == 3:
            pixels, bits = np.moveaxis(np.asarray(page.colormap), 0, -1)[pixels], 16
        pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.int64)
        pixels = pixels[..., :3] if photometric in (2, 3) else np.repeat(pixels[..., :1], 3, axis=2)
        if photometric == 0:
            pixels = 2**bits - 1 - pixels
        pixels = pixels >> (bits - 8) if bits >= 8 else pixels * 255 // (2**bits - 1)
        tolerance = LOSSY if lossy else ROUNDED if bits > 8 else 0
        return turned(pixels.astype(np.uint8), int(tag.value) if tag else 1), tolerance


def compared(path: Path) -> Outcome:
    """Decode one file with all decoders."""
    try:
        data = bytes_of(path)
        ours = by_msc_edge(data)
    except UnreadableImageError as error:
        return "refused", str(error)
    found: list[str] = []
    decoders: list[Callable[[bytes], tuple[np.ndarray, int]]] = [by_pillow]
    if is_tiff(data.tobytes()):
        decoders.insert(0, by_tifffile)
    if data[:2].tobytes() == b"\xff\xd8":
        decoders.append(by_opencv)
    if data[:2].tobytes() == b"BM":
        decoders.append(by_imagecodecs)
    for decoder in decoders:
        try:
            theirs, tolerance = decoder(data.tobytes())
        except Exception as error:
            found.append(f"{decoder.__name__}: {type(error).__name__}: {error}")
            continue
        if theirs.shape != ours.shape:
            found.append(f"{decoder.__name__}: different: {theirs.shape}, and {ours.shape} by msc-edge")
        elif (distance := cv2.absdiff(theirs, ours)).max() > tolerance:
            share = (distance.max(axis=2) > tolerance).mean()
            found.append(f"{decoder.__name__}: different: by up to {distance.max()} in {share:.1%} of the pixels")
        else:
            return "equal", decoder.__name__
    return "different" if any("different" in each for each in found) else "not compared", "; ".join(found)


def serve(connection: Connection, memory: int) -> None:
    """The child: receives paths, sends outcomes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    warnings.simplefilter("ignore")
    PIL.Image.MAX_IMAGE_PIXELS = 100_000_000
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True  # also: ignore checksums of chunks that change no pixel
    PIL.PngImagePlugin.MAX_TEXT_CHUNK = PIL.PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
    with suppress(EOFError):  # the parent has no more files
        while True:
            path = connection.recv()
            try:
                outcome = compared(path)
            except MemoryError:
                outcome = "refused", "not enough memory"
            connection.send(outcome)


def outcomes(paths: list[Path], *, memory: int, seconds: float) -> Iterator[tuple[Path, Outcome]]:
    """Compare all files. `memory`: bytes of the child; `seconds`: for each file."""
    context = multiprocessing.get_context("spawn")
    child, ours = None, None
    for path in paths:
        if child is None or ours is None:
            ours, theirs = context.Pipe()
            child = context.Process(target=serve, args=(theirs, memory), daemon=True)
            child.start()
            theirs.close()
        try:
            ours.send(path)
            outcome = ours.recv() if ours.poll(seconds) else ("too slow", f"more than {seconds:g} s")
        except (EOFError, OSError):
            child.join()
            outcome = "crashed", f"exit code {child.exitcode}"
        yield path, outcome
        if outcome[0] in ("crashed", "too slow"):
            child.kill()
            child = None


def main() -> None:
    """Print the counts, and each fault."""
    parser = parser_of(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--memory", type=float, default=4, metavar="GB", help="of the process that decodes; default: 4")
    parser.add_argument("--seconds", type=float, default=60, help="for each file; default: 60")
    parser.add_argument("--list", action="store_true", help="print the outcome of every file as a JSON line")
    options: argparse.Namespace = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.rglob("*")) if not path.is_dir()]
    counts: dict[str, Counter[str]] = {}
    for path, (outcome, reason) in outcomes(paths, memory=int(options.memory * 2**30), seconds=options.seconds):
        counts.setdefault(path.suffix.lower(), Counter())[outcome] += 1
        if options.list or outcome in FAULTS:
            print(json.dumps({"outcome": outcome, "file": str(path), "reason": reason}), flush=True)
    columns = ("equal", "refused", *FAULTS)
    print(f"| suffix | {' | '.join(columns)} |\n{'|---' * (len(columns) + 1)}|")
    total = sum(counts.values(), Counter())
    for suffix, count in [*sorted(counts.items()), ("all", total)]:
        print(f"| {suffix} | {' | '.join(str(count[column]) for column in columns)} |")
    sys.exit(1 if any(total[fault] for fault in FAULTS) else 0)


if __name__ == "__main__":
    main()
