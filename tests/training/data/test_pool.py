"""A pool of clips: the clips of its source, as latents, drawn anew for each batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data import pool as pools
from i2vgen_ms.training.data.batch import Batch, Spec
from i2vgen_ms.training.data.pool import Pool
from i2vgen_ms.training.data.world import WorldSource
from tests.training import small

CPU = torch.device("cpu")
CLIPS, STILLS = Spec(2, 16, 8, 8), Spec(1, 16, 8, 8, still=True)


def moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """As an autoencoder of factor 1 would have them."""
    return pixels / 2, pixels / 4


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(pools, "MADE_AT_ONCE", 4)
    made = Pool(WorldSource(seed=0, split="x"), 10, seed=3)
    made.fill([CLIPS, STILLS], moments, CPU)
    return made


def batch(pool: Pool, number: int, count: int, spec: Spec = CLIPS) -> tuple[tuple[int, ...], Batch]:
    plan = pool.plan(number, count, spec)
    return plan.indices, pool.finish(pool.prepare(plan), CPU)


@pytest.mark.parametrize("spec", [CLIPS, STILLS])
def test_a_batch_is_the_clips_of_the_source_as_latents(pool: Pool, spec: Spec) -> None:
    world = WorldSource(seed=0, split="x")
    truth = world.finish(world.prepare(world.plan(0, 10, spec)), CPU)
    indices, made = batch(pool, 5, 6, spec)
    rows = list(indices)
    assert made.pixels is None
    assert made.moments is not None
    torch.testing.assert_close(made.moments[0], truth.pixels[rows] / 2, rtol=0, atol=1e-3)
    torch.testing.assert_close(made.moments[1], truth.pixels[rows] / 4, rtol=0, atol=1e-3)
    torch.testing.assert_close(made.first, truth.first[rows], rtol=0, atol=1 / 127)
    assert made.captions == tuple(truth.captions[row] for row in rows)
    assert made.fps.tolist() == [8.0] * 6
    assert made.still is spec.still


def test_batches_differ_and_come_again_and_hold_no_clip_twice(pool: Pool) -> None:
    drawn = [pool.plan(number, 8, CLIPS).indices for number in range(6)]
    assert len(set(drawn)) == 6
    assert all(len(set(indices)) == 8 for indices in drawn)
    assert {index for indices in drawn for index in indices} == set(range(10))
    assert pool.plan(2, 8, CLIPS).indices == drawn[2]
    assert len(pool.plan(0, 30, CLIPS).indices) == 30, "more than there are"


def test_a_run_on_a_pool_learns(first, tmp_path) -> None:
    world = {"kind": "world", "seed": 1, "split": "train", "scenes": None, "shapes": None, "pairs": None}
    data = world | {"cameras": None, "pool": 6, "workers": 0}
    clips = {"frames": [small.FRAMES], "fps": [8], "sizes": [[small.WIDTH, small.HEIGHT]], "pictures_every": 3}
    wanted = small.settings("small-image-to-video", first, tmp_path / "run", data=data, clips=clips)
    assert (Trainer(wanted, device="cpu", progress=False).train() / "st_unet.safetensors").exists()
    assert all(row["loss"] > 0 for row in small.log(tmp_path / "run"))


def test_only_what_is_trained_on_latents_has_a_pool(first, second, tmp_path) -> None:
    spoilt = small.settings("small-video-to-video", second, tmp_path, **{"data.pool": 4})
    with pytest.raises(ConfigurationError, match=r"data\.pool: clips are spoilt as pixels"):
        Trainer(spoilt, device="cpu")
    autoencoder = small.settings("small-autoencoder", first, tmp_path, **{"data.pool": 4})
    with pytest.raises(ConfigurationError, match=r"data\.pool: only the ST-UNet"):
        Trainer(autoencoder, device="cpu", progress=False).train()
