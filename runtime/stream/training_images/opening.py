"""Opens what a capture needs: the source, the folder of images, and the list of files that were examined."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from msc_edge.errors import UnreadableImageError, UsageError
from msc_edge.images import DecodePolicy, read_image
from msc_edge.progress import Report, silent
from msc_edge.runtime.stream.config import SourceConfig
from msc_edge.runtime.stream.logs import LOG
from msc_edge.runtime.stream.sources.address import Address
from msc_edge.runtime.stream.sources.factory import addresses_of, open_source
from msc_edge.runtime.stream.state import State
from msc_edge.runtime.stream.training_images.capturing import Capture
from msc_edge.runtime.stream.training_images.checks import FrameChecks, Refusal
from msc_edge.runtime.stream.training_images.image_folder import open_image_folder
from msc_edge.runtime.stream.training_images.similarity import COMPARED
from msc_edge.runtime.stream.training_images.timing import LineTrigger, Rate

_STATE = ".capture"  # hidden: not searched for images


@contextmanager
def open_capture(
    source: SourceConfig,
    out: Path,
    *,
    images: int = 200,
    every: float = 1.0,
    trigger: Literal["key"] | None = None,
    allowed: Collection[Refusal] = (),
    report: Report = silent,
) -> Iterator[Capture]:
    """Open a capture of `images` images into the folder `out`, which may have some already.

    A frame is examined every `every` seconds, or with a `trigger` after each line of standard input; each file of a
    folder is examined. `allowed`: what is no reason to refuse a frame. The images of earlier runs are read first, and
    `report` receives the progress of that. Raises SourceError, OutputError, and UsageError for options that contradict
    each other or a folder that is in use.
    """
    ((name, address, config),) = addresses_of([source])
    if trigger and not address.is_live:
        raise UsageError(f"--trigger {trigger} is for cameras, and {address.shown} is a {address.kind}; use --every")
    _refuse_source_folder(address, out)
    with ExitStack() as stack:
        folder = stack.enter_context(open_image_folder(out))
        earlier = folder.paths[-COMPARED:] if len(folder.paths) < images else []
        if earlier and "similar" not in allowed:
            LOG.info("%s", _earlier_images(out, len(folder.paths)))
        watched = address.kind == "folder"
        state = stack.enter_context(State.open(out / _STATE) if watched else State.in_memory((), max_bytes=0))
        opened = open_source(name, address, config, state=state, decode=DecodePolicy, on_restart=lambda _: None)
        stack.enter_context(closing(opened))
        yield Capture(
            source=opened,
            folder=folder,
            timing=LineTrigger() if trigger else Rate(every, settling=address.is_live),
            checks=FrameChecks(allowed=allowed, kept=_images(earlier, report)),
            wanted=images,
            state=state,
            roi=config.roi,
            report_each=trigger is not None,
        )


def _refuse_source_folder(address: Address, out: Path) -> None:
    """Images captured into a watched folder would be captured again."""
    if address.kind == "folder" and out.resolve().is_relative_to(Path(address.given).resolve()):
        raise UsageError(f"--out {out} is inside the source {address.given}; choose a folder outside of it")


def _earlier_images(out: Path, count: int) -> str:
    latest = f"the latest {COMPARED}" if count > COMPARED else "them"
    are = "image of an earlier run is" if count == 1 else "images of earlier runs are"
    return f"{os.fsdecode(out)}: {count} {are} there; frames that are similar to {latest} are skipped"


def _images(paths: Sequence[Path], report: Report) -> Iterator[np.ndarray]:
    """The images of earlier runs."""
    for done, path in enumerate(paths, start=1):
        try:
            yield read_image(path)
        except UnreadableImageError as error:
            LOG.warning("%s: %s; take it out of the folder", os.fsdecode(path), error)
        report("images of earlier runs", done, len(paths))
