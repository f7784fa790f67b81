"""Rows about importing, loading and several models in one process."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from i2vgen_ms.pipelines import load
from tests.defects.conftest import make

ROOT = Path(__file__).resolve().parents[2]
# Distributions whose module has another name, and modules that a declared distribution always brings.
MODULE_OF = {"open_clip_torch": "open_clip", "pillow": "PIL"}
BROUGHT = {"modelscope_hub": "modelscope", "pydantic_core": "pydantic"}

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
print(load({folder!r}, device="cpu")({picture!r}, output_type="frames", steps=1, progress=False).frames.shape)
"""


def test_a4_the_job_runs_without_the_packages_that_the_published_modules_import(folder: Path) -> None:
    """A4: xformers, fairscale, rotary_embedding_torch and torchsde are imported at module level, needed or not."""
    picture = str(ROOT / "configuration/demo/picture.jpg")
    code = RUN.format(unneeded=UNNEEDED, folder=str(folder), picture=picture)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 16, 32, 3)\n"), done.stderr


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


def test_b27_two_models_in_one_process_keep_their_own_files_sizes_and_seeds(
    folder: Path, picture: np.ndarray, tmp_path: Path
) -> None:
    """B27: all published models share one settings object, so that a second model rewrites the first one's."""
    call = {"output_type": "frames", "steps": 1, "progress": False}
    first = load(folder, device="cpu")
    before = first(picture, **call)
    rough = first(picture, dtype={"st_unet": "bfloat16"}, **call)
    second = load(make(tmp_path / "other", seed=1, max_frames=3, latent_wid=2), device="cpu")
    second.configuration = second.configuration.replace("seed", 7)
    other = second(picture, **call)
    assert (other.seed, other.frames.shape) == (7, (3, 16, 16, 3))
    # The first one reads its weights from its own folder again, because another dtype is asked for.
    assert np.array_equal(first(picture, **call).frames, before.frames)
    assert np.array_equal(first(picture, dtype={"st_unet": "bfloat16"}, **call).frames, rough.frames)
    assert (first.configuration.seed, before.seed, before.frames.shape) == (666, 666, (2, 16, 32, 3))
    assert not np.array_equal(rough.frames, before.frames)


def test_c7_every_module_is_set_to_inference_and_no_class_fixes_it(folder: Path) -> None:
    """C7: published constructors assign self.training, so that dropout depends on who built the module last."""
    networks = load(folder, device="cpu").networks
    for network in (networks.encoder, networks.st_unet, networks.autoencoder):
        assert [name for name, module in network.named_modules() if module.training] == []
        assert [name for name, module in network.train().named_modules() if not module.training] == []
        assert not any(parameter.requires_grad for parameter in network.parameters())
