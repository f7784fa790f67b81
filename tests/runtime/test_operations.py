"""Which operations networks are given, and that fused ones are used only where they work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from i2vgen_ms.config import reader
from i2vgen_ms.errors import OutOfMemoryError
from i2vgen_ms.pipelines.networks import Loader
from i2vgen_ms.runtime import beforehand, chunked, operations, processor, trial
from i2vgen_ms.runtime.operations import FusedWarning, table
from i2vgen_ms.runtime.residency import Resident
from i2vgen_ms.runtime.trial import failures
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights import architecture
from tests.oracle import relative_error
from tests.runtime.small import HERE, inputs, small_network

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What works is found out once a process."""
    operations._cuda.cache_clear()
    yield
    operations._cuda.cache_clear()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's numbers are the host's, where the kernels run in Triton's interpreter."""
    pytest.importorskip("triton")
    monkeypatch.setattr(trial, "failures", lambda table, device: failures(table, HERE))


def test_on_the_cpu_they_are_the_plain_ones_but_for_products() -> None:
    products = ("feed_forward", "feed_forward_onto", "conv_spatial", "conv_temporal", "conv_doubled")
    assert table(HERE) == Ops(**{name: getattr(processor, name) for name in products})


@pytest.mark.full  # the interpreter takes half a minute
@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter takes the place of the device")
def test_a_network_of_fused_operations_is_the_same_network(here: None) -> None:
    fused = table(CUDA)
    assert fused.group_norm is not chunked.group_norm
    assert fused.frame_attention is not None
    given = inputs()
    given["x"] = given["x"][:, :, :1, :4, :4]  # the interpreter takes its time
    assert relative_error(small_network(fused)(**given), small_network()(**given)) <= 1e-5


@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter takes the place of the device")
@pytest.mark.parametrize(("frames", "own"), [(3, False), (129, True)])
def test_frames_that_the_kernel_does_not_take_have_the_network_s_attention(frames: int, own: bool) -> None:
    pytest.importorskip("triton")
    asked: list[torch.Size] = []

    def chosen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        asked.append(q.shape)
        return attention.math(q, k, v)

    q, k, v = torch.randn(3, 1, frames, 2, 1, 8, generator=torch.Generator().manual_seed(0))
    made = replace(operations.fused_table(Ops()), attention=chosen)  # as the ST-UNet's configuration does it
    wanted = attention.over_frames(attention.math, q, k, v)
    assert relative_error(made.attend_over_frames(q, k, v), wanted) <= 1e-5
    assert asked == ([(2, frames, 1, 8)] if own else [])


NAMES = [
    "group_norm",
    "scaled_silu",
    "layer_norm",
    "add",
    "conv_spatial",
    "conv_temporal",
    "conv_halved",
    "join",
    "double",
    "feed_forward",
]


def wrong(name: str) -> Any:
    return lambda *given, **options: 1.001 * getattr(Ops(), name)(*given, **options)


@pytest.mark.parametrize("which", [0, 1])
def test_scales_of_a_norm_that_are_wrong_are_not_used(here: None, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    def scales(*given: Any, **options: Any) -> tuple[torch.Tensor, ...]:
        made = list(Ops().group_scales(*given, **options))
        made[which] = made[which] * 1.001
        return tuple(made)

    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, group_scales=scales))
    with pytest.warns(FusedWarning, match=r"^1 fused .* group_scales \((scale|offset)\) differs"):
        assert table(CUDA).group_scales is Ops().group_scales


def test_a_norm_that_is_wrong_for_large_groups_alone_is_not_used(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(x: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        return Ops().group_norm(x, *given, **options) * (1 if x.numel() < 2**18 else 1.002)

    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, group_norm=norm))
    with pytest.warns(FusedWarning, match="group_norm of large groups differs from its definition by"):
        assert table(CUDA).group_norm is chunked.group_norm


@pytest.mark.parametrize("name", NAMES)
def test_what_differs_from_its_definition_is_not_used_and_the_others_are(
    here: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other: Any = lambda *given, **options: Ops().join(*given, **options)  # noqa: E731
    changed = {"join": other, name: wrong(name)}
    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, **changed))
    with pytest.warns(FusedWarning, match=f"^1 fused .* {name} .*differs from its definition by 1.0e-03$"):
        made = table(CUDA)
    assert getattr(made, name) is not changed[name]
    assert name == "join" or made.join is other


def test_what_raises_is_not_used_and_all_that_fail_are_named(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any, **options: Any) -> torch.Tensor:
        raise ValueError("many words\nno such instruction")

    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, add=broken, double=wrong("double")))
    with pytest.warns(FusedWarning, match="^2 fused .*add: no such instruction; double differs"):
        assert table(CUDA).add is Ops().add


def test_where_gluon_is_not_the_other_kernels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from i2vgen_ms.runtime import kernels

    monkeypatch.delattr(kernels, "long_attention", raising=False)
    monkeypatch.setitem(sys.modules, "i2vgen_ms.runtime.kernels.long_attention", None)
    with pytest.warns(FusedWarning, match="attention of many tokens has no kernel of its own: import of"):
        made = operations.fused_table(Ops())
    assert made.group_norm is not Ops().group_norm
    q, k, v = torch.randn(3, 1, 5, 1, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.attention(q, k, v), attention.sdpa(q, k, v))


@pytest.mark.parametrize("broken", [False, True])
def test_less_memory_is_reckoned_with_where_all_of_them_work(
    here: None, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    made = operations.fused_table(Ops())
    assert made.peak < Ops.peak
    add = wrong("add") if broken else Ops().add
    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, peak=made.peak, add=add))
    with pytest.warns(FusedWarning) if broken else nullcontext():
        assert table(CUDA).peak == (Ops.peak if broken else made.peak)


@pytest.mark.parametrize(
    ("latents", "itemsize", "measured"),
    [  # `b c f h w`; what the tensors of a forward of the published network were counted to take at the most, in GiB
        ((2, 4, 32, 90, 160), 2, 3.57),
        ((1, 4, 32, 90, 160), 2, 2.09),
        ((1, 4, 16, 90, 160), 2, 1.34),
        ((1, 4, 8, 90, 160), 2, 0.89),
        ((2, 4, 32, 32, 56), 2, 0.86),
        ((1, 4, 32, 32, 56), 2, 0.58),
        ((1, 4, 32, 90, 160), 4, 4.04),
        ((1, 4, 8, 90, 160), 4, 1.85),
        ((2, 4, 32, 32, 56), 4, 1.75),
    ],
)
def test_the_memory_that_is_reckoned_with_is_enough(latents: tuple[int, ...], itemsize: int, measured: float) -> None:
    b, _, f, h, w = latents
    reckoned = operations.fused_table(Ops()).activation_bytes(b * f * h * w * 320 * itemsize, itemsize) / 2**30
    assert measured <= reckoned <= 1.2 * measured


@pytest.mark.parametrize(
    ("latents", "measured"),
    [  # as above, with two conditions
        ((1, 4, 32, 90, 160), 2.65),
        ((1, 4, 32, 32, 56), 0.86),
    ],
)
def test_the_memory_of_two_conditions_is_enough(latents: tuple[int, ...], measured: float) -> None:
    configuration = reader.shipped("video-to-video")
    table = operations.fused_table(operations.IN_PARTS)
    network: Any = architecture.build(configuration, "st_unet", table).network.half()
    assert measured <= network.activation_bytes(latents, 2) / 2**30 <= 1.2 * measured


@pytest.mark.parametrize("name", ["add_layer_norm", "shift_layer_norm"])
@pytest.mark.parametrize("index", [0, 1])
def test_neither_a_wrong_sum_nor_its_wrong_norm_is_used(name: str, index: int) -> None:
    def sum_and_norm(*given: torch.Tensor, **options: Any) -> tuple[torch.Tensor, ...]:
        made = getattr(Ops(), name)(*given, **options)
        return tuple(one * (1.001 if i == index else 1) for i, one in enumerate(made))

    assert list(failures(replace(Ops(), **{name: sum_and_norm}), HERE)) == [name]


def test_a_sum_without_what_is_lacking_is_not_used() -> None:
    def sum_and_norm(*given: torch.Tensor, shift: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        return Ops().add_layer_norm(*given)

    assert list(failures(Ops(add_layer_norm=sum_and_norm), HERE)) == ["add_layer_norm"]


@pytest.mark.parametrize("tokens", [3 * 5 * 7, 40, 2**14])
def test_the_end_of_a_block_is_tried_for_each_kernel_that_its_gate_has(tokens: int) -> None:
    """With one that is wrong for so many tokens; and what y lacks is not forgotten."""

    def onto(x: torch.Tensor, y: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        wrong_here = abs(x[..., 0].numel() / tokens - 1) < 0.1
        return Ops().feed_forward_of_sum(x, y, *others, **options) * (1.01 if wrong_here else 1)

    def forgetful(x: torch.Tensor, y: torch.Tensor, *others: Any, shift: Any, **options: Any) -> torch.Tensor:
        return Ops().feed_forward_of_sum(x, y, *others, **options)

    for wrong_one in (onto, forgetful):
        assert list(failures(Ops(feed_forward_onto=wrong_one), HERE)) == ["feed_forward_onto"]


def test_what_is_lacking_is_neither_forgotten_nor_added_twice() -> None:
    def forgotten(x: torch.Tensor, layer: torch.nn.Linear) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.linear(x, layer.weight), None

    def twice(x: torch.Tensor, layer: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
        return layer(x), layer.bias

    for wrong_one in (forgotten, twice):
        assert list(failures(Ops(linear=wrong_one), HERE)) == ["linear"]


@pytest.mark.parametrize("name", ["feed_forward", "conv_doubled", "attention"])
def test_half_precision_is_checked_apart(name: str) -> None:
    def coarse(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return getattr(Ops(), name)(x, *others) * (1.01 if x.dtype == torch.float16 else 1)

    (words,) = failures(replace(Ops(), **{name: coarse}), HERE).values()
    assert words == f"{name} in half precision differs from its definition by 1.0e-02"


def test_a_passing_shortage_switches_nothing_off(
    here: None, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    short = [True]

    def add(*given: Any, **options: Any) -> torch.Tensor:
        if short and short.pop():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
        return Ops().add(*given, **options)

    monkeypatch.setattr(operations, "fused_table", lambda plain: replace(plain, add=add))
    with pytest.raises(torch.OutOfMemoryError):
        table(CUDA)
    assert table(CUDA).add is add
    assert not [one for one in recwarn if one.category is FusedWarning]


def test_a_shortage_while_operations_are_tried_ends_in_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def short(device: torch.device) -> Ops:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(operations, "table", short)
    loader = Loader(reader.shipped("video-to-video"), tmp_path, HERE, cache=False)
    with pytest.raises(OutOfMemoryError, match="while trying the operations; lower the memory mode"):
        loader.networks({"encoder": "float32", "st_unet": "float32", "autoencoder": "float32"})


def test_kernels_are_compiled_before_they_are_tried_where_networks_are_new(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[Any] = []
    dtypes, other = dict.fromkeys(("encoder", "st_unet", "autoencoder"), "float16"), {"autoencoder": "bfloat16"}
    monkeypatch.setattr(beforehand, "compile_kernels", lambda _, dtypes, device: done.append((dtypes, device)))
    monkeypatch.setattr(operations, "table", lambda device: done.append("trial") or Ops())
    monkeypatch.setattr(Loader, "_load", lambda self, name, *_: Resident(torch.nn.Linear(1, 1), HERE, movable=False))
    monkeypatch.setattr(Loader, "_place", lambda *_: HERE)
    loader = Loader(reader.shipped("video-to-video"), tmp_path, CUDA, cache=False)
    for chosen in (dtypes, dtypes, dtypes | other):
        loader.networks(chosen)
    assert done == [(dtypes, CUDA), "trial", "trial", (dtypes | other, CUDA), "trial"]
    done.clear()
    Loader(reader.shipped("video-to-video"), tmp_path, HERE, cache=False).networks(dtypes)
    assert done == ["trial"]


@pytest.mark.parametrize("chosen", ["tf32", "ieee"])
def test_definitions_are_not_computed_with_tf32(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    products, seen = torch.backends.cuda.matmul, list[str]()

    def add(*given: Any, **options: Any) -> torch.Tensor:
        seen.append(products.fp32_precision)
        return Ops().add(*given, **options)

    before = products.fp32_precision
    try:
        products.fp32_precision = chosen
        assert not failures(Ops(add=add), HERE)
        assert products.fp32_precision == chosen
    finally:
        products.fp32_precision = before
    assert seen == ["ieee"]


def test_what_cannot_be_compiled_is_not_used(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(plain: Ops) -> Ops:
        raise RuntimeError("long words\nFailed to find C compiler")

    monkeypatch.setattr(operations, "fused_table", nothing)
    with pytest.warns(FusedWarning, match="not used: Failed to find C compiler"):
        assert table(CUDA).feed_forward is chunked.feed_forward


def test_the_trial_sees_what_is_no_number() -> None:
    nan: Any = lambda x, *given, **options: x * float("nan")  # noqa: E731
    assert list(failures(Ops(group_norm=nan), HERE)) == ["group_norm"]
    assert not failures(Ops(), HERE)
