"""The operations that networks are given for inference: plain on the CPU; on CUDA in parts, and fused where that works.

It knows devices and which operations there are; what they compute stands in tensors/ops.py.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor

from i2vgen_ms.runtime import chunked, convolution, processor, products, trial
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops


class FusedWarning(UserWarning):
    """Some fused operations do not work here, and the plain ones are used for them: the same results, slower."""


_CPU = Ops(
    conv_spatial=processor.conv_spatial,
    conv_temporal=processor.conv_temporal,
    conv_doubled=processor.conv_doubled,
    feed_forward=processor.feed_forward,
    feed_forward_onto=processor.feed_forward_onto,
)


@dataclass(frozen=True, kw_only=True)
class FusedOps(Ops):
    """A table whose attention over frames is for what it takes; for the rest there is the network's own attention.

    takes_frames: of q, k and v, whether that is so. peak, parts: 7.6 activations with one branch at 1280x720x32 and 17
    with one of 448x256, as counted without a device.
    """

    takes_frames: Callable[[Tensor, Tensor, Tensor], bool]
    peak: float = 5.5
    parts: int = 5 * 2**26

    def attend_over_frames(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.takes_frames(q, k, v):
            return super().attend_over_frames(q, k, v)
        return attention.over_frames(self.attention, q, k, v)


def table(device: torch.device) -> Ops:
    """The operations for inference on a device; on the CPU the plain ones, but for products and how many there are."""
    return _CPU if device.type != "cuda" else _cuda(device)


# Places of latents of which one condition fills a device: a forward of 460800 for two as one batch took 2.04 times as
# long as for one, and one of 57344 was faster than two.
TOGETHER = 2**18

IN_PARTS = Ops(
    group_norm=chunked.group_norm,
    conv_spatial=chunked.conv_spatial,
    conv_temporal=convolution.conv_temporal,
    conv_halved=convolution.conv_halved,
    feed_forward=chunked.feed_forward,
    in_parts=chunked.in_parts,
    by_frames=chunked.by_frames,
    together=TOGETHER,
)


@cache
def _cuda(device: torch.device) -> Ops:
    try:
        fused = fused_table(IN_PARTS)
    except Exception as error:  # Triton is not there, or raises whatever it likes
        words = trial.last_words(error)
        warnings.warn(f"the fused operations do not work on {device} and are not used: {words}", FusedWarning, 2)
        return IN_PARTS
    failed = trial.failures(fused, device)
    if failed:
        words = "; ".join(failed.values())
        warnings.warn(
            f"{len(failed)} fused operations do not work on {device} and are not used: {words}", FusedWarning, 2
        )
    return replace(fused, **{name: getattr(IN_PARTS, name) for name in (*failed, "peak", "parts")}) if failed else fused


def _for_hopper(name: str, what: str) -> Any:
    """A module of kernels, or None: what they are written in is no stable part of Triton."""
    try:
        return importlib.import_module(f"i2vgen_ms.runtime.kernels.{name}")
    except Exception as error:
        warnings.warn(f"{what} has no kernel of its own: {trial.last_words(error)}", FusedWarning, 5)
        return None


def fused_table(plain: Ops) -> Ops:
    from i2vgen_ms.runtime.kernels import frame_attention, geglu, short_attention, wide_attention
    from i2vgen_ms.runtime.kernels.add import add, add_bias_
    from i2vgen_ms.runtime.kernels.copies import double, join
    from i2vgen_ms.runtime.kernels.doubled import conv_doubled
    from i2vgen_ms.runtime.kernels.group_norm import group_norm, group_scales, scaled_silu
    from i2vgen_ms.runtime.kernels.layer_norm import add_layer_norm, layer_norm, shift_layer_norm

    long = _for_hopper("long_attention", "attention of many tokens")
    narrow = _for_hopper("narrow_geglu", "the gate of few channels")

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if long is not None and long.takes(q, k, v):
            return cast(Tensor, long.attend(q, k, v))
        if short_attention.takes(q, k, v):
            return short_attention.attend(q, k, v)
        return wide_attention.attend(q, k, v) if wide_attention.takes(q, k) else plain.attention(q, k, v)

    def gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        hopper = narrow is not None and narrow.fits(x, weight)
        return cast(Tensor, narrow.product(x, weight, bias)) if hopper else geglu.geglu(x, weight, bias)

    def doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # In fp32 cuDNN takes as much memory again, and a convolution by rows does not.
        whole = x.dtype == torch.float32
        return fused.conv_spatial(double(x), weight, bias) if whole else conv_doubled(x, weight, bias)

    fused = replace(
        FusedOps(**vars(plain), takes_frames=frame_attention.takes),
        attention=attend,
        group_norm=group_norm,
        group_scales=group_scales,
        scaled_silu=scaled_silu,
        layer_norm=layer_norm,
        add=add,
        add_layer_norm=add_layer_norm,
        shift_layer_norm=shift_layer_norm,
        conv_spatial=convolution.bias_apart(plain.conv_spatial, add_bias_),
        conv_temporal=convolution.bias_apart(plain.conv_temporal, add_bias_),
        conv_halved=convolution.bias_apart(plain.conv_halved, add_bias_),
        conv_doubled=doubled,
        join=join,
        double=double,
        feed_forward=partial(geglu.feed_forward, gate=gate),
        feed_forward_onto=partial(geglu.feed_forward_onto, gate=gate),
        linears=products.linears,
        linear=products.linear,
        frame_attention=frame_attention.over_frames,
        peak=FusedOps.peak,
        parts=FusedOps.parts,
    )
    return fused
