"""Attention backends: one signature, `(q, k, v) -> out`, each `b n heads d` (tokens before heads, so no transposes).

They know nothing of projections, norms or what the tokens are. `math` is the definition, the others must agree with it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from i2vgen_ms.errors import ConfigurationError


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by torch's scaled_dot_product_attention, which picks the fastest kernel it has.

    A network that is told `sdpa` attends by its table of operations: this, with faster kernels for some shapes.

    Args: q `b n heads d`; k and v `b m heads d`. Returns `b n heads d`.
    """
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def math(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention written out, `softmax(q k^T / sqrt(d)) v` (Vaswani et al. 2017, equation 1), weights in fp32.

    Args: q `b n heads d`; k and v `b m heads d`. Returns `b n heads d`.
    """
    scores = torch.einsum("b n h d, b m h d -> b h n m", q.float(), k.float()) * q.shape[-1] ** -0.5
    return torch.einsum("b h n m, b m h d -> b n h d", scores.softmax(-1).to(v.dtype), v)


def xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by xformers' memory_efficient_attention (optional package, CUDA only).

    Args: q `b n heads d`; k and v `b m heads d`. Returns `b n heads d`.
    Raises: ConfigurationError when xformers is not installed or has no kernel for these tensors.
    """
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise ConfigurationError(
            "attention 'xformers' was asked for, but the package xformers cannot be imported "
            f"({error}); install i2vgen_ms[xformers] or choose attention 'sdpa'"
        ) from error
    try:
        return memory_efficient_attention(q, k, v)
    except NotImplementedError as error:
        raise ConfigurationError(
            f"attention 'xformers' has no kernel for {q.dtype} on {q.device.type}; choose attention 'sdpa'"
        ) from error


def over_frames(attention: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over the frames of every place: q, k, v `b f n heads d`, each of the n places on its own.

    One video at a time, because only then is `n f heads d` a view of the layout and nothing is copied.
    """
    videos = [
        rearrange(attention(*(rearrange(t, "f n heads d -> n f heads d") for t in video)), "n f heads d -> f n heads d")
        for video in zip(q, k, v, strict=True)
    ]
    return torch.stack(videos) if len(videos) > 1 else videos[0].unsqueeze(0)
