"""The embedding network: preprocessing, backbone, and the projection onto the unit sphere."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msc_edge.errors import SourceError
from msc_edge.preprocessing import Preprocessing
from msc_edge.train.backbones import Backbone
from msc_edge.train.folding import folded
from msc_edge.train.preprocess import Preprocess

_BATCH = 8  # more do not fit into a processor's cache, and take longer an image


class EmbeddingNetwork(nn.Module):
    """f(x) = phi(x) / |phi(x)| for an image as it comes from the decoder: what `model.onnx` computes."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocess = Preprocess(preprocessing)
        self.backbone = backbone

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, height, width, 3) RGB -> unit rows, float32 (B, dim)."""
        return F.normalize(self.backbone(self.preprocess(image)), dim=1)

    @torch.no_grad()
    def prepare(self, image: np.ndarray, name: str = "the image") -> Tensor:
        """Preprocess one decoded image, uint8 (height, width, 3) -> (3, image_size, image_size) on the device.

        SourceError, with `name`, when the region of interest does not lie within the image.
        """
        height, width = image.shape[:2]
        region = self.preprocess.spec.region
        if region and not region.fits(height=height, width=width):
            raise SourceError(
                f"{name}: is {width}x{height} pixels, and --roi {region.x},{region.y},{region.width},{region.height} "
                "does not lie within it; change the region, or leave the image out"
            )
        return self.preprocess(torch.from_numpy(image)[None].to(self.preprocess.mean.device))[0]

    @torch.no_grad()
    def embed_all(self, images: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
        """Unit embeddings, float32 (n, dim), of named decoded images, a batch at a time."""
        backbone = folded(self.backbone)
        rows: list[np.ndarray] = []
        waiting: list[Tensor] = []

        def embed() -> None:
            batch = torch.stack(waiting).contiguous(memory_format=torch.channels_last)
            # TF32 would put errors of 1e-3 into the bank, and the runtime on a CPU would not reproduce its scores.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                rows.append(F.normalize(backbone(batch), dim=1).cpu().numpy())
            waiting.clear()

        for name, image in images:
            waiting.append(self.prepare(image, name))
            if len(waiting) == _BATCH:
                embed()
        if waiting:
            embed()
        return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
