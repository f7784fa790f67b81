"""The whole published stage 1, model class and all, against our pipeline: the same folder, the same noise."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms.pipelines import ImageToVideo
from tests.oracle import published, relative_error


@pytest.fixture(scope="module")
def theirs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The published ImageToVideo, made importable (A1) and small, with its weights from the folder."""
    import open_clip

    name = "modelscope.models.multi_modal.image_to_video"
    schedule = published("image_to_video.utils.shedule")
    config = published("image_to_video.utils.config").cfg
    described = json.loads((folder / "configuration.json").read_text())["model"]["model_cfg"]
    architecture = tmp_path_factory.mktemp("arch") / "small-test-tower.json"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    architecture.write_text(json.dumps(described["embedder"]["arch"] | {"text_cfg": text}))
    open_clip.add_model_config(architecture)
    tower = open_clip.create_model("small-test-tower").state_dict()
    tower |= torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    complete = architecture.with_name("tower.bin")
    torch.save(tower, complete)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, f"{name}.utils.schedule", schedule)
        patch.setattr(config, "UNet", {**config.UNet, **described["UNet"]})
        patch.setattr(config, "auto_encoder", {**config.auto_encoder, **described["auto_encoder"]})
        patch.setattr(config, "embedder", {**config.embedder, "arch": "small-test-tower"})
        # The files hold plain tensors; the towers file has the text tower that the published class builds too.
        load = torch.load
        patch.setattr(torch, "load", lambda path, **_: load(path, map_location="cpu", weights_only=True))
        create = open_clip.create_model_and_transforms
        patch.setattr(
            open_clip,
            "create_model_and_transforms",
            lambda arch, pretrained, **given: create(arch, pretrained=str(complete), **given),
        )
        model = _published_class()(str(folder), device="cpu")
        yield model


def _published_class() -> Any:
    """The published model class from its file, registered nowhere, so that it does not meet ours."""
    from modelscope.models.builder import MODELS

    file = Path(published("image_to_video.modules").__path__[0]).with_name("image_to_video_model.py")
    spec = importlib.util.spec_from_file_location("published_image_to_video_model", file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(MODELS), "register_module", lambda *_, **__: lambda made: made)
        spec.loader.exec_module(module)
    return module.ImageToVideo


@pytest.mark.filterwarnings("ignore")
def test_the_whole_run_equals_the_published_one(
    theirs: Any, pipe: ImageToVideo, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Picture tensor to frames: encoder, 50 guided DDIM steps, autoencoder; relative L2 <= 1e-4."""
    latents = torch.randn(1, 4, 3, 4, 8, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(theirs, "build_noise", lambda: latents.clone())
    frame = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    expected = theirs({"vit_frame": frame})
    got = pipe.tensor(frame, latents=latents, progress=False)
    error = relative_error(got, expected)
    record_property("relative L2 of the whole 50-step run", f"{error:.1e}")
    assert got.shape == expected.shape
    assert error <= 1e-4


@pytest.mark.filterwarnings("ignore")
def test_the_picture_is_prepared_as_published(theirs: Any, pipe: ImageToVideo) -> None:
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (448, 896, 3), dtype=np.uint8))
    call = pipe._begin({"progress": False}, 1)
    assert torch.equal(pipe._prepare(image, call).pixels[0], theirs.vid_trans(image))
