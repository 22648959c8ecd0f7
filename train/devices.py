"""Devices and dtype of the training steps, through Lightning Fabric."""

import logging
import os
import warnings
from typing import Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from msc_edge.errors import UsageError

Accelerator = Literal["auto", "cpu", "gpu"]
Dtype = Literal["fp32", "bf16"]
DtypeOption = Literal["auto", "fp32", "bf16"]


def resolve_dtype(accelerator: Accelerator, dtype: DtypeOption) -> Dtype:
    """The dtype of the training steps. `auto` is bf16 if the device computes in bf16 natively, else fp32."""
    if dtype != "auto":
        return dtype
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Without these instructions the CPU emulates bf16, several times slower than fp32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def launch_fabric(accelerator: Accelerator, devices: int, dtype: DtypeOption) -> Fabric:
    """Set up the devices and start one process for each of them. Raises UsageError if they do not exist."""
    # Fabric announces the dtype through the logger of lightning.pytorch.
    for library in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(library).setLevel(logging.WARNING)
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    available = torch.cuda.device_count() if on_gpu else os.cpu_count() or 1
    if devices > available:
        raise UsageError(
            f"--devices {devices}: this machine has {available} {'GPUs' if on_gpu else 'cores'}; "
            f"pass at most --devices {available}"
        )
    try:
        fabric = Fabric(
            accelerator="cuda" if accelerator == "gpu" else accelerator,
            devices=devices,
            precision="bf16-mixed" if resolve_dtype(accelerator, dtype) == "bf16" else "32-true",
        )
    except (RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"--accelerator {accelerator} --devices {devices}: not available on this machine ({reason}); "
            "pass --accelerator auto"
        ) from error
    fabric.launch()
    return fabric


def part_of_rank(fabric: Fabric, batch: int) -> slice:
    """The part of a batch that this process computes. Raises UsageError if the batch does not divide evenly."""
    if batch % fabric.world_size:
        raise UsageError(
            f"a batch of {batch} images does not divide among {fabric.world_size} devices; "
            f"pass a --batch that is a multiple of {fabric.world_size}"
        )
    each = batch // fabric.world_size
    return slice(fabric.global_rank * each, (fabric.global_rank + 1) * each)


def from_all_ranks(fabric: Fabric, rows: Tensor) -> Tensor:
    """Gather the rows of all ranks, in order, with gradients, so that the loss covers the global batch."""
    if fabric.world_size == 1:
        return rows
    with warnings.catch_warnings():
        # Fabric calls a torch function that torch plans to replace.
        warnings.filterwarnings("ignore", message=".*all_gather.*deprecated")
        gathered = fabric.all_gather(rows, sync_grads=True)
    return gathered.flatten(0, 1)  # pyright: ignore[reportAttributeAccessIssue]
