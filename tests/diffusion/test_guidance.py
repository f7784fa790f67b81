from __future__ import annotations

from typing import Any

import pytest
import torch

from i2vgen_ms import errors
from i2vgen_ms.diffusion.guidance import ClassifierFree
from tests.diffusion.cases import Network, conditions, latents, published_stage_1, published_stage_2

T = torch.tensor([300.0, 300.0])


@pytest.mark.parametrize("rescale", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("branches", ["batched", "sequential"])
def test_the_guided_output_equals_the_published(branches: Any, rescale: float) -> None:
    x, (positive, negative) = latents(), conditions()
    theirs = published_stage_2("x0").denoise(
        x, torch.tensor([300, 300]), None, Network(), [positive, negative], guide_scale=7.5, guide_rescale=rescale
    )[-2]
    ours = ClassifierFree(scale=7.5, rescale=rescale, branches=branches)(Network(), x, T, positive, negative)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    if rescale == 0:
        first = published_stage_1("x0").p_mean_variance(
            x, torch.tensor([300, 300]), Network(), [positive, negative], guide_scale=7.5
        )[-1]
        torch.testing.assert_close(ours, first, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rescale", [0.0, 0.2])
def test_batched_equals_sequential(rescale: float) -> None:
    x, (positive, negative) = latents(), conditions()
    batched, sequential = Network(), Network()
    one = ClassifierFree(scale=3.0, rescale=rescale, branches="batched")(batched, x, T, positive, negative)
    two = ClassifierFree(scale=3.0, rescale=rescale, branches="sequential")(sequential, x, T, positive, negative)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert (batched.batches, sequential.batches) == ([4], [2, 2])


def test_full_rescale_restores_the_spread_of_the_positive_branch() -> None:
    x, (positive, negative) = latents(), conditions()
    out = ClassifierFree(scale=7.5, rescale=1.0)(Network(), x, T, positive, negative)
    torch.testing.assert_close(out.flatten(1).std(dim=1), Network()(x, T, **positive).flatten(1).std(dim=1))


@pytest.mark.parametrize("branches", ["batched", "sequential"])
def test_scale_one_runs_the_positive_branch_alone(branches: Any) -> None:
    x, (positive, negative) = latents(), conditions()
    network = Network()
    out = ClassifierFree(scale=1.0, rescale=0.5, branches=branches)(network, x, T, positive, negative)
    assert network.batches == [2]
    torch.testing.assert_close(out, Network()(x, T, **positive), rtol=0, atol=0)


def test_half_precision_outputs_are_guided_in_fp32() -> None:
    x = latents()
    positive, negative = {"y": torch.ones(2)}, {"y": torch.full((2,), 0.999)}

    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (1000 * y.reshape(-1, 1, 1, 1, 1) + 0 * x).half()

    for branches in ("batched", "sequential"):
        out = ClassifierFree(scale=100.0, branches=branches)(network, x, T, positive, negative)  # type: ignore[arg-type]
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, torch.full_like(x, 1099.0), rtol=0, atol=1e-3)


def test_values_that_are_no_tensors_pass_through() -> None:
    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor, text: None, causal: bool) -> torch.Tensor:
        assert text is None
        assert causal is True
        return x * y.reshape(-1, 1, 1, 1, 1)

    x, extra = latents(), {"text": None, "causal": True}
    out = ClassifierFree(scale=2.0)(network, x, T, {"y": torch.ones(2), **extra}, {"y": torch.zeros(2), **extra})
    torch.testing.assert_close(out, 2 * x)


@pytest.mark.parametrize(
    ("positive", "negative", "words"),
    [
        ({"y": torch.ones(2, 3)}, {"y": torch.ones(2, 4)}, r"\(2, 3\) and \(2, 4\).*sequential"),
        ({"y": torch.ones(2)}, {"y": None}, "'y' differs.*sequential"),
        ({"y": 1}, {"y": 2}, "'y' differs.*sequential"),
        ({"y": None}, {"z": None}, r"\['y'\], \['z'\]"),
    ],
)
def test_branches_that_cannot_be_batched_are_refused(positive: dict, negative: dict, words: str) -> None:
    with pytest.raises(errors.ArgumentError, match=words):
        ClassifierFree(scale=2.0)(Network(), latents(), T, positive, negative)


class Shared:
    """The network, which takes several y an item; notes its batches, and with what it was prepared."""

    per_condition = ("y",)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.prepared: list[set[str]] = []

    def prepare(self, **conditions: Any) -> dict[str, Any]:
        self.prepared.append(set(conditions))
        return {"ready": conditions}

    def __call__(self, x: torch.Tensor, t: torch.Tensor, ready: dict[str, Any]) -> torch.Tensor:
        self.batches.append(len(x))
        groups = len(ready["y"]) // len(x)
        return Network()(torch.cat([x] * groups), torch.cat([t] * groups), ready["y"])


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("branches", ["batched", "sequential"])
def test_a_network_that_shares_is_prepared_once_and_sees_each_item_once(branches: Any, scale: float) -> None:
    x, (positive, negative) = latents(), conditions()
    network, guidance = Shared(), ClassifierFree(scale=scale, rescale=0.2, branches=branches)
    guided = guidance.conditioned(network, positive, negative)
    wanted = guidance(Network(), x, T, positive, negative)
    for _ in range(3):
        torch.testing.assert_close(guided(x, T), wanted, rtol=0, atol=1e-6)
    calls = 1 if branches == "batched" or scale == 1 else 2
    assert network.prepared == [{"y"}] * calls
    assert network.batches == [2] * 3 * calls


RATE = torch.full((2,), 8.0)


@pytest.mark.parametrize(("other", "batch"), [(RATE, 2), (RATE.clone(), 4), (None, 2)])
def test_only_what_is_the_same_object_is_shared(other: torch.Tensor | None, batch: int) -> None:
    """Whether two tensors are equal is known to their device alone, and nobody is to wait for it."""
    x, (positive, negative) = latents(), conditions()
    network, guidance = Shared(), ClassifierFree(scale=2.0)
    rate = None if other is None else RATE
    out = guidance(network, x, T, {**positive, "rate": rate}, {**negative, "rate": other})
    assert network.batches == [batch]
    torch.testing.assert_close(out, guidance(Network(), x, T, positive, negative), rtol=0, atol=1e-6)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="rescale"):
        ClassifierFree(scale=2.0, rescale=1.5)
    with pytest.raises(errors.ConfigurationError, match="did you mean 'batched'"):
        ClassifierFree(scale=2.0, branches="batch")  # type: ignore[arg-type]
