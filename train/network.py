"""The embedding network: preprocessing, backbone, and projection onto the unit sphere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.errors import SourceError
from msc_edge.preprocessing import Preprocessing
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.folding import folded
from msc_edge.train.preprocess import Preprocess

_BATCH = 8  # images of 224 pixels; larger batches do not fit into a CPU's cache and take longer per image


class EmbeddingNetwork(nn.Module):
    """f(x) = phi(x) / |phi(x)| for an image as decoded: the function of `model.onnx`."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocess = Preprocess(preprocessing)
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        """Embed uint8 (B, height, width, 3) RGB -> unit rows, float32 (B, dim)."""
        return F.normalize(self.backbone(self.preprocess(image)), dim=1)

    @torch.no_grad()
    def prepare(self, image: np.ndarray, name: str = "the image", *, tiles: bool = False) -> Tensor:
        """Preprocess one decoded image, uint8 (height, width, 3) -> (1, 3, input_side, input_side) on the device.

        With `tiles`, its tiles follow: (1 + tiles, 3, input_side, input_side). Raises SourceError, with `name`, if the
        region of interest is not inside the image.
        """
        height, width = image.shape[:2]
        region = self.preprocess.spec.region
        if region and not region.fits(height=height, width=width):
            raise SourceError(
                f"{name}: is {width}x{height} pixels, and --roi {region.x},{region.y},{region.width},{region.height} "
                "is not inside it; change the region, or remove the image"
            )
        pixels = torch.from_numpy(image)[None].to(self.preprocess.mean.device)
        return self.preprocess.with_tiles(pixels) if tiles else self.preprocess(pixels)

    def batches(self, images: Iterable[tuple[str, np.ndarray]], *, tiles: bool = False) -> Iterator[Tensor]:
        """Prepare (name, decoded image) pairs in batches: (B, 3, input_side, input_side), channels last.

        With `tiles`, each image is followed by its tiles, as in `prepare`.
        """
        batch: list[Tensor] = []
        spec = self.preprocess.spec
        of_image = 1 + spec.tiles.count if tiles and spec.tiles else 1
        full = max(1, _BATCH * 224**2 // (of_image * spec.image_size**2))
        for name, image in images:
            batch.append(self.prepare(image, name, tiles=tiles))
            if len(batch) == full:
                yield torch.cat(batch).contiguous(memory_format=torch.channels_last)
                batch.clear()
        if batch:
            yield torch.cat(batch).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def embed_all(self, images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
        """Embed (name, decoded image) pairs in batches: unit rows, float32 (n, dim)."""
        backbone = folded(self.backbone)
        with exact_matrix_products():
            rows = [F.normalize(backbone(pixels), dim=1).cpu().numpy() for pixels in self.batches(images)]
        return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


@contextmanager
def exact_matrix_products() -> Iterator[None]:
    """Full float32 on a GPU: with TF32 errors of 1e-3 the runtime on a CPU would not reproduce the scores."""
    before = torch.get_float32_matmul_precision()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
