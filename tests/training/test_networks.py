"""Networks as a run begins with them: new weights, a model's, or those of another folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.tensors.attention import over_frames, sdpa
from i2vgen_ms.training import networks
from tests.training import small

CPU = torch.device("cpu")


def test_new_weights_follow_from_the_seed_and_leave_the_random_state_alone() -> None:
    configuration = small.configuration("image-to-video")
    state = torch.get_rng_state()
    first, again, other = (networks.fresh(configuration, "st_unet", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_a_new_network_says_nothing_and_its_blocks_pass_their_input_on() -> None:
    network = networks.fresh(small.configuration("image-to-video"), "st_unet", 0)
    x = torch.randn(1, 4, 3, 2, 4)
    output = network(x, torch.zeros(1), image=torch.randn(1, 1, 16), fps=torch.ones(1), extra=x)
    assert torch.equal(output, torch.zeros_like(output))
    y = torch.randn(1, 3, 2, 4, 16)
    assert torch.equal(network.stem_temporal(y, None), y)
    block = network.down[0].stages[0]
    embedding, context = torch.randn(1, 64), torch.randn(1, 2, 16)
    assert torch.equal(block(y, embedding, context, None, False), y)
    silent = [name for name, parameter in network.named_parameters() if not parameter.any() and "weight" in name]
    stages = 2 + 1 + 4  # down, middle, up; each ends in four ways
    assert len(silent) == 4 * stages + 2 + 1 + 1, silent  # and the middle's last, the stem's, the head


def test_a_new_text_tower_begins_with_small_vectors() -> None:
    tower = networks.fresh(small.configuration("video-to-video"), "encoder", 0)
    assert 0.015 < float(tower.token_embedding.weight.std()) < 0.025


def test_a_networks_weights_and_description_come_from_the_folder_that_is_named(first: Path, tmp_path: Path) -> None:
    other = small.folder(tmp_path / "other", "image-to-video", autoencoder__scale_factor=0.5)
    configuration, folder = networks.described(str(first))
    sources = {"encoder": "model", "st_unet": "random", "autoencoder": str(other)}
    configuration = networks.with_sources(configuration, sources)
    assert configuration.autoencoder.options["scale_factor"] == 0.5
    built = networks.build(configuration, "autoencoder", source=str(other), folder=folder, seed=0, device=CPU)
    again = networks.build(configuration, "encoder", source="model", folder=folder, seed=0, device=CPU)
    assert built.scale_factor == 0.5
    expected = networks.fresh(configuration, "encoder", 0)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), expected.parameters(), strict=True))
    mapped = Path("/proc/self/maps").read_text()
    assert str(first) not in mapped, "a file that a run began with may be changed while it goes on"


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    configuration, folder = networks.described("small-image-to-video")
    with pytest.raises(ConfigurationError, match=r"weights\.encoder: .*encoder\.safetensors is not there"):
        networks.build(configuration, "encoder", source="model", folder=tmp_path, seed=0, device=CPU)
    with pytest.raises(ConfigurationError, match="no shipped variant 'small-image-to-vidoe'; did you mean"):
        networks.described("small-image-to-vidoe")
    assert folder.name == "small-image-to-video"


@pytest.mark.parametrize("most", [2, 3, 32768])
def test_attention_over_frames_is_the_plain_one_for_all_clips_at_once(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(networks, "_MOST_ROWS", most)
    q, k, v = torch.randn(3, 2, 4, 5, 2, 8).unbind()
    ops = networks.training_ops()
    torch.testing.assert_close(ops.attend_over_frames(q, k, v), over_frames(sdpa, q, k, v))
