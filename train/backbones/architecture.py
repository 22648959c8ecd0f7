"""What a backbone is made of: its stages, its pretrained weights, and what they were trained with."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from torch import nn

from msc_edge.errors import UsageError
from msc_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from msc_edge.train.weight_files import Pretrained

Trunk = OrderedDict[str, nn.Module]


def _unchanged(key: str) -> str:
    return key


def no_weights(name: str) -> NoReturn:
    """`pretrained` of a network without published weights."""
    raise UsageError(
        f"--backbone {name} has no published weights; make some with msc-edge distil --student {name}, and pass them "
        "as --weights FILE"
    )


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A convolutional network by name, without its head. Global average pooling follows its trunk."""

    name: str
    trunk: Callable[[], Trunk]
    """Builds the untrained stages, from the image to the last feature map, by the names that their tensors begin with
    in a state dict. A stage that is a Sequential can be cut after each of its children."""
    pretrained: Callable[[], Pretrained]
    """The default weights. Raises UsageError where there are none."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of the images that the weights were trained on, RGB in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """What these images were divided by, after subtraction of the mean."""
    own_key: Callable[[str], str] = _unchanged
    """The key of a tensor in the trunk, from its key in a published state dict. Own keys stay as they are."""
    blocks: Mapping[type[nn.Module], str] = field(default_factory=dict)
    """Types of inverted residual blocks, and the child of each that holds its layers in their order: patch embeddings
    are made of the expanded map, before the second convolution. Empty for networks without such blocks."""
    same_padding: bool = False
    """Whether convolutions with a stride are padded as in TensorFlow: at the right and bottom first. The positions of
    a feature map at stride s then lie s - 1 pixels further right and down, for inputs whose size s divides."""
