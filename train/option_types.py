"""Types of the command-line options that `train`, `distil` and `benchmark one-vs-rest` share.

Imports nothing heavy, so that `--help` stays fast.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from msc_edge.deprecation import deprecated_option
from msc_edge.train.registry_help import BACKBONES

Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"The pretrained network. {BACKBONES}.",
    ),
]
BackboneWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Pretrained weights, .safetensors or .pth, instead of the default ones of the backbone."
    ),
]
StopAt = Annotated[
    str | None,
    typer.Option(metavar="STAGE", help="Cut the backbone after this stage, such as layer3 or features.13."),
]
Preset = Annotated[
    Literal["whole-frame", "paper"],
    typer.Option(
        help="whole-frame: use every pixel. paper: Resize and CenterCrop, and the training settings of the paper."
    ),
]
ImageSize = Annotated[int, typer.Option(metavar="PIXELS", help="Side of the square input of the backbone, in pixels.")]
Steps = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default="80, at most 10 epochs of full batches; with --preset paper, the paper's epochs",
        help="Training steps; 0 keeps the backbone frozen. That is also what train does by default if a fine-tuned "
        "network would have too few held-out images for limits at 1 %.",
    ),
]
Batch = Annotated[int, typer.Option(min=2, help="Images per step, over all devices.")]
LearningRate = Annotated[
    float | None,
    typer.Option(metavar="RATE", show_default="3e-4; with --preset paper, 1e-5", help="Learning rate of SGD."),
]
FreezeTo = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE",
        show_default="the last stage at stride 8; with --preset paper, layer2 for ResNet-152, else none",
        help="Freeze the stages up to this one, such as layer2; none trains all of them.",
    ),
]
SelectCheckpoint = Annotated[
    Literal["synthetic", "last"] | None,
    typer.Option(
        show_default="synthetic; last with --preset paper, with fewer than 40 images, or with fewer than one batch",
        help="Which checkpoint to use. synthetic: the one that best separates held-out normal images from synthetic "
        "anomalies, or the frozen backbone if training does not help. last: the last step.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Accelerator = Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="Device to train on.")]
Devices = Annotated[int, typer.Option(min=1, help="Number of GPUs, or of processes on the CPU.")]
Dtype = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(help="Dtype of the training steps; auto: bf16 if the device computes in it natively, else fp32."),
]
DeprecatedPrecision = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option("--precision", hidden=True, callback=deprecated_option("--precision", "--dtype")),
]
