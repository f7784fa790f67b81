"""Adapters: trained beside the network, written in peft's format, merged without peft."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from i2vgen_ms.errors import CheckpointError, ConfigurationError
from i2vgen_ms.training import Trainer, lora, networks
from i2vgen_ms.training.sections import Lora
from i2vgen_ms.weights import lora as adapters
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.training import small

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["to_q", "to_k", "to_v", "to_out"]}


def network(model: Path):
    configuration, folder = networks.described(str(model))
    return networks.build(
        configuration, "st_unet", source="model", folder=folder, seed=0, device=torch.device("cpu")
    ).eval()


def output(network, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 3, 2, 4, generator=generator)
    with torch.no_grad():
        image = torch.randn(1, 1, 16, generator=generator)
        return network(x, torch.full((1,), 500.0), image=image, fps=torch.full((1,), 8.0), extra=x)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose blocks and head do something, as a trained one's do."""
    folder = small.folder(tmp_path_factory.mktemp("lora") / "model", "image-to-video")
    net = network(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    from i2vgen_ms.training.export import write_tensors

    (folder / "st_unet.safetensors").unlink()
    metadata = {"format": "i2vgen-ms/1", "part": "st_unet"}
    write_tensors(folder / "st_unet.safetensors", net.state_dict(), torch.float32, metadata)
    return folder


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A run of adapters, and their folder."""
    settings = small.settings(
        "small-image-to-video",
        model,
        tmp_path_factory.mktemp("run") / "run",
        lora=LORA,
        ema=0.5,
        **{"optimiser.learning_rate": 0.05},
    )
    trainer = Trainer(settings, device="cpu", progress=False)
    return trainer, trainer.train()


def test_only_the_adapters_are_trained_and_every_one_is(trained, model) -> None:
    trainer, folder = trained
    names = list(trainer.task.parameters())
    assert all(".lora_" in name for name in names)
    moved = [name for name, value in trainer.task.parameters().items() if name.endswith("lora_B.default.weight")]
    assert all(trainer.task.parameters()[name].any() for name in moved), "each of them has a gradient"
    base = {name.replace(".base_layer", ""): value for name, value in trainer.task.network.named_parameters()}
    for name, record in open_checkpoint(model / "st_unet.safetensors").items():
        assert torch.equal(base[name], record.load()), name
    layers = {name.removesuffix(".lora_B.default.weight").rpartition(".")[2] for name in moved}
    assert layers == set(LORA["targets"])
    assert len(moved) == 4 * 2 * (2 * 7 + 1), "two attentions in each of 7 stages, twice, and in the stem"
    assert folder.name == "lora"
    assert sorted(path.name for path in folder.iterdir()) == [adapters.CONFIG, adapters.WEIGHTS]


def test_merging_gives_what_the_network_with_adapters_gave(trained, model) -> None:
    trainer, folder = trained
    with trainer.task.evaluation(trainer.average):
        expected = output(trainer.task.network)
    merged, plain = network(model), network(model)
    assert adapters.merge_into(merged, folder) == 4 * 2 * 15
    torch.testing.assert_close(output(merged), expected, rtol=1e-4, atol=1e-5)
    assert float((output(plain) - expected).abs().max()) > 0.01
    half, twice = network(model), network(model)
    adapters.merge_into(half, folder / adapters.WEIGHTS, 0.5)
    name = next(iter(adapters.read(folder).pairs))
    weights = [dict(net.named_modules())[name].weight for net in (plain, half, merged)]
    torch.testing.assert_close(weights[1], (weights[0] + weights[2]) / 2, rtol=1e-5, atol=1e-6)
    adapters.merge_into(twice, folder, 1.5)
    adapters.merge_into(twice, folder, -1.5)
    torch.testing.assert_close(output(twice), output(plain), rtol=1e-4, atol=1e-5)


def test_peft_reads_them_too(trained, model) -> None:
    from peft import PeftModel

    trainer, folder = trained
    with trainer.task.evaluation(trainer.average):
        expected = output(trainer.task.network)
    wrapped = PeftModel.from_pretrained(network(model), str(folder))
    torch.testing.assert_close(output(wrapped), expected, rtol=1e-4, atol=1e-5)


def test_reading_and_merging_imports_neither_peft_nor_training(trained) -> None:
    code = f"""
import sys
from i2vgen_ms.weights import lora
lora.read({str(trained[1])!r})
assert not {{"peft", "accelerate", "i2vgen_ms.training"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_file_alone_is_enough(trained, model, tmp_path) -> None:
    alone = tmp_path / "mine.safetensors"
    alone.write_bytes((trained[1] / adapters.WEIGHTS).read_bytes())
    assert adapters.read(alone).factor == 2.0
    assert adapters.merge_into(network(model), alone) == 120


def test_weights_that_are_no_adapters_are_refused(model) -> None:
    (model / adapters.CONFIG).write_text('{"r": 4, "lora_alpha": 4}')
    with pytest.raises(CheckpointError, match="is no weight of a low-rank adapter"):
        adapters.read(model / "st_unet.safetensors")
    (model / adapters.CONFIG).unlink()


def test_targets_that_no_layer_has_are_named(model) -> None:
    with pytest.raises(ConfigurationError, match=r"no linear layer of this network is called \['to_qkv'\]"):
        lora.inject(network(model), Lora(rank=2, alpha=2, dropout=0.0, targets=["to_qkv"]))
    with pytest.raises(ConfigurationError, match="no linear layer of this network is called"):
        lora.inject(torch.nn.ModuleDict({"to_q": torch.nn.LayerNorm(2)}), Lora.model_validate(LORA))
    with pytest.raises(ConfigurationError, match=r"lora\.targets\.0: .*project_in"):
        small.settings("small-image-to-video", model, Path("x"), lora={**LORA, "targets": ["project_in"]})


def test_a_run_of_adapters_goes_on_after_it_was_stopped(model, trained, tmp_path) -> None:
    settings = trained[0].settings.replace("output", str(tmp_path / "run")).replace("state.every", 2)
    short = settings.replace("length.steps", 2).replace("rate.schedule", "constant").replace("rate.warm_up", 0.0)
    Trainer(short, device="cpu", progress=False).train()
    longer = short.replace("length.steps", 4)
    resumed = Trainer(longer, device="cpu", resume=True, progress=False).train()
    whole = Trainer(longer.replace("output", str(tmp_path / "whole")), device="cpu", progress=False).train()
    assert (resumed / adapters.WEIGHTS).read_bytes() == (whole / adapters.WEIGHTS).read_bytes()


def test_adapters_of_a_network_that_knows_nothing_are_refused(model, tmp_path) -> None:
    weights = {"encoder": "model", "st_unet": "random", "autoencoder": "model"}
    settings = small.settings("small-image-to-video", model, tmp_path, lora=LORA, weights=weights)
    with pytest.raises(ConfigurationError, match=r"lora: .* is 'random'; give weights\.st_unet 'model'"):
        Trainer(settings, device="cpu")
