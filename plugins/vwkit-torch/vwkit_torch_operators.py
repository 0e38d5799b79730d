"""The operators that a program of ``torch.export`` may use.

A program names its operators. PyTorch's own loader looks such names up anywhere in ``torch``,
evaluates texts, and unpickles; here a name is looked up in a list of operators that only compute.
None of them reads or writes files, draws random numbers, or shows memory that was not written, and
arguments that their kernels would trust are checked first.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["IGNORED", "Operator", "operator_of"]

_COMPUTING = """
_adaptive_avg_pool2d _convolution _log_softmax _native_batch_norm_legit
_native_batch_norm_legit_no_training _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy
_unsafe_index _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add addcdiv addcmul addmm alias all
amax amin any arange argmax argmin as_strided atan avg_pool1d avg_pool2d avg_pool3d
baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_tensors broadcast_to
cat ceil celu channel_shuffle chunk clamp clamp_max clamp_min clone col2im concat constant_pad_nd
contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution copy cos
cosine_similarity cumprod cumsum
detach diagonal diff div divide dropout
einsum elu embedding eq erf exp expand expand_as expm1 eye
feature_dropout fill flatten flip floor floor_divide fmod frac full full_like
gather ge gelu glu greater group_norm gt
hardshrink hardsigmoid hardswish hardtanh hstack
im2col index index_put index_select instance_norm isfinite isinf isnan
layer_norm le leaky_relu lerp less lift_fresh lift_fresh_copy linalg_norm linalg_vector_norm linear
linspace log log10 log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logical_xor
logsumexp lt
masked_fill matmul max max_pool1d max_pool2d max_pool2d_with_indices maximum mean meshgrid min
minimum mish mm movedim mul multiply mv
narrow native_batch_norm native_group_norm native_layer_norm ne neg new_full new_ones new_zeros norm
ones ones_like outer
pad permute pixel_shuffle pixel_unshuffle pow prelu prod
ravel reciprocal reflection_pad2d relu relu6 remainder repeat replication_pad2d reshape reshape_as
resolve_conj resolve_neg rms_norm roll round rsqrt rsub
scalar_tensor scaled_dot_product_attention select select_scatter selu sigmoid sign silu sin slice
slice_scatter softmax softplus softshrink sort split split_with_sizes sqrt square squeeze stack std
std_mean sub subtract sum swapaxes sym_numel sym_size sym_storage_offset sym_stride
t tan tanh tensor_split threshold tile to topk transpose tril triu true_divide trunc type_as
unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d
upsample_nearest1d upsample_nearest2d
var var_mean view view_as vstack
where
zero zeros zeros_like
"""

_ATEN = frozenset(_COMPUTING.split())

# What they say is found out by running the network.
IGNORED = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_async.default", "_assert_async.msg", "_assert_scalar.default",
        "_assert_tensor_metadata.default", "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)  # fmt: skip

_NAME = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")

# Arithmetic of lengths, where a program was exported for several sizes.
_LENGTHS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            "add", "and_", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg",
            "not_", "or_", "pos", "sub", "truediv",
        )
    },
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    "torch.sym_float": float,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
}  # fmt: skip
# A chain of products would fill the memory.
_LONGEST = 1 << 62

# Whole numbers of at least 1: some kernels divide by them.
_POSITIVE = frozenset(
    {
        "chunks", "dilation", "downscale_factor", "groups", "kernel_size", "num_groups",
        "split_size", "stride", "upscale_factor",
    }
)  # fmt: skip
# Some kernels find places in memory by them.
_SCALES = frozenset({"scale_factor", "scale_factors", "scales", "scales_h", "scales_w"})
_LARGEST_SCALE = 1e4

Operator = Callable[[Mapping[str, Any]], Any]
"""Called with the arguments by name."""

Check = Callable[[Mapping[str, Any]], None]
"""Called before; raises what is wrong with the arguments."""


def operator_of(torch: Any, target: str) -> Operator | None:
    """Return what a name in a program stands for, or None if it is not in the list.

    Examples
    --------
    >>> operator_of(None, "_operator.mul")({"a": 3, "b": 7})
    21
    >>> operator_of(None, "torch.hub.load") is None
    True
    """
    if target in _LENGTHS:
        return _of_lengths(_LENGTHS[target])
    found = _NAME.fullmatch(target)
    if found is None:
        return None
    name, overload = found.groups()
    base = name.removesuffix("_")
    if name not in _ATEN and base not in _ATEN:
        return None
    called = getattr(getattr(torch.ops.aten, name, None), overload, None)
    # Others than in-place ones write into arguments that are meant for results.
    if called is None or (called._schema.is_mutable and name == base):
        return None
    checks: list[Check] = [_check_numbers]
    if base in _CHECKS:
        checks.append(_CHECKS[base])

    def compute(arguments: Mapping[str, Any]) -> Any:
        for check in checks:
            check(arguments)
        return called(**arguments)

    return compute


def _of_lengths(function: Callable[..., Any]) -> Operator:
    def compute(arguments: Mapping[str, Any]) -> Any:
        values = list(arguments.values())
        if not all(isinstance(value, (int, float)) for value in values):
            raise TypeError("arithmetic of lengths is for numbers")
        found = function(*values)
        if abs(found) >= _LONGEST:
            raise OverflowError("a length of more than 2**62")
        return found

    return compute


# Checks that kernels leave out ------------------------------------------------------------------


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        if key in _POSITIVE:
            if any(number < 1 for number in _numbers(value)):
                raise ValueError(f"{key} must be at least 1; got {value}")
        elif key in _SCALES and any(
            not 1 / _LARGEST_SCALE <= number <= _LARGEST_SCALE for number in _numbers(value)
        ):
            raise ValueError(f"{key} is out of range; got {value}")


def _numbers(value: Any) -> list[float]:
    several = value if isinstance(value, (list, tuple)) else (value,)
    return [number for number in several if isinstance(number, (int, float))]


def _check_channels(arguments: Mapping[str, Any]) -> None:
    channels = arguments["input"].shape[1]
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = arguments.get(key)
        if value is not None and tuple(value.shape) != (channels,):
            raise ValueError(f"{key} has shape {tuple(value.shape)} for {channels} channels")


def _check_index(arguments: Mapping[str, Any]) -> None:
    given, index, axis = arguments["self"], arguments["index"], arguments["dim"]
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < given.shape[axis]:
        raise IndexError("an index is out of range")


def _check_division(arguments: Mapping[str, Any]) -> None:
    """Refuse the one division of whole numbers whose result is none."""
    given, by = arguments["self"], arguments["other"]
    dtype = getattr(given, "dtype", None)
    if dtype is None or dtype.is_floating_point or not given.numel():
        return
    least = by if isinstance(by, (int, float)) else by.min() if by.numel() else 0
    if least < 0 and int(given.min()) <= -(1 << 31):
        raise OverflowError("a division of whole numbers is out of range")


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(
        (
            "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
            "native_batch_norm",
        ),
        _check_channels,
    ),
    "gather": _check_index,
    **dict.fromkeys(("div", "divide", "floor_divide", "fmod", "remainder"), _check_division),
}  # fmt: skip
