"""Which operations networks are given, and that fused ones are used only where they work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from i2vgen_ms.runtime import chunked, operations
from i2vgen_ms.runtime.operations import FusedWarning, check, table
from i2vgen_ms.tensors.ops import Ops
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
    check = operations.check
    monkeypatch.setattr(operations, "check", lambda fused, device: check(fused, HERE))


def test_on_the_cpu_they_are_the_plain_ones() -> None:
    assert table(HERE) == Ops()


@pytest.mark.full  # the interpreter takes half a minute
@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter takes the place of the device")
def test_a_network_of_fused_operations_is_the_same_network(here: None) -> None:
    fused = table(CUDA)
    assert fused.group_norm is not chunked.group_norm
    assert fused.frame_attention is not None
    given = inputs()
    given["x"] = given["x"][:, :, :1, :4, :4]  # the interpreter takes its time
    assert relative_error(small_network(fused)(**given), small_network()(**given)) <= 1e-5


@pytest.mark.parametrize(
    "name",
    ["group_norm", "layer_norm", "add", "conv_temporal", "conv_halved", "join", "double", "feed_forward"],
)
def test_what_differs_from_its_definition_is_not_used(here: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    wrong: Any = lambda *given, **options: 1.001 * getattr(Ops(), name)(*given, **options)  # noqa: E731
    monkeypatch.setattr(operations, "_fused", lambda plain: replace(plain, **{name: wrong}))
    with pytest.warns(FusedWarning, match=f"{name} differs from its definition by 1.0e-03"):
        assert table(CUDA).group_norm is chunked.group_norm


@pytest.mark.parametrize("index", [0, 1])
def test_neither_a_wrong_sum_nor_its_wrong_norm_is_used(index: int) -> None:
    def wrong(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(one * (1.001 if i == index else 1) for i, one in enumerate(Ops().add_layer_norm(*given)))

    with pytest.raises(RuntimeError, match="add_layer_norm"):
        check(Ops(add_layer_norm=wrong), HERE)


@pytest.mark.parametrize("name", ["feed_forward", "conv_doubled", "attention"])
def test_half_precision_is_checked_apart(name: str) -> None:
    def wrong(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return getattr(Ops(), name)(x, *others) * (1.01 if x.dtype == torch.float16 else 1)

    with pytest.raises(RuntimeError, match=rf"{name} in half precision .* by 1\.0e-02"):
        check(replace(Ops(), **{name: wrong}), HERE)


def test_what_cannot_be_compiled_is_not_used(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(plain: Ops) -> Ops:
        raise RuntimeError("long words\nFailed to find C compiler")

    monkeypatch.setattr(operations, "_fused", nothing)
    with pytest.warns(FusedWarning, match="not used: Failed to find C compiler"):
        assert table(CUDA).feed_forward is chunked.feed_forward


def test_the_check_sees_what_is_no_number() -> None:
    nan: Any = lambda x, *given, **options: x * float("nan")  # noqa: E731
    with pytest.raises(RuntimeError, match="group_norm"):
        check(Ops(group_norm=nan), HERE)
    check(Ops(), HERE)
