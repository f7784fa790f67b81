"""Model folders of video-to-video: the published tensors' names and shapes, `check`, there and back by `convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from i2vgen_ms.config.overlay import ConfigurationWarning
from i2vgen_ms.config.reader import read, shipped
from i2vgen_ms.random_model import make_random_model
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.check import check
from i2vgen_ms.weights.convert import convert
from tests.oracle import published

UNET = {
    **{"dim": 32, "dim_mult": [1, 1], "num_res_blocks": 1, "head_dim": 32, "num_heads": 1, "attn_scales": [0.5]},
    "context_dim": 32,
}
TOWER = {"embed_dim": 8, "quick_gelu": True, "text_cfg": {"width": 32, "heads": 2, "layers": 2}}
SMALL = {"UNet": UNET, "embedder": {"layer": "last", "arch": TOWER}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_model(tmp_path_factory.mktemp("models") / "original", SMALL, task="video-to-video")


@pytest.mark.full
def test_the_shipped_numbers_describe_the_published_network() -> None:
    with torch.device("meta"):
        theirs = published("video_to_video.modules.unet_v2v").Vid2VidSDUNet()
    built = architecture.build(shipped("video-to-video"), "st_unet")
    shapes = {
        built.layout.to_published(name): tuple(built.layout.to_published_shape(name, tensor).shape)
        for name, tensor in built.network.state_dict().items()
    }
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    parameters = sum(parameter.numel() for parameter in built.network.parameters())
    assert round(parameters / 1e6, 2) == 1411.23
    assert all(built.layout.to_ours(name) in built.network.state_dict() for name in shapes)


def test_check_reads_the_text_tower(original: Path, tmp_path: Path) -> None:
    report = check(original)
    assert report.ok, str(report)
    assert "task video-to-video" in str(report)
    folder = convert(original, tmp_path / "broken", layout="modelscope")
    file = folder / read(folder).weights.encoder
    state = torch.load(file)
    assert "transformer.resblocks.1.mlp.c_fc.weight" in state, "the layer 'last' needs the last block"
    del state["ln_final.bias"]
    state["token_embedding.weight"] = state["token_embedding.weight"][:, :16]
    state["visual.proj"] = torch.ones(2, 2)  # a whole OpenCLIP file has these too
    torch.save(state, file)
    report = check(folder)
    assert [finding.ok for finding in report.findings] == [True, False, True, True]
    assert "ln_final.bias" in str(report)
    assert "token_embedding.weight" in str(report)
    assert "visual" not in str(report)


def test_the_penultimate_layer_needs_no_last_block(original: Path) -> None:
    for layer, blocks in (("last", {"0", "1"}), ("penultimate", {"0"})):
        configuration = read(original)
        options = configuration.encoder.to_json() | {"layer": layer}
        built = architecture.build(configuration.replace("encoder", options), "encoder")
        names = {name.split(".")[2] for name in built.network.state_dict() if name.startswith("transformer.resblocks.")}
        assert names == blocks
        taken = built.layout.to_ours("transformer.resblocks.1.ln_1.weight")
        assert (taken is not None) == ("1" in blocks)


@pytest.mark.parametrize("mode", ["fast", "other"])
def test_there_and_back_changes_nothing(original: Path, tmp_path: Path, mode: str) -> None:
    values = json.loads((original / "configuration.json").read_text())
    values["model"]["model_args"]["solver_mode"] = mode
    source = tmp_path / "source"
    source.mkdir()
    (source / "configuration.json").write_text(json.dumps(values))
    for name in read(source).weights.model_dump().values():
        (source / name).hardlink_to(original / name)
    ours = convert(source, tmp_path / "ours")
    back = convert(ours, tmp_path / "back", layout="modelscope")
    before, after = read(source), read(back)
    assert after.replace("weights", before.weights.model_dump()) == before
    for name in architecture.NETWORKS:
        files = [torch.load(folder / getattr(read(folder).weights, name)) for folder in (source, back)]
        states = [file.get("state_dict", file) for file in files]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def test_a_clips_own_rate_has_no_published_key(original: Path, tmp_path: Path) -> None:
    ours = convert(original, tmp_path / "ours")
    values = json.loads((ours / "configuration.json").read_text())
    values["output"]["fps"] = "source"
    (ours / "configuration.json").write_text(json.dumps(values))
    with pytest.warns(ConfigurationWarning, match=r": output\.fps$"):
        back = convert(ours, tmp_path / "back", layout="modelscope")
    assert read(back).output.fps == 8
