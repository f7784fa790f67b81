"""What only a CUDA device shows: half precision with a loss scale, batches on a stream of their own, and no waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.stream import batches
from i2vgen_ms.training.data.world import WorldSource
from tests.training import small
from tests.training.test_processes import distance, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = torch.device("cuda", 0)
PRECISION = {"fp16": 0.2, "bf16": 0.2}


def settings(model: Path, output: Path, train: str = "no", **changes):
    numerics = {"train": train, "frozen": train, "fast_kernels": train != "no", "graphs": False}
    given = {"numerics": numerics, "ema": 0.0, "optimiser.epsilon": 1e-2, "log.every": 100}
    return small.settings("small-image-to-video", model, output, **given | changes)


def run(wanted, device: str = "cuda:0", **given) -> dict[str, torch.Tensor]:
    return weights(Trainer(wanted, device=device, progress=False, **given).train())


def test_the_device_goes_the_same_way_as_the_cpu_with_its_random_numbers(first, tmp_path, monkeypatch) -> None:
    def on_the_cpu(self, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.device.initial_seed())
        return torch.randn(shape, generator=generator).to(self.device.device)

    monkeypatch.setattr("i2vgen_ms.training.randomness.Draws.normal", on_the_cpu)
    monkeypatch.setattr("i2vgen_ms.training.randomness.Draws.uniform", lambda self, *shape: _evenly(self, shape))
    made = {device: run(settings(first, tmp_path / device), device) for device in ("cpu", "cuda:0")}
    assert distance(made["cuda:0"], made["cpu"], weights(first)) < 1e-2


def _evenly(draws, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, shape[0], device=draws.device.device)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_goes_about_the_same_way(first, tmp_path, precision: str) -> None:
    made = {name: run(settings(first, tmp_path / name, name)) for name in ("no", precision)}
    assert 1e-6 < distance(made[precision], made["no"], weights(first)) < PRECISION[precision]


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_graphs_change_nothing(first, tmp_path, precision: str) -> None:
    """With pictures in between, gradients of two batches added up, and dropout."""
    made = {}
    for graphs in (False, True):
        wanted = settings(first, tmp_path / str(graphs), precision, length={"steps": 6, "minutes": None})
        for path, value in {
            "numerics.graphs": graphs,
            "clips.pictures_every": 3,
            "batch.accumulation": 2,
        }.items():
            wanted = wanted.replace(path, value)
        made[graphs] = run(wanted)
    # some of CUDA's sums are in no fixed order
    assert distance(made[True], made[False], weights(first)) < (1e-3 if precision == "no" else 5e-2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_run_goes_on_with_its_loss_scale(first, tmp_path, precision: str) -> None:
    rate = {"schedule": "constant", "warm_up": 0.0, "final": 0.0}
    short = settings(
        first, tmp_path / "run", precision, rate=rate, state={"every": 2}, length={"steps": 2, "minutes": None}
    )
    trainer = Trainer(short, device="cuda:0", progress=False)
    trainer.train()
    scale = trainer._processes.scaler_state()
    assert (scale is not None) == (precision == "fp16")
    longer = short.replace("length.steps", 4)
    resumed = Trainer(longer, device="cuda:0", resume=True, progress=False)
    assert resumed._processes.scaler_state() == scale
    together = weights(resumed.train())
    whole = run(longer.replace("output", str(tmp_path / "whole")))
    # some of CUDA's sums are in no fixed order
    assert distance(together, whole, weights(first)) < 1e-2


def test_batches_beside_the_steps_are_those_of_the_cpu() -> None:
    source = WorldSource(seed=0, split="x")
    plans = [source.plan(number, 3, Spec(4, 64, 32, 8)) for number in range(4)]
    for ours, theirs in zip(batches(source, plans, DEVICE), batches(source, plans, torch.device("cpu")), strict=True):
        assert ours.pixels.device == DEVICE
        torch.testing.assert_close(ours.pixels.cpu(), theirs.pixels, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("name", ["small-image-to-video", "small-video-to-video", "small-autoencoder"])
def test_a_step_waits_for_nothing(first, second, tmp_path, name: str) -> None:
    model = second if "video-to-video" in name else first
    numerics = {"train": "bf16", "frozen": "bf16", "fast_kernels": True, "graphs": False}
    wanted = small.settings(name, model, tmp_path / "run", numerics=numerics)
    trainer = Trainer(wanted, device="cuda:0", progress=False)
    source = WorldSource(seed=0, split="x")
    spec = Spec(small.FRAMES, small.WIDTH, small.HEIGHT, 8)
    made = [source.finish(source.prepare(source.plan(number, 2, spec)), DEVICE) for number in range(4)]

    class Silent:
        def skipped(self, files) -> None:
            assert not files

    with trainer._processes.numerics():
        for number, batch in enumerate(made):
            torch.cuda.synchronize()
            if number >= 2:  # the first steps make what is made once
                torch.cuda.set_sync_debug_mode("error")
            try:
                trainer._one_step(iter([batch]), Silent())
                trainer.step += 1
            finally:
                torch.cuda.set_sync_debug_mode("default")
