"""Gradients of depthwise convolutions in bf16 on a CPU.

oneDNN has no fast bf16 kernel for two of them: the gradient of the input with a stride, and that of the weight with a
kernel larger than 3 x 3. They take three to ten times as long as in fp32, two thirds of a training step of
EfficientNet-Lite2. These two are computed in fp32 here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FAST_KERNEL = 3


class FastDepthwiseGradients(TorchFunctionMode):
    """Context for the forward pass of a training step. It changes depthwise convolutions on a CPU in bf16 autocast.

    The outputs stay the same. The gradients are rounded less.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`; a convolution with a slow gradient is replaced by the same with a fast one."""
        if func is torch.conv2d and not kwargs and _is_slow(*args):
            features, weight, _, stride, padding, *_ = args
            return _Depthwise.apply(features.to(torch.bfloat16), weight, stride, padding)
        return func(*args, **(kwargs or {}))


def _is_slow(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> bool:
    if features.device.type != "cpu" or not torch.is_grad_enabled() or not weight.requires_grad:
        return False
    if bias is not None or dilation != (1, 1) or not isinstance(stride, tuple) or not isinstance(padding, tuple):
        return False
    in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    depthwise = groups == features.shape[1] == len(weight) > 1
    return in_bf16 and depthwise and (max(stride) > 1 or max(weight.shape[2:]) > _FAST_KERNEL)


class _Depthwise(torch.autograd.Function):
    """features bf16 (B, C, h, w), weight float32 (C, 1, k, k) -> bf16."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(features, weight.to(features.dtype), None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        features, weight = ctx.saved_tensors

        def computed(dtype: torch.dtype, *, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
            operands = (each.to(dtype) for each in (gradient, features, weight))
            both = torch.ops.aten.convolution_backward(
                *operands, [0], ctx.stride, ctx.padding, [1, 1], False, [0, 0], len(weight), [*wanted, False]
            )
            return both[0], both[1]

        of_input = torch.float32 if max(ctx.stride) > 1 else torch.bfloat16
        of_weight = torch.float32 if max(weight.shape[2:]) > _FAST_KERNEL else torch.bfloat16
        for_features, for_weight = ctx.needs_input_grad[:2]
        from_input, _ = computed(of_input, wanted=(True, False)) if for_features else (None, None)
        _, from_weight = computed(of_weight, wanted=(False, True)) if for_weight else (None, None)
        return (
            from_input if from_input is None else from_input.to(features.dtype),
            from_weight if from_weight is None else from_weight.to(weight.dtype),
            None,
            None,
        )
