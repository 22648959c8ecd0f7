"""Load images for training: decode each file once with the runtime's decoder, and keep a small copy for the views."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.errors import SourceError, UnreadableImageError
from msc_edge.images import DecodePolicy, read_image
from msc_edge.parallel import ordered_map
from msc_edge.preprocessing import Preprocessing
from msc_edge.progress import Report, silent
from msc_edge.train.dataset import MIN_IMAGES, NormalImage, Role
from msc_edge.train.inputs import IgnoreMaskFile
from msc_edge.train.network import EmbeddingNetwork

_DECODERS = 2


def decoded(
    folder: Path,
    names: Sequence[str],
    policy: DecodePolicy,
    *,
    task: str,
    report: Report = silent,
    unreadable: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, image) for the files `names` below `folder`, in order; a few are decoded ahead.

    `unreadable` is called with the name and the reason of each file that cannot be read, which is then skipped.
    Without `unreadable`, such a file raises UnreadableImageError.
    """

    def read(name: str) -> tuple[str, np.ndarray | UnreadableImageError]:
        try:
            return name, read_image(folder / name, policy)
        except UnreadableImageError as error:
            return name, error

    for done, (name, image) in enumerate(ordered_map(read, names, workers=_DECODERS), start=1):
        report(task, done, len(names))
        if isinstance(image, np.ndarray):
            yield name, image
        elif unreadable:
            unreadable(name, str(image))
        else:
            raise UnreadableImageError(f"{folder / name}: {image}") from image


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of the shape and the pixels of a decoded image: equal for one image in two files, of any format."""
    digest = sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def training_copy(image: np.ndarray, spec: Preprocessing) -> Tensor:
    """Make the training copy of a decoded image: a small copy, uint8 (3, h, w), that all its views are cut from.

    It has 8/7 of `image_size` on the side that counts (256 for 224, the size that the paper evaluates at), and is
    never enlarged. So no epoch decodes a 12-megapixel file again, and 10 000 images need 2 GB of memory. Ignored pixels
    have the mean colour.
    """
    if region := spec.region:
        image = image[region.y : region.y + region.height, region.x : region.x + region.width]
    height, width = image.shape[:2]
    side = math.ceil(spec.image_size * 8 / 7)
    if spec.resize == "stretch":
        # Square, so that the crop of a view has the same shape as in the stretched frame.
        size = [min(side, max(height, width))] * 2
    else:
        scale = min(1.0, side / min(height, width))
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    if list(pixels.shape[2:]) == size:
        copy = pixels[0].clone(memory_format=torch.contiguous_format)
    else:
        copy = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)[0].contiguous()
    if (kept := spec.kept_pixels(whole=True)) is not None:
        ignored = cv2.resize(kept.astype(np.uint8), (size[1], size[0]), interpolation=cv2.INTER_NEAREST) == 0
        copy[:, torch.from_numpy(ignored)] = (255 * torch.tensor(spec.mean))[:, None].round().to(torch.uint8)
    return copy


def load_images(
    images: list[NormalImage],
    folder: Path,
    network: EmbeddingNetwork,
    policy: DecodePolicy,
    *,
    mask: IgnoreMaskFile | None,
    report: Report,
    unreadable: Callable[[str, str], None] | None,
) -> tuple[list[NormalImage], list[Tensor], np.ndarray]:
    """Decode every image once, and embed it with the current weights of the network.

    Returns the images, with their pixels' digests, and with unreadable ones and duplicates marked, and the training
    copies and embeddings of the rest.
    """
    failed: dict[str, str] = {}
    digests: dict[str, str] = {}
    seen: set[str] = set()
    duplicates: set[str] = set()
    training_copies: list[Tensor] = []

    def add_failed(name: str, reason: str) -> None:
        failed[name] = reason
        if unreadable:
            unreadable(name, reason)

    def distinct_images() -> Iterator[tuple[str, np.ndarray]]:
        names = [image.path for image in images if image.role == "bank"]
        for name, image in decoded(folder, names, policy, task="reading images", report=report, unreadable=add_failed):
            digests[name] = digest = pixel_digest(image)
            if digest in seen:  # the same image in another file: other metadata, or saved again
                duplicates.add(name)
                continue
            seen.add(digest)
            if mask:
                mask.check(image, name, region=network.preprocess.spec.region)
            yield name, image  # before the copy is made: embed_all checks that the region is inside the image
            training_copies.append(training_copy(image, network.preprocess.spec))

    embeddings = network.embed_all(distinct_images())
    if failed and len(training_copies) < MIN_IMAGES:
        name, reason = next(iter(failed.items()))
        raise SourceError(
            f"{len(failed)} of {len(failed) + len(training_copies)} images cannot be read, and at least {MIN_IMAGES} "
            f"readable ones are needed; the first failure: {name}: {reason}"
        )
    roles: dict[str, Role] = dict.fromkeys(failed, "unreadable")
    roles |= dict.fromkeys(duplicates, "duplicate")
    marked = [
        replace(image, role=roles.get(image.path, image.role), pixels=digests.get(image.path, "")) for image in images
    ]
    return marked, training_copies, embeddings
