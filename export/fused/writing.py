"""Writes the single file of a kit, after its proof."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from msc_edge.errors import UsageError
from msc_edge.export.fused.proof import Proof, prove
from msc_edge.export.fused.scoring_graph import BankType
from msc_edge.export.fused.single_file import SingleFile, fuse
from msc_edge.export.fused.web_demo import check_web_demo, find_onnxruntime_web, write_web_demo
from msc_edge.export.run_images import evenly
from msc_edge.files import written_whole
from msc_edge.image_files import find_images
from msc_edge.images import read_image
from msc_edge.kit.layout import thumbnail_file
from msc_edge.kit.manifest import Precision
from msc_edge.kit.opening import Kit
from msc_edge.runtime.backends.check_image import check_image
from msc_edge.runtime.detector import Detector

SUFFIX = ".onnx"
_COMPARED = 32  # thumbnails, or images of a folder


def fuse_kit(
    kit: str | Path,
    out: str | Path | None,
    *,
    precision: Precision | None = None,
    bank: BankType = "float32",
    images: str | Path | None = None,
    web_demo: str | Path | None = None,
    onnxruntime_web: str | Path | None = None,
    trusted_key: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[SingleFile, Proof]:
    """Write `out`, the single file of a kit, after a proof that it scores as the kit does.

    `precision`, `bank`: see `fuse`. The proof scores thumbnails of the kit and its check image, or up to 32 images of
    the folder `images`, each as it is and as its negative. `web_demo`: also write a page to this folder, see
    `write_web_demo`; with `out` None that alone. `onnxruntime_web`: see `find_onnxruntime_web`. `trusted_key`: see
    `Kit.open`. Raises KitError, SourceError, UsageError, OutputError; no file is written then.
    """
    targets = Targets.checked(out, web_demo, onnxruntime_web, overwrite=overwrite)
    with Kit.open(Path(kit), trusted_key=trusted_key) as opened:
        single = fuse(opened, precision=precision, bank=bank)
    found = _images_in(Path(images), single.detector) if images else _images_of(single.detector)
    proof = prove(single, with_negatives(found))
    targets.write(single)
    return single, proof


@dataclass(frozen=True)
class Targets:
    """What is written of a single file, and where."""

    out: Path | None
    web_demo: Path | None
    scripts: Path | None
    overwrite: bool

    @classmethod
    def checked(
        cls,
        out: str | Path | None,
        web_demo: str | Path | None = None,
        onnxruntime_web: str | Path | None = None,
        *,
        overwrite: bool = False,
    ) -> Self:
        """UsageError where one cannot be written; see `fuse_kit`."""
        if out is not None:
            out = Path(out)
            if out.suffix.lower() != SUFFIX:
                raise UsageError(f"{out}: the single file is an ONNX model; choose a name that ends with {SUFFIX}")
            if out.is_dir() or (out.exists() and not overwrite):
                raise UsageError(f"{out}: exists; pass --overwrite to replace a file, or choose another name")
        if web_demo is None:
            return cls(out, None, None, overwrite)
        scripts = find_onnxruntime_web(Path(onnxruntime_web) if onnxruntime_web else None)
        check_web_demo(Path(web_demo), overwrite=overwrite)
        return cls(out, Path(web_demo), scripts, overwrite)

    def write(self, single: SingleFile) -> None:
        """Write each whole or not at all. OutputError."""
        if self.web_demo and self.scripts:
            write_web_demo(single, self.web_demo, self.scripts, overwrite=self.overwrite)
        if self.out:
            with written_whole(self.out) as partial:
                partial.write_bytes(single.content)


def with_negatives(images: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each image and its negative: a normal image has a small score, its negative a large one."""
    for name, image in images:
        yield name, image
        yield f"{name} (negative)", 255 - image


def _images_of(detector: Detector) -> Iterator[tuple[str, np.ndarray]]:
    spec = detector.manifest.preprocessing
    yield "the check image", check_image(spec)
    if thumbnail_file(0) not in detector.manifest.files:
        return
    for row in evenly(range(detector.manifest.normal_images.count), _COMPARED):
        image = detector.thumbnail(row)
        if region := spec.region:  # the frame contains it
            size = (region.x + region.width, region.y + region.height)
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        yield f"thumbnail {row}", image


def _images_in(folder: Path, detector: Detector) -> Iterator[tuple[str, np.ndarray]]:
    for path in evenly(find_images([folder]).paths, _COMPARED):
        yield path.name, read_image(path, detector.manifest.decode)
