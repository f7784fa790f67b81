"""Other measurements beside somebody else's code, tiny: on the CPU, beside diffusers; and the counted numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import counts, cpu, diffusers, samplers
from benchmarks import models as models_of
from benchmarks.theirs import unet
from i2vgen_ms import catalogue
from i2vgen_ms.weights import architecture


def test_a_guided_step_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert cpu.main(["--size", "small", "--threads", "1", "--repeat", "2", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert row["ratio"] == pytest.approx(row["theirs"]["median"] / row["ours"]["median"])
    assert row["gate"]["ok"]
    assert row["gate"]["ours"] > 0  # two implementations, not one twice


def test_without_diffusers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(SystemExit, match="pip install diffusers"):
        diffusers.main(["--size", "small", "--device", "cpu", "--models", str(models)])


def test_the_channels_of_every_convolution_are_last() -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(4, 5, (3, 1, 1)), nn.Linear(5, 6))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert diffusers._channels_last(made) is made
    assert made[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert made[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not made[0].weight.is_contiguous()
    assert not made[1].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_an_unknown_row_beside_diffusers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        diffusers.main(["stage-3"])
    assert "there is no row 'stage-3'; there are stage-1," in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_beside_diffusers(tmp_path: Path, models: Path) -> None:
    pytest.importorskip("diffusers")
    file = tmp_path / "out.json"
    arguments = ["--size", "small", "--device", "cpu", "--repeat", "1", "--models", str(models), "--json", str(file)]
    assert diffusers.main(arguments) == 0
    told = json.loads(file.read_text(encoding="utf-8"))
    assert len(told["rows"]) == 4
    assert "diffusers" in told["versions"]


@pytest.mark.full
def test_a_row_beside_diffusers_alone(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that does nothing in the place of diffusers' own."""

    class Idle(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, encoder_hidden_states: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(sample=x)

    monkeypatch.setattr(diffusers, "network", lambda size, device: Idle())
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(__version__="0"))
    file = tmp_path / "out.json"
    arguments = ["--size", "small", "--device", "cpu", "--repeat", "1", "--models", str(models), "--json", str(file)]
    assert diffusers.main(["stage-1-batch-2", *arguments]) == 0
    (row,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert row["row"].startswith("forward of batch 2, ")


@pytest.mark.full
def test_operations_are_those_that_were_calculated() -> None:
    """Of the full-size networks: TFLOP of one forward, as reckoned layer by layer."""
    found = {one.name: one for one in counts.counts(counts.Device(1e12, 1e12, 1e30))}
    expected = {
        "stage 1, forward of batch 1": 17.19,
        "stage 2, forward of batch 1": 185.8,
        "autoencoder, encode a frame": 4.23,
        "autoencoder, decode a frame": 9.14,
    }
    assert {name: found[name].operations / 1e12 for name in expected} == pytest.approx(expected, rel=2e-3)
    # with bytes for nothing and an operation a picosecond, the floor is the operations
    assert found["stage 1, forward of batch 2"].floor == pytest.approx(2 * 17.19, rel=2e-3)


@pytest.mark.full
@pytest.mark.parametrize("stage", [1, 2])
def test_full_size_is_the_published_size(stage: int) -> None:
    """The published class with our numbers takes exactly the tensors that the model folder's file has."""
    chosen = models_of.configuration(stage, "full")
    with torch.device("meta"):
        theirs = unet(stage, chosen).state_dict()
    built = architecture.build(chosen, "st_unet")
    ours = {
        built.layout.to_published(name): built.layout.to_published_shape(name, tensor).shape
        for name, tensor in built.network.state_dict().items()
    }
    assert ours == {name: tensor.shape for name, tensor in theirs.items()}


@pytest.mark.full
def test_every_sampler_at_every_number_of_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    # From infinite noise and to none every sampler steps alike, so that few steps tell some of them not apart.
    assert samplers.main(["--clips", "2", "--steps", "4", "--device", "cpu", "--json", str(file)]) == 0
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [(row["sampler"], row["steps"]) for row in rows] == [
        (name, steps) for steps in (4,) for name in catalogue.names("samplers")
    ]
    assert all(10 < row["psnr"] < 40 and row["frechet_distance"] > 0 for row in rows)
    assert len({row["psnr"] for row in rows}) > 4, "ddim and euler are one, the others are not"
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)


def test_the_plot_of_samplers_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"sampler": name, "steps": steps, "psnr": 20.0 + steps, "frechet_distance": 100.0 - steps}
        for name in ("ddim", "heun")
        for steps in (5, 10)
    ]
    samplers.plot(tmp_path / "plot.png", rows)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 500
