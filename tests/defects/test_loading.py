"""Rows about importing, loading and several models in one process."""

from __future__ import annotations

import ast
import configparser
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from i2vgen_ms.pipelines import VideoToVideo, load
from tests import second_stage
from tests.defects.conftest import SIZES, Job
from tests.weights.hostile import fake_lightning

ROOT = Path(__file__).resolve().parents[2]
# Distributions whose module has another name, and modules that a declared distribution always brings.
MODULE_OF = {"open_clip_torch": "open_clip", "pillow": "PIL"}
BROUGHT = {"modelscope_hub": "modelscope", "pydantic_core": "pydantic", "triton": "torch"}

# Optional, unmaintained, or of other tasks: none of them may be needed by the job as it is shipped.
UNNEEDED = [
    *("xformers", "fairscale", "rotary_embedding_torch", "torchsde", "easydict", "cv2", "pytorch_lightning"),
    *("lightning", "omegaconf", "decord", "moviepy", "triton", "modelscope", "modelscope_hub"),
]
RUN = """
import sys
for name in {unneeded!r}:
    sys.modules[name] = None  # importing it raises ImportError
import warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("error")
from i2vgen_ms.pipelines import load
given = {{"output_type": "frames", "steps": 1, "progress": False}}
frames = load({folder!r}, device="cpu")({picture!r}, **given).frames
print(frames.shape)
print(load({second!r}, device="cpu")(frames, sampler="heun", **given).frames.shape)
"""


def test_a4_the_job_runs_without_the_packages_that_the_published_modules_import(
    folder: Path, second_folder: Path
) -> None:
    """A4: xformers, fairscale, rotary_embedding_torch and torchsde are imported at module level, needed or not.

    torchsde is what the second stage's own sampler draws from, and heun does without.
    """
    picture = str(ROOT / "configuration/pictures/circle.png")
    code = RUN.format(unneeded=UNNEEDED, folder=str(folder), second=str(second_folder), picture=picture)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 16, 32, 3)\n" * 2), done.stderr


def imported() -> set[str]:
    """The first part of every absolute name that a file of the package imports, anywhere in it."""
    names: set[str] = set()
    for file in (ROOT / "i2vgen_ms").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_a4_every_imported_package_is_declared() -> None:
    """A4: none of the packages that the published modules import stands in modelscope's requirements."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    names = {re.split(r"[\[<>=;!~ ]", line, maxsplit=1)[0] for block in lines for line in block.split("\n") if line}
    declared = {MODULE_OF.get(name, name.replace("-", "_")) for name in names}
    used = {BROUGHT.get(name, name) for name in imported()} - set(sys.stdlib_module_names) - {"i2vgen_ms"}
    assert {"torch", "open_clip", "torchsde", "xformers"} <= used
    assert used - declared == set()


def test_b27_two_models_in_one_process_keep_their_own_files_sizes_and_seeds(job: Job, tmp_path: Path) -> None:
    """B27: all published models of a stage share one settings object, so that a second one rewrites the first's."""
    call = {"output_type": "frames", "steps": 1, "progress": False}
    first = load(job.folder, device="cpu")
    before = first(job.source, **call)
    rough = first(job.source, dtype={"st_unet": "bfloat16"}, **call)
    second = load(job.make(tmp_path / "other", seed=1, max_frames=1, latent_hei=4), device="cpu")
    second.configuration = second.configuration.replace("seed", 7)
    other = second(job.source if job.pipe.configuration.task == "image-to-video" else job.source[:1], **call)
    assert (other.seed, other.frames.shape) == (7, (1, 32, 32, 3))
    # The first one reads its weights from its own folder again, because another dtype is asked for.
    assert np.array_equal(first(job.source, **call).frames, before.frames)
    assert np.array_equal(first(job.source, dtype={"st_unet": "bfloat16"}, **call).frames, rough.frames)
    assert (first.configuration.seed, before.seed, before.frames.shape) == (666, 666, (2, 16, 32, 3))
    assert not np.array_equal(rough.frames, before.frames)


def test_c7_every_module_is_set_to_inference_and_no_class_fixes_it(job: Job) -> None:
    """C7: published constructors assign self.training, so that dropout depends on who built the module last."""
    networks = load(job.folder, device="cpu").networks
    for network in (networks.encoder, networks.st_unet, networks.autoencoder):
        assert [name for name, module in network.named_modules() if module.training] == []
        assert [name for name, module in network.train().named_modules() if not module.training] == []
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a3_a_lightning_checkpoint_loads_and_nothing_of_it_runs(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3: the autoencoder's file pickles a class of pytorch_lightning and numpy scalars, and torch 2.6 refuses it."""
    folder, marker = shutil.copytree(job.folder, tmp_path / "model"), tmp_path / "it ran"
    file = folder / job.pipe.configuration.weights.autoencoder
    content = torch.load(file, weights_only=True)
    with monkeypatch.context() as patch:
        modules = fake_lightning(marker)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        kind = modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint
        torch.save({"global_step": np.int64(220_000), "callbacks": {kind: kind()}, **content}, file)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file)  # published: no weights_only, which has been True since torch 2.6
    call = {"output_type": "pt", "steps": 1, "progress": False}
    assert torch.equal(load(folder, device="cpu")(job.source, **call).tensor, job.pipe(job.source, **call).tensor)
    assert "pytorch_lightning" not in sys.modules
    assert not marker.exists()


def test_b34_the_network_is_the_described_one_and_nothing_wraps_it(
    second: VideoToVideo, clip: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B34: the published network ignores its description; each forward wraps every part for checkpointing."""
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", None)
    wide = load(second_stage.make(tmp_path / "wide", levels=3, **SIZES), device="cpu")
    assert (second.networks.st_unet.level_count, wide.networks.st_unet.level_count) == (2, 3)
    assert second.networks.st_unet.stem.weight.shape == (32, 4, 3, 3)  # published: 320 channels, whatever is described
    before = {name: (type(module), vars(module).get("forward")) for name, module in parts(second)}
    for _ in range(2):
        second(clip, steps=1, progress=False)
    assert {name: (type(module), vars(module).get("forward")) for name, module in parts(second)} == before
    assert all(forward is None for _, forward in before.values())


def parts(pipe: VideoToVideo) -> list[tuple[str, torch.nn.Module]]:
    """Every module of the network by its name."""
    return list(pipe.networks.st_unet.named_modules())
