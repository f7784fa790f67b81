"""Every script of examples/, run on the small models."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2vgen_ms import demo
from i2vgen_ms.media.clip import read_clip
from tests.examples.conftest import EXAMPLES, LARGE, SMALL, python, script, shape

SCRIPTS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))


def test_every_script_says_how_to_run_it() -> None:
    assert len(SCRIPTS) >= 5
    for name in SCRIPTS:
        text = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8")))
        assert text is not None, name
        assert f"python {name.split('/')[-1]}" in text or f"python examples/{name}" in text, name


@pytest.mark.full
def test_the_cards_two_pipelines(picture: demo.Sample, tmp_path: Path) -> None:
    printed = script(tmp_path, "card_script.py", picture.path, picture.text, "--steps", 2)
    assert [line for line in printed.splitlines() if line.endswith(".mp4")] == ["i2v_output.mp4", "v2v_output.mp4"]
    assert shape(tmp_path / "i2v_output.mp4") == SMALL
    assert shape(tmp_path / "v2v_output.mp4") == LARGE


@pytest.mark.full
def test_a_folder_is_worked_off(picture: demo.Sample, tmp_path: Path) -> None:
    pictures, videos = tmp_path / "pictures", tmp_path / "videos"
    pictures.mkdir()
    for name in ("a.png", "c.png"):
        shutil.copy(picture.path, pictures / name)
    (pictures / "b.jpg").write_bytes(b"no picture")
    assert "b.jpg' is not a picture" in script(
        tmp_path, "batch_folder.py", pictures, videos, "--steps", 1, "--device", "cpu", status=1
    )
    assert {path.name for path in videos.iterdir()} == {"a.png.mp4", "c.png.mp4"}
    assert shape(videos / "c.png.mp4") == LARGE


@pytest.mark.full
def test_a_sampler_of_ones_own(picture: demo.Sample, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLES / "own_sampler", source)  # setuptools writes beside its sources
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--target", str(site), str(source)], check=True, cwd=tmp_path
    )
    printed = script(tmp_path, "own_sampler/own_sampler.py", picture.path, path=site)
    assert printed == "own.mp4\n"
    assert shape(tmp_path / "own.mp4") == SMALL
    assert "no part 'adams_bashforth'" in script(tmp_path, "own_sampler/own_sampler.py", picture.path, status=1)


@pytest.mark.full
def test_an_adapter_is_trained_and_used(tmp_path: Path) -> None:
    printed = script(
        tmp_path, "train_lora.py", "--steps", 2, "--clips", 1, "--device", "cpu", "--sampling-steps", 2
    ).split()
    assert printed[-3:] == [str(Path("runs/hearts/lora")), "plain.mp4", "hearts.mp4"]
    plain, hearts = (np.asarray(read_clip(tmp_path / name, max_frames=99).frames) for name in printed[-2:])
    assert plain.shape == hearts.shape == SMALL
    assert (plain != hearts).any(), "the adapter counts"


@pytest.mark.full
def test_the_readmes_script(picture: demo.Sample, tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[-1]
    for call, few in (("'small.mp4'", "steps=1"), ("'large.mp4'", "first={'steps': 1}, second={'steps': 1}")):
        assert call in code
        code = code.replace(call, f"{call}, {few}")
    shutil.copy(picture.path, tmp_path / "picture.png")
    assert python(tmp_path, "-c", code) == "small.mp4 large.mp4 1\n"
    assert (shape(tmp_path / "small.mp4"), shape(tmp_path / "large.mp4")) == (SMALL, LARGE)


@pytest.mark.full
def test_the_documentations_pictures_can_be_made_anew(tmp_path: Path) -> None:
    folder = EXAMPLES.parent / "docs" / "pictures"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import make; from pathlib import Path; "
        "make.main(Path('.'), steps=4)"
    )
    python(tmp_path, "-c", code)
    made = {path.name for path in tmp_path.iterdir()}
    kept = {path.name for path in folder.iterdir() if path.suffix in (".png", ".gif")}
    assert made == {name for name in kept if not name.startswith("samplers-")}, "plots are made by benchmarks.samplers"
    for name in made:
        with Image.open(tmp_path / name) as new, Image.open(folder / name) as old:
            assert new.size == old.size
