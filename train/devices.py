"""Where training computes: devices and precision, through Lightning Fabric."""

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
Precision = Literal["auto", "fp32", "bf16"]


def precision_of(accelerator: Accelerator, precision: Precision) -> Literal["fp32", "bf16"]:
    """The precision of the training steps: bf16 where the device computes in it, unless told otherwise."""
    if precision != "auto":
        return precision
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Without the instructions bf16 is emulated, and several times slower than fp32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def launched_fabric(accelerator: Accelerator, devices: int, precision: Precision) -> Fabric:
    """Start on the devices asked for; on several, this starts the other processes. UsageError if they are not there."""
    for library in ("lightning.fabric", "lightning.pytorch"):  # the one announces the precision by the other's logger
        logging.getLogger(library).setLevel(logging.WARNING)
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    there = torch.cuda.device_count() if on_gpu else os.cpu_count() or 1
    if devices > there:
        kind = "GPUs" if on_gpu else "cores"
        raise UsageError(f"--devices {devices}: this machine has {there} {kind}; evaluate for at most that many")
    try:
        fabric = Fabric(
            accelerator="cuda" if accelerator == "gpu" else accelerator,
            devices=devices,
            precision="bf16-mixed" if precision_of(accelerator, precision) == "bf16" else "32-true",
        )
    except (RuntimeError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--accelerator {accelerator} --devices {devices}: not on this machine ({reason})") from error
    fabric.launch()
    return fabric


def part_of_rank(fabric: Fabric, batch: int) -> slice:
    """The part of a batch that this process computes. UsageError when the batch does not divide evenly."""
    if batch % fabric.world_size:
        raise UsageError(f"a batch of {batch} images does not divide among {fabric.world_size} devices; set --batch")
    each = batch // fabric.world_size
    return slice(fabric.global_rank * each, (fabric.global_rank + 1) * each)


def from_all_ranks(fabric: Fabric, rows: Tensor) -> Tensor:
    """The rows of all ranks, in order, through which gradients flow back: the loss sees the global batch."""
    if fabric.world_size == 1:
        return rows
    with warnings.catch_warnings():
        # Fabric's, of torch's: the function that it calls is to be replaced one day.
        warnings.filterwarnings("ignore", message=".*all_gather.*deprecated")
        gathered = fabric.all_gather(rows, sync_grads=True)
    return gathered.flatten(0, 1)  # pyright: ignore[reportAttributeAccessIssue]
