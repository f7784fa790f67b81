"""A run whose numbers are none any more ends, and leaves what it can go on from."""

from __future__ import annotations

import math

import pytest
import torch

from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.training import Trainer, state
from i2vgen_ms.training.data.batch import Batch
from i2vgen_ms.training.data.world import WorldSource
from i2vgen_ms.training.folder import STATE
from i2vgen_ms.weights.checkpoint import open_checkpoint
from tests.training import small


class Broken(WorldSource):
    """Clips that hold no numbers from a batch on."""

    def __init__(self, first: int) -> None:
        super().__init__(seed=0, split="train")
        self._first = first

    def finish(self, prepared, device) -> Batch:
        batch = super().finish(prepared, device)
        self._first -= 1
        if self._first < 0:
            batch.pixels.fill_(math.nan)
        return batch


def test_a_loss_that_is_no_number_stops_the_run(first, tmp_path) -> None:
    settings = small.settings("small-image-to-video", first, tmp_path / "run")
    with pytest.raises(NonFiniteError, match="the loss is nan at step 1"):
        Trainer(settings, device="cpu", progress=False, source=Broken(0)).train()
    assert not (tmp_path / "run" / "model").exists()


def test_the_state_on_disk_stays_one_to_go_on_from(first, tmp_path) -> None:
    given = {"state.every": 1, "log.every": 100, "ema": 0.0}
    settings = small.settings("small-image-to-video", first, tmp_path / "run", **given)
    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 3; .* the state that was written last"):
        Trainer(settings, device="cpu", progress=False, source=Broken(2)).train()
    file = tmp_path / "run" / STATE
    assert state.numbers_of(file)["step"] == 2
    assert all(torch.isfinite(record.load()).all() for _, record in open_checkpoint(file).items())
    trainer = Trainer(settings, device="cpu", resume=True)
    next(iter(trainer._parameters.values())).data.view(-1)[0] = math.inf  # the losses so far were numbers
    with pytest.raises(NonFiniteError, match="the weights' norm is inf at step 2"):
        trainer.save()
    assert state.numbers_of(file)["step"] == 2
