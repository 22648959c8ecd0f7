"""Faster convolutions in training steps: the same functions, with less to compute.

Batch norm that keeps its statistics is an affine map. It is folded into the weights of the convolution before it, in
each step, so that the gradients of both are those of the separate modules.

On a CPU in bf16, oneDNN has no fast kernel for two gradients of depthwise convolutions: that of the input with a
stride, and that of the weight with a kernel larger than 3 x 3. These two are computed in fp32.

ReLU and ReLU6 of bf16 are computed on the bits, as int16: positive numbers have the order of their bits, and negative
ones have the sign bit. That is faster than torch's own, and would turn what is not a number into a limit. Such values
come from weights that are not finite only. In a step with such weights the functions are torch's own.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FAST_KERNEL = 3


class FastConvolutions(TorchFunctionMode):
    """Context for the forward pass of a training step of one network.

    As in `folded`, a batch norm is folded if it directly follows a convolution among the children of a module.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._finite = True
        self._norms: dict[int, nn.BatchNorm2d] = {}
        """By the id of the weight of the convolution before it."""
        self._folded: dict[int, Tensor] = {}
        """Outputs of convolutions whose batch norm is yet to come, by the id of its mean."""
        for module in network.modules():
            for before, after in pairwise(module.children()):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d) and after.affine:
                    self._norms[id(before.weight)] = after

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, unless it is a convolution that can be faster or the batch norm after it."""
        if func is torch.conv2d and not kwargs and len(args) == 7:
            return self._convolution(*args)
        if func is F.batch_norm and len(args) > 1 and self._folded.get(id(args[1])) is args[0]:
            return self._folded.pop(id(args[1]))
        high = _upper_limit(func, kwargs or {})
        if high and self._finite and _is_bf16_on_cpu(*args):
            return _Clamp.apply(*args, high)
        return func(*args, **(kwargs or {}))

    def __exit__(self, *error: Any) -> None:
        """End of the forward pass."""
        super().__exit__(*error)
        left, self._folded, self._finite = self._folded, {}, True
        assert error[0] or not left, "a batch norm did not follow its convolution"

    def _convolution(self, features: Tensor, weight: Tensor, bias: Tensor | None, *others: Any) -> Tensor:
        if weight.device.type == "cpu":
            self._finite = self._finite and bool(weight.detach().isfinite().all())
        norm = self._norms.get(id(weight))
        mean = None if norm is None or norm.training else norm.running_mean
        if norm is not None and mean is not None:
            assert norm.running_var is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = weight * scale[:, None, None, None]
            bias = norm.bias + scale * (-mean if bias is None else bias - mean)
        if _has_slow_gradient(features, weight, *others):
            stride, padding, *_ = others
            found = _Depthwise.apply(features.to(torch.bfloat16), weight, bias, stride, padding)
        else:
            found = torch.conv2d(features, weight, bias, *others)
        if mean is not None:
            self._folded[id(mean)] = found
        return found


def _has_slow_gradient(
    features: Tensor, weight: Tensor, stride: object, padding: object, dilation: object, groups: int
) -> bool:
    if features.device.type != "cpu" or not torch.is_grad_enabled() or not weight.requires_grad:
        return False
    if dilation != (1, 1) or not isinstance(stride, tuple) or not isinstance(padding, tuple):
        return False
    in_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    depthwise = groups == features.shape[1] == len(weight) > 1
    return in_bf16 and depthwise and (max(stride) > 1 or max(weight.shape[2:]) > _FAST_KERNEL)


class _Depthwise(torch.autograd.Function):
    """features bf16 (B, C, h, w), weight float32 (C, 1, k, k), bias float32 (C,) or None -> bf16."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        bias = None if bias is None else bias.to(features.dtype)
        return torch.conv2d(features, weight.to(features.dtype), bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors

        def computed(dtype: torch.dtype, *, of_weight: bool) -> Tensor:
            operands = (each.to(dtype) for each in (gradient, features, weight))
            which = [not of_weight, of_weight, False]
            both = torch.ops.aten.convolution_backward(
                *operands, [0], ctx.stride, ctx.padding, [1, 1], False, [0, 0], len(weight), which
            )
            return both[int(of_weight)]

        for_features, for_weight, for_bias, *_ = ctx.needs_input_grad
        of_features = torch.float32 if max(ctx.stride) > 1 else torch.bfloat16
        of_weight = torch.float32 if max(weight.shape[2:]) > _FAST_KERNEL else torch.bfloat16
        return (
            computed(of_features, of_weight=False).to(features.dtype) if for_features else None,
            computed(of_weight, of_weight=True).to(weight.dtype) if for_weight else None,
            gradient.sum(dim=(0, 2, 3), dtype=weight.dtype) if for_bias else None,
            None,
            None,
        )


def _is_bf16_on_cpu(values: Tensor) -> bool:
    return values.dtype == torch.bfloat16 and values.device.type == "cpu"


def _upper_limit(func: Callable[..., Any], options: Mapping[str, Any]) -> float | None:
    """The upper limit of a call of ReLU or ReLU6, as their modules make it; None for any other call."""
    if func is F.relu:
        return math.inf
    return options["max_val"] if func is F.hardtanh and options.get("min_val") == 0 and options["max_val"] > 0 else None


class _Clamp(torch.autograd.Function):
    """bf16 values of any shape, and a limit above 0 -> the values between 0 and the limit."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, high: float) -> Tensor:
        of_high = int(torch.tensor(high, dtype=torch.bfloat16).view(torch.int16))
        found = values.view(torch.int16).clamp(0, of_high).view(torch.bfloat16)
        ctx.save_for_backward(found)
        ctx.high = high
        return found

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, None]:
        (found,) = ctx.saved_tensors
        if ctx.high == math.inf:
            return torch.ops.aten.threshold_backward(gradient, found, 0), None
        return torch.ops.aten.hardtanh_backward(gradient, found, 0, ctx.high), None
