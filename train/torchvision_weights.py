"""Torchvision's pretrained weights, from torch's cache or downloaded."""

import sys
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision

from msc_edge.errors import UsageError
from msc_edge.files import kind_of, sha256_of
from msc_edge.train.weight_files import Pretrained, weights_from_file


def weights_from_torchvision(name: str) -> Pretrained:
    """Torchvision's first ImageNet weights (IMAGENET1K_V1, used in the paper), from torch's cache or downloaded.

    The SHA-256 of the file, also of a cached one, is checked against the digits in the file name. Raises UsageError
    if there are no such weights, the download fails, or the hash differs.
    """
    try:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except ValueError as error:
        raise UsageError(
            f"backbone {name}: torchvision has no pretrained weights for it; distil some with: "
            f"msc-edge distil --student {name}, then pass the file as its weights"
        ) from error
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    digits = file.stem.rpartition("-")[2]
    if kind_of(file)[0] != "file":
        _download(weights.url, file, digits, name)
    if not sha256_of(file).startswith(digits):
        raise UsageError(
            f"backbone {name}: {file} is not the file that torchvision published (its SHA-256 does not start with "
            f"{digits}); delete it to download it again, or pass another file with weights"
        )
    pretrained = weights_from_file(file)
    licence = "BSD-3-Clause (torchvision)"
    return replace(pretrained, origin=pretrained.origin.model_copy(update={"source": str(weights), "licence": licence}))


def _download(url: str, file: Path, digits: str, name: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), digits, progress=sys.stderr.isatty())
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        raise UsageError(
            f"backbone {name}: its pretrained weights cannot be downloaded ({error}); download {url} on another "
            f"machine and pass the file as its weights, or use edge-small, whose weights are part of msc-edge"
        ) from error
