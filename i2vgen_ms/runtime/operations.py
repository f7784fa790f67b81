"""The operations that networks are given for inference: plain on the CPU; on CUDA in parts, and fused where that works.

It knows devices and which operations there are; what they compute stands in tensors/ops.py.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.runtime import chunked, convolution
from i2vgen_ms.tensors import attention, ops
from i2vgen_ms.tensors.ops import Ops

# How far a fused operation may be from its definition in fp32 on the device's own numbers, which sum in other orders.
TOLERANCE = 1e-5
# The same of fp16, where the definition is computed in fp32: the result's own rounding, and that of what is between.
HALF_TOLERANCE = 1e-3
HALF = "in half precision"


class FusedWarning(UserWarning):
    """The fused operations do not work here, and the plain ones are used: the same results, slower."""


def table(device: torch.device) -> Ops:
    """The operations for inference on a device; on the CPU the plain ones, which change no number."""
    return Ops() if device.type != "cuda" else _cuda(device)


@cache
def _cuda(device: torch.device) -> Ops:
    plain = Ops(
        group_norm=chunked.group_norm,
        conv_spatial=chunked.conv_spatial,
        conv_temporal=convolution.conv_temporal,
        conv_halved=convolution.conv_halved,
        feed_forward=chunked.feed_forward,
        in_parts=chunked.in_parts,
        by_frames=chunked.by_frames,
    )
    try:
        fused = _fused(plain)
        check(fused, device)
    except Exception as error:  # whatever a compiler, a driver or a missing package can raise
        words = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(f"the fused operations do not work on {device} and are not used: {words[-1]}", FusedWarning, 2)
        return plain
    return fused


def _fused(plain: Ops) -> Ops:
    from i2vgen_ms.runtime.kernels import frame_attention, wide_attention
    from i2vgen_ms.runtime.kernels.add import add, add_bias_
    from i2vgen_ms.runtime.kernels.copies import double, join
    from i2vgen_ms.runtime.kernels.doubled import conv_doubled
    from i2vgen_ms.runtime.kernels.geglu import feed_forward
    from i2vgen_ms.runtime.kernels.group_norm import group_norm
    from i2vgen_ms.runtime.kernels.layer_norm import add_layer_norm, layer_norm

    def over_frames(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if frame_attention.takes(q, k, v):
            return frame_attention.over_frames(q, k, v)
        return attention.over_frames(plain.attention, q, k, v)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return wide_attention.attend(q, k, v) if wide_attention.takes(q, k) else plain.attention(q, k, v)

    def doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # In fp32 cuDNN takes as much memory again, and a convolution by rows does not.
        whole = x.dtype == torch.float32
        return fused.conv_spatial(double(x), weight, bias) if whole else conv_doubled(x, weight, bias)

    fused = replace(
        plain,
        attention=attend,
        group_norm=group_norm,
        layer_norm=layer_norm,
        add=add,
        add_layer_norm=add_layer_norm,
        conv_spatial=convolution.bias_apart(plain.conv_spatial, add_bias_),
        conv_temporal=convolution.bias_apart(plain.conv_temporal, add_bias_),
        conv_halved=convolution.bias_apart(plain.conv_halved, add_bias_),
        conv_doubled=doubled,
        join=join,
        double=double,
        feed_forward=feed_forward,
        frame_attention=over_frames,
    )
    return fused


def check(fused: Ops, device: torch.device) -> None:
    """Compares operations with their definitions on a few numbers.

    Raises: RuntimeError when they differ; whatever an operation raises.
    """
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x, y, weight, bias = numbers(1, 3, 5, 7, 64), numbers(1, 3, 5, 7, 64), numbers(64), numbers(64)
    frames = tuple(numbers(1, 5, 7, 2, 40) for _ in range(3))
    layer, wide = (numbers(512, 64), numbers(512), numbers(64, 256), numbers(64)), numbers(3, 1, 40, 1, 512)
    kernel, square, plain = numbers(64, 64, 3, 1), numbers(64, 64, 3, 3), Ops(attention=attention.math)
    norm: dict[str, Any] = {"groups": 32, "eps": 1e-5, "per_frame": False, "silu": True, "shift": numbers(1, 64)}
    # Not with cuDNN's choice of TF32, which it makes for one kernel and not for another.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        convolved = {
            name: (getattr(fused, name)(x, weights, bias), getattr(ops, name)(x, weights, bias))
            for name, weights in (("conv_temporal", kernel), ("conv_halved", square))
        }
        halves = {}
        for name, given in {"feed_forward": (x, *layer), "conv_doubled": (x, square, bias), "attention": wide}.items():
            half = [one.half() for one in given]
            wanted = getattr(plain, name)(*(one.float() for one in half))
            halves[f"{name} {HALF}"] = getattr(fused, name)(*half).float(), wanted
    pairs = {
        name: (getattr(fused, name)(*given, **options), getattr(ops, name)(*given, **options))
        for name, given, options in (
            ("group_norm", (x, weight, bias), norm),
            ("layer_norm", (x, weight, bias), {}),
            ("add", (x, y, bias), {}),
            ("join", (x, y[..., :40]), {}),
            ("double", (x,), {"crop": 1}),
            ("feed_forward", (x, *layer), {}),
        )
    }
    both = zip(fused.add_layer_norm(x, y, weight, bias), ops.add_layer_norm(x, y, weight, bias), strict=True)
    pairs |= {f"add_layer_norm ({what})": pair for what, pair in zip(("sum", "norm"), both, strict=True)}
    pairs |= convolved | halves
    pairs["attention over frames"] = fused.attend_over_frames(*frames), attention.over_frames(attention.math, *frames)
    for name, (ours, wanted) in pairs.items():
        error = float((ours - wanted).norm() / wanted.norm())
        if not error <= (HALF_TOLERANCE if name.endswith(HALF) else TOLERANCE):
            raise RuntimeError(f"{name} differs from its definition by {error:.1e}")
