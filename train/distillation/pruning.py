"""Channel pruning: initialise a narrower MobileNetV2 or EfficientNet-Lite from the channels of its teacher.

Of each inverted residual block (Sandler et al., arXiv 1801.04381), the student keeps the hidden channels that
contribute most to the output. The projection after them is fitted to the teacher's output by least squares: channel
pruning (He, Zhang & Sun, arXiv 1707.06168), block by block, with the errors of the previous blocks as input. The width
between the blocks does not change, so the feature maps of student and teacher are comparable from the first step.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual

from msc_edge.progress import Report, silent
from msc_edge.train.backbones.backbone import Backbone
from msc_edge.train.backbones.efficientnet_lite import LiteBlock

_Block = Any  # an InvertedResidual or a LiteBlock; torch types the attributes of a module as Tensor | Module
_RIDGE = 1e-3  # of the mean diagonal: a few images do not determine all directions


def is_pruned_version(student: Backbone, teacher: Backbone) -> bool:
    """Whether `student` is `teacher` with fewer or equal hidden channels in its inverted residual blocks."""
    ours: list[_Block] = [module for _, module in student.chain()]
    theirs: list[_Block] = [module for _, module in teacher.chain()]
    if len(ours) != len(theirs) or not any(_is_expanded(module) for module in theirs):
        return False
    return all(
        one.use_res_connect == other.use_res_connect
        and _hidden(one) <= _hidden(other)
        and one.conv[-2].weight.shape[0] == other.conv[-2].weight.shape[0]
        and one.conv[0][0].weight.shape[1] == other.conv[0][0].weight.shape[1]
        and one.stride == other.stride
        if _is_expanded(one) and _is_expanded(other)
        else _shapes(one) == _shapes(other)
        for one, other in zip(ours, theirs, strict=True)
    )


@torch.no_grad()
def initialise_pruned(
    student: Backbone, teacher: Backbone, batches: Sequence[Tensor], *, report: Report = silent
) -> None:
    """Initialise `student`, a pruned version of `teacher` (see `is_pruned_version`), from the teacher's weights.

    `batches`: normalised images, float32 (B, 3, h, w), for the least squares; a hundred images are enough.
    """
    teacher_inputs, student_inputs = list(batches), list(batches)
    modules = list(zip(student.chain(), teacher.chain(), strict=True))
    for done, ((_, ours), (_, theirs)) in enumerate(modules, start=1):
        if _is_expanded(theirs) and _hidden(ours) < _hidden(theirs):
            _prune(ours, theirs, student_inputs, teacher_inputs)
        else:
            ours.load_state_dict(theirs.state_dict())
        teacher_inputs = [theirs(batch) for batch in teacher_inputs]
        student_inputs = [ours(batch) for batch in student_inputs]
        report("pruning the teacher", done, len(modules))


def _prune(ours: _Block, theirs: _Block, our_inputs: Sequence[Tensor], their_inputs: Sequence[Tensor]) -> None:
    expand, depthwise, project, _ = theirs.conv
    # The energy that each hidden channel contributes to the output of the block.
    energy = torch.stack([depthwise(expand(batch)).square().mean(dim=(0, 2, 3)) for batch in their_inputs]).mean(dim=0)
    energy *= project.weight.square().sum(dim=(0, 2, 3))
    kept = energy.topk(_hidden(ours)).indices.sort().values
    for our_part, their_part in zip(ours.conv[:2], (expand, depthwise), strict=True):
        our_part[0].weight.copy_(their_part[0].weight[kept])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(our_part[1], name).copy_(getattr(their_part[1], name)[kept])

    # Weights W and bias minimise |W h + bias - y|^2 over all places; h: our hidden channels, y: the required output.
    size = len(kept) + 1
    gram = torch.zeros(size, size, dtype=torch.float64, device=project.weight.device)
    moment = torch.zeros(size, project.weight.shape[0], dtype=torch.float64, device=project.weight.device)
    for ours_in, theirs_in in zip(our_inputs, their_inputs, strict=True):
        hidden = _columns(ours.conv[1](ours.conv[0](ours_in)))
        hidden = torch.cat([hidden, hidden.new_ones(1, hidden.shape[1])])
        wanted = theirs(theirs_in) - ours_in if theirs.use_res_connect else theirs(theirs_in)
        gram += hidden @ hidden.T
        moment += hidden @ _columns(wanted).T
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    fitted = torch.linalg.solve(gram, moment).T
    norm = ours.conv[3]
    ours.conv[2].weight.copy_(fitted[:, :-1, None, None])
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.fill_(math.sqrt(1 + norm.eps))
    norm.bias.copy_(fitted[:, -1])


def _columns(features: Tensor) -> Tensor:
    """(B, channels, h, w) -> float64 (channels, B h w)."""
    return features.transpose(0, 1).flatten(1).double()


def _is_expanded(module: nn.Module) -> bool:
    return isinstance(module, InvertedResidual | LiteBlock) and len(module.conv) == 4


def _hidden(block: _Block) -> int:
    return block.conv[1][0].weight.shape[0]


def _shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in module.state_dict().items()]
