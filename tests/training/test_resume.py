"""A run that was killed goes on to the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from i2vgen_ms.errors import CheckpointError, ConfigurationError, MismatchedCheckpointError
from i2vgen_ms.training import Trainer, state
from i2vgen_ms.training.folder import STATE
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.training import small

ROOT = Path(__file__).resolve().parents[2]
STEPS, EVERY = 9, 2
CLIPS = {"frames": [2, 3], "fps": [4, 8], "sizes": [[32, 16]], "pictures_every": 3}


def wanted(model: Path, output: Path, **changes):
    """Everything that has a memory: dropout, the average, pictures between clips, mixed lengths, two batches a step."""
    given = {
        "clips": CLIPS,
        "batch": {"clips": 2, "pictures": 2, "accumulation": 2},
        "length": {"steps": STEPS, "minutes": None},
        "state": {"every": EVERY},
        "ema": 0.9,
    }
    return small.settings("small-image-to-video", model, output, **given | changes)


def tensors(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "model").iterdir() if path.suffix == ".safetensors"}


class Stop(Exception):
    pass


def stopped(settings, after: int) -> None:
    """A run that ends with an exception in the step after so many."""
    trainer = Trainer(settings, device="cpu", progress=False)
    step = trainer._one_step

    def failing(clips, report):
        if trainer.step == after:
            raise Stop
        return step(clips, report)

    trainer._one_step = failing
    with pytest.raises(Stop):
        trainer.train()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("model") / "m", "image-to-video", st_unet__dropout=0.2)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    Trainer(wanted(model, output), device="cpu", progress=False).train()
    return output


@pytest.mark.parametrize("after", [3, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(model, whole, tmp_path, after: int) -> None:
    settings = wanted(model, tmp_path / "run")
    stopped(settings, after)
    assert not (tmp_path / "run" / "model").exists()
    trainer = Trainer(settings, device="cpu", resume=True, progress=False)
    assert trainer.step == after - after % EVERY
    trainer.train()
    assert tensors(tmp_path / "run") == tensors(whole)
    ours, theirs = open_checkpoint(tmp_path / "run" / STATE), open_checkpoint(whole / STATE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].load(), theirs[name].load()) for name in ours)
    losses = [(entry["step"], entry["loss"]) for entry in small.log(tmp_path / "run")]
    assert losses == [(entry["step"], entry["loss"]) for entry in small.log(whole)], "no step is told twice"


@pytest.mark.full
def test_a_run_that_was_killed_goes_on_to_the_same_bits(model, whole, tmp_path) -> None:
    settings = wanted(model, tmp_path / "run")
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_json()))
    command = [sys.executable, "-m", "tests.training.runner", str(tmp_path / "settings.json")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    file = tmp_path / "run" / STATE
    while process.poll() is None and not (file.exists() and state.numbers_of(file)["step"] >= 4):
        time.sleep(0.01)
    assert process.poll() is None, "it was over before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "model").exists()
    subprocess.run([*command, "resume"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert tensors(tmp_path / "run") == tensors(whole)


def test_a_finished_run_can_be_made_longer(model, whole, tmp_path) -> None:
    output = tmp_path / "run"
    constant = {"rate": {"schedule": "constant", "warm_up": 0.0, "final": 0.0}}
    Trainer(wanted(model, output, **constant, length={"steps": 4, "minutes": None}), device="cpu").train()
    longer = wanted(model, output, **constant)
    trainer = Trainer(longer, device="cpu", resume=True, progress=False)
    assert trainer.step == 4
    trainer.train()
    Trainer(wanted(model, tmp_path / "other", **constant), device="cpu", progress=False).train()
    assert tensors(output) == tensors(tmp_path / "other")


def test_resuming_where_nothing_is_begins(model, tmp_path) -> None:
    trainer = Trainer(wanted(model, tmp_path / "run"), device="cpu", resume=True)
    assert trainer.step == 0


def test_what_must_not_change_is_named(model, whole) -> None:
    changed = wanted(model, whole, seed=5, optimiser__learning_rate=0.5)
    with pytest.raises(ConfigurationError, match="settings: seed, optimiser: changed since the run"):
        Trainer(changed, device="cpu", resume=True)


def test_a_state_of_another_network_or_no_state_at_all(model, whole, first, tmp_path) -> None:
    trainer = Trainer(wanted(model, tmp_path / "run", ema=0.0), device="cpu")
    before = {name: value.detach().clone() for name, value in trainer._parameters.items()}
    with pytest.raises(MismatchedCheckpointError, match=r"state of another run .* such as average\."):
        state.restore(whole / STATE, trainer._parameters, None, trainer._optimiser)
    assert all((before[name] == value).all() for name, value in trainer._parameters.items())
    with pytest.raises(CheckpointError, match="is not the state of a run"):
        state.numbers_of(model / "st_unet.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((whole / STATE).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        state.numbers_of(damaged)


def test_the_clock_goes_on_with_the_run(model, tmp_path) -> None:
    settings = wanted(model, tmp_path / "run", length={"steps": None, "minutes": 100.0})
    stopped(settings, 3)
    file = tmp_path / "run" / STATE
    seconds = state.numbers_of(file)["seconds"]
    trainer = Trainer(settings, device="cpu", resume=True, progress=False)
    assert trainer._clock.seconds() > seconds > 0
