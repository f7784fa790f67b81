"""Operations on trial: which of a table do on a device what their definitions say.

Given a table and a device. It knows neither how an operation is made nor what is done about one that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.runtime.shortage import of_the_device
from i2vgen_ms.tensors import attention, ops
from i2vgen_ms.tensors.ops import Ops

# How far an operation may be from its definition in fp32 on the device's own numbers, which sum in other orders.
TOLERANCE = 1e-5
# The same of fp16, where the definition is computed in fp32: the result's own rounding, and that of what is between.
HALF_TOLERANCE = 1e-3

# So many tokens that attention may have a kernel of its own, the last of them fewer than a tile has. Like the numbers
# of tokens and channels in videos they are multiples of 16, so that no other kernel is compiled for them.
MANY = 2128

# What an operation gives and what it should give, by what is compared; and how far apart they may be.
Pairs = Mapping[str, tuple[Tensor, Tensor, float]]


def failures(table: Ops, device: torch.device) -> dict[str, str]:
    """Compares each operation with its definition on a few numbers; of those that fail, by name, in words why.

    An operation fails that raises (a compiler, a driver or a missing package can raise anything), or that differs.
    Running out of the device's memory says nothing of an operation, and is raised.
    """
    found = {}
    with _ieee():
        for name, probe in probes(table, device).items():
            try:
                problem = _difference(probe())
            except Exception as error:
                if of_the_device(error):
                    raise
                problem = f"{name}: {last_words(error)}"
            if problem:
                found[name] = problem
    return found


@contextmanager
def _ieee() -> Iterator[None]:
    """fp32 without TF32: cuDNN chooses it for one kernel and not for another, a user for PyTorch's products alone."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        if before == "tf32":  # set only then, as torch does not take it well beside the older ways of saying it
            products.fp32_precision = "ieee"
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        if before == "tf32":
            products.fp32_precision = before


def last_words(error: Exception) -> str:
    """The last line of an error's words: what a compiler or a driver says before it is what it was doing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _difference(pairs: Pairs) -> str | None:
    for what, (ours, wanted, tolerance) in pairs.items():
        error = float((ours.float() - wanted).norm() / wanted.norm())
        if not error <= tolerance:
            return f"{what} differs from its definition by {error:.1e}"
    return None


def probes(table: Ops, device: torch.device) -> dict[str, Callable[[], Pairs]]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x, y, weight, bias = numbers(1, 3, 5, 7, 64), numbers(1, 3, 5, 7, 64), numbers(64), numbers(64)
    frames = tuple(numbers(1, 5, 7, 2, 40) for _ in range(3))
    layer, wide = (numbers(512, 64), numbers(512), numbers(64, 256), numbers(64)), numbers(3, 1, 40, 1, 512)
    many = numbers(1, MANY, 3, 2, 64).unbind(2)  # q, k and v as one product gives them
    few = many[0], *numbers(1, 77, 2, 2, 64).unbind(2)  # k and v of a text
    layers = [_layer(numbers(width, 64)) for width in (64, 32)]
    # A layer with a bias that is narrow enough for its bias to be added by who reads what it gives.
    with_bias = _layer(numbers(32, 64), numbers(32))
    # Wider than 320 channels products have other tiles; weights that keep the size of what they are given.
    wider = numbers(40, 336), numbers(64, 336) / 18, numbers(64), numbers(336, 32) / 6, numbers(336)
    norms = numbers(2, 336).unbind(), numbers(2, 272).unbind()
    # Of so many tokens they have a kernel of their own; its last tile is not whole, and no tile is like the next.
    tokens = numbers(65, 272).repeat(253, 1)
    narrow = tokens, numbers(64, 272) / 16, numbers(64), numbers(272, 32) / 6, numbers(272)
    kernel, square, plain = numbers(64, 64, 3, 1), numbers(64, 64, 3, 3), Ops(attention=attention.math)
    # Groups of so many values are split among programs. The kernels of such norms are those of the autoencoder.
    frame, channels = numbers(1, 1, 67, 63, 128).half(), numbers(3, 128).half().unbind()
    large: dict[str, Any] = {"groups": 32, "eps": 1e-6, "shift": channels[2]}
    norm: dict[str, Any] = {"groups": 32, "eps": 1e-5, "per_frame": False, "silu": True, "shift": numbers(1, 64)}

    def single(name: str, *given: Any, **options: Any) -> Pairs:
        return {name: (getattr(table, name)(*given, **options), getattr(ops, name)(*given, **options), TOLERANCE)}

    def half(name: str, *given: Tensor, what: str = "in half precision") -> Pairs:
        halves = [one.half() for one in given]
        wanted = getattr(plain, name)(*(one.float() for one in halves))
        return {f"{name} {what}": (getattr(table, name)(*halves), wanted, HALF_TOLERANCE)}

    def each(name: str, parts: Iterable[object], ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> Pairs:
        listed = zip(parts, ours, wanted, strict=True)
        return {f"{name} ({part})": (one, definition, TOLERANCE) for part, one, definition in listed}

    def sum_and_norm(name: str, *given: Tensor, **options: Tensor) -> Pairs:
        ours = getattr(table, name)(given[0].clone(), *given[1:], **options)  # which may be put in place
        wanted = getattr(ops, name)(*given, **options)
        return each(name, ("sum", "norm"), ours, wanted)

    def with_what_is_lacking() -> Pairs:
        made, lacking = table.linear(x, with_bias)
        made = made if lacking is None else made + lacking
        return {"linear": (made, ops.linear(x, with_bias)[0], TOLERANCE)}

    def of_large_groups() -> Pairs:
        options = {"per_frame": True, "silu": True}
        ours = table.group_norm(frame, *channels[:2], **large, **options)
        given = [one.float() for one in (frame, *channels)]
        wanted = ops.group_norm(*given[:3], **large | options | {"shift": given[3]})
        return {"group_norm of large groups": (ours, wanted, HALF_TOLERANCE)}

    def scales() -> Pairs:
        ours, wanted = (one.group_scales(frame, *channels[:2], rows=30, **large) for one in (table, plain))
        return each("group_scales", ("scale", "offset"), ours, wanted)

    def scaled() -> Pairs:
        by = tuple(one.float().reshape(1, 1, 1, 1, -1) for one in channels[:2])
        wanted = plain.scaled_silu(frame.float(), *by)
        return {"scaled_silu in half precision": (table.scaled_silu(frame, *by), wanted, HALF_TOLERANCE)}

    def several() -> Pairs:
        ours, wanted = (one(x, layers) for one in (table.linears, ops.linears))
        return each("linears", range(len(layers)), ours, wanted)

    def onto() -> Pairs:
        def end(one: Ops, given: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
            a, b, scale, offset, *layers = given
            into, inner, back, outer = layers
            return one.feed_forward_of_sum(a, b, (scale, offset), (into, inner, back, outer), shift=offset, out=out)

        def half_of(given: Sequence[Tensor], out: Tensor | None = None) -> tuple[Tensor, Tensor, float]:
            halves = [one.half() for one in given]
            return end(table, halves, out), end(plain, [one.float() for one in halves]), HALF_TOLERANCE

        small = x, y, weight, bias, *layer
        part = x.new_empty(1, 3, 9, 7, 64).half()[:, :, 2:7]
        return {
            "feed_forward_onto": (end(table, small), end(plain, small), TOLERANCE),
            "feed_forward_onto in half precision": half_of(small),
            "feed_forward_onto a part": half_of(small, part),
            "feed_forward_onto of many channels": half_of((wider[0], wider[0], *norms[0], *wider[1:])),
            "feed_forward_onto of many tokens": half_of((narrow[0], narrow[0], *norms[1], *narrow[1:])),
        }

    def over_frames() -> Pairs:
        wanted = attention.over_frames(attention.math, *frames)
        return {"frame_attention": (table.attend_over_frames(*frames), wanted, TOLERANCE)}

    return {
        "group_norm": lambda: {**single("group_norm", x, weight, bias, **norm), **of_large_groups()},
        "group_scales": scales,
        "scaled_silu": scaled,
        "layer_norm": lambda: single("layer_norm", x, weight, bias),
        "add": lambda: single("add", x, y, bias),
        "add_layer_norm": lambda: sum_and_norm("add_layer_norm", x, y, weight, bias, shift=weight),
        "shift_layer_norm": lambda: sum_and_norm("shift_layer_norm", x, bias, weight, bias),
        "join": lambda: single("join", x, y[..., :40]),
        "double": lambda: single("double", x, crop=1),
        "conv_spatial": lambda: single("conv_spatial", x, square, bias),
        "conv_temporal": lambda: single("conv_temporal", x, kernel, bias),
        "conv_halved": lambda: single("conv_halved", x, square, bias),
        "conv_doubled": lambda: half("conv_doubled", x, square, bias),
        "feed_forward": lambda: {
            **single("feed_forward", x, *layer),
            **half("feed_forward", x, *layer),
            **half("feed_forward", *wider, what="of many channels"),
            **half("feed_forward", *narrow, what="of many tokens"),
        },
        "attention": lambda: {
            **half("attention", *wide),
            **half("attention", *many, what="of many tokens"),
            **half("attention", *few, what="to a few tokens"),
        },
        "linears": several,
        "linear": with_what_is_lacking,
        **({} if table.feed_forward_onto is None else {"feed_forward_onto": onto}),
        "frame_attention": over_frames,
    }


def _layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer of these weights, for which no random number is drawn."""
    made = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias, requires_grad=False)
    return made
