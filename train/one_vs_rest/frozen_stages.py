"""Embeddings of the same images again and again, while the last stages of the backbone train.

The feature maps behind the frozen stages never change, and the embeddings before training are those of all methods and
seeds. Both are computed once for each image and kept in files, so that an interrupted benchmark continues with them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msc_edge.errors import UsageError, writing
from msc_edge.files import written_whole
from msc_edge.images import DecodePolicy
from msc_edge.progress import Report
from msc_edge.train.folding import folded
from msc_edge.train.loading import decoded
from msc_edge.train.network import EmbeddingNetwork, exact_matrix_products

_BATCH = 32
_POLICY = DecodePolicy()


class FrozenStages:
    """The feature maps of images behind the frozen stages, float16, and their first embeddings, in files.

    A value of a map is rounded by at most 0.05 %.
    """

    def __init__(
        self, network: EmbeddingNetwork, last: str | None, below: Path, names: Sequence[str], folder: Path
    ) -> None:
        """The images `names` below a folder. `last`: the last frozen stage, None if all stages train.

        `folder`: for the files. It belongs to one network, its weights before training, and one preprocessing.
        """
        self._network, self._below, self._names = network, below, names
        chain = [name for name, _ in network.backbone.chain()]
        frozen = [place for place, name in enumerate(chain) if last and f"{name}.".startswith(f"{last}.")]
        self._frozen = frozen[-1] + 1 if frozen else 0
        known = "\n".join([str(last), str(below), *names])
        key = hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._maps, self._initial = folder / f"{key}.npy", folder / f"{key}-initial.npy"

    def embed_initial(self, *, title: str, report: Report) -> np.ndarray:
        """Unit rows, float32 (n, dim), under the weights before training, which the network has now.

        From the file, if another method or seed has computed them.
        """
        if not self._initial.exists():
            rows = self.embed(title=title, report=report)
            self._initial.parent.mkdir(parents=True, exist_ok=True)
            with writing(self._initial), written_whole(self._initial) as partial, partial.open("wb") as file:
                np.save(file, rows)
        return np.load(self._initial)

    @torch.no_grad()
    def embed(self, *, title: str, report: Report) -> np.ndarray:
        """Unit rows, float32 (n, dim), under the current weights of the network."""
        if not self._frozen:
            return self._network.embed_all(self._decoded(f"{title}: embedding", report))
        if not self._maps.exists():
            self._maps.parent.mkdir(parents=True, exist_ok=True)
            with writing(self._maps), written_whole(self._maps) as partial:
                self._write(partial, title=title, report=report)
        maps = np.load(self._maps, mmap_mode="r")
        rows: list[np.ndarray] = []
        behind = [module for _, module in folded(self._network.backbone).chain()][self._frozen :]
        with exact_matrix_products():
            for start in range(0, len(maps), _BATCH):
                report(f"{title}: embedding", start, len(maps))
                features = torch.from_numpy(maps[start : start + _BATCH].astype(np.float32))
                features = features.to(self._network.preprocess.mean.device, memory_format=torch.channels_last)
                for module in behind:
                    features = module(features)
                rows.append(F.normalize(features.mean(dim=(2, 3)), dim=1).cpu().numpy())
        return np.concatenate(rows)

    def _decoded(self, task: str, report: Report) -> Iterator[tuple[str, np.ndarray]]:
        return decoded(self._below, self._names, _POLICY, task=task, report=report)

    def _write(self, path: Path, *, title: str, report: Report) -> None:
        """Write the maps, float16 (n, C, h, w)."""
        frozen = [module for _, module in folded(self._network.backbone).chain()][: self._frozen]
        images = self._decoded(f"{title}: frozen stages", report)
        maps, done = None, 0
        with exact_matrix_products():
            for pixels in self._network.batches(images):
                features: Tensor = pixels
                for module in frozen:
                    features = module(features)
                with np.errstate(over="ignore"):
                    found = features.cpu().contiguous().numpy().astype(np.float16)
                if not np.isfinite(found).all():
                    raise UsageError(
                        f"{title}: values behind the frozen stages are larger than float16 holds; pass --freeze-to none"
                    )
                if maps is None:
                    shape = (len(self._names), *found.shape[1:])
                    maps = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
                maps[done : done + len(found)] = found
                done += len(found)
        assert maps is not None, "a split has images"
        maps.flush()
