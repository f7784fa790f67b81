"""Several processes, number formats, and blocks that are computed again: other ways to the same steps."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training import Trainer, checkpointing
from i2vgen_ms.training.processes import Processes
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.training import small

ROOT = Path(__file__).resolve().parents[2]


def weights(made: Path) -> dict[str, torch.Tensor]:
    checkpoint = open_checkpoint(made / "st_unet.safetensors")
    return {name: record.load().clone() for name, record in checkpoint.items()}


def run(settings) -> dict[str, torch.Tensor]:
    return weights(Trainer(settings, device="cpu", progress=False).train())


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], begin: dict[str, torch.Tensor]) -> float:
    """How far two runs are apart, in lengths of the way that one of them went."""
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    way = sum(float((ours[name] - begin[name]).square().sum()) for name in ours)
    return float((apart / way) ** 0.5)


@pytest.mark.full
@pytest.mark.parametrize("pictures_every", [0, 2])
def test_two_processes_are_one_with_twice_the_accumulation(first, tmp_path, pictures_every: int) -> None:
    given = {
        "length": {"steps": 3, "minutes": None},
        "clips": {"frames": [2, 3], "fps": [8], "sizes": [[32, 16]], "pictures_every": pictures_every},
        # large steps are those of the gradient's sign, which is not the same for a gradient of about 0
        "optimiser.epsilon": 1e-4,
        "ema": 0.0,
    }
    one = small.settings(
        "small-image-to-video", first, tmp_path / "one", **given, batch={"clips": 2, "pictures": 2, "accumulation": 4}
    )
    alone = run(one)
    two = small.settings(
        "small-image-to-video", first, tmp_path / "two", **given, batch={"clips": 2, "pictures": 2, "accumulation": 2}
    )
    (tmp_path / "two.json").write_text(json.dumps(two.to_json()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "tests.training.runner", str(tmp_path / "two.json")]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    together = weights(tmp_path / "two" / "model")
    assert distance(together, alone, weights(first)) < 1e-4
    losses = [small.log(tmp_path / name)[-1]["gradient"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("kind", ["torch", "fairscale"])
def test_blocks_that_are_computed_again_give_the_same_gradients(first, tmp_path, kind: str) -> None:
    if kind == "fairscale":
        # A module that the stand-in of tests/oracle.py does not have.
        pytest.importorskip("fairscale.nn.checkpoint.checkpoint_activations", reason="fairscale is optional")
    made = {}
    for name in ("none", kind):
        settings = small.settings(
            "small-image-to-video", first, tmp_path / name, checkpointing=name, length={"steps": 2, "minutes": None}
        )
        trainer = Trainer(settings, device="cpu", progress=False)
        calls = []
        block = next(iter(trainer.task.network.blocks()))
        inner = block.residual.forward
        block.residual.forward = lambda *given, inner=inner, calls=calls: calls.append(1) or inner(*given)
        made[name] = weights(trainer.train())
        assert len(calls) == (2 if name == "none" else 4), "forward, and once more on the way back"
    assert distance(made[kind], made["none"], weights(first)) < 1e-5


def test_fairscale_on_several_processes_with_pictures_is_refused(first, tmp_path, monkeypatch) -> None:
    class Two(Processes):
        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named)
            self.count = 2

    monkeypatch.setattr("i2vgen_ms.training.loop.Processes", Two)
    clips = {"frames": [2], "fps": [8], "sizes": [[32, 16]], "pictures_every": 8}
    settings = small.settings("small-image-to-video", first, tmp_path, checkpointing="fairscale", clips=clips)
    with pytest.raises(ConfigurationError, match=r"give checkpointing 'torch', or clips\.pictures_every 0"):
        Trainer(settings, device="cpu")
    Trainer(settings.replace("checkpointing", "torch"), device="cpu")


def test_a_network_that_does_not_say_what_its_blocks_are(first) -> None:
    with pytest.raises(ConfigurationError, match=r"Linear has no method blocks\(\)"):
        checkpointing.apply(torch.nn.Linear(2, 2), "torch")
    checkpointing.apply(torch.nn.Linear(2, 2), "none")


def test_bfloat16_goes_about_the_same_way(first, tmp_path) -> None:
    begin, made = weights(first), {}
    for name in ("no", "bf16"):
        numerics = {"train": name, "frozen": name, "fast_kernels": True, "graphs": False}
        settings = small.settings(
            "small-image-to-video", first, tmp_path / name, numerics=numerics, ema=0.0, **{"optimiser.epsilon": 1e-2}
        )
        made[name] = run(settings)
    assert all(tensor.dtype == torch.float32 for tensor in made["bf16"].values())
    assert 1e-5 < distance(made["bf16"], made["no"], begin) < 0.2
    assert not torch.is_autocast_enabled("cpu")


def test_a_number_format_that_the_cpu_has_not(first, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"numerics\.train: 'fp16' needs a CUDA device"):
        run(small.settings("small-image-to-video", first, tmp_path, numerics={**small.NUMBERS, "train": "fp16"}))


def test_the_process_keeps_its_random_state_and_its_precision(first, tmp_path) -> None:
    state, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    run(small.settings("small-image-to-video", first, tmp_path / "run"))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == precision
