"""The model card's script of both stages, as it stands there, in its own interpreter, with models from a hub."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import av
import pytest
import torch

from tests import second_stage
from tests.plugin.conftest import MODEL, REVISION
from tests.plugin.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
SECOND = "damo/Video-to-Video"

IMPORTS = """\
from modelscope.pipelines import pipeline
from modelscope.outputs import OutputKeys
"""
CARD = """
pipe1 = pipeline(task='image-to-video', model='damo/Image-to-Video', model_revision='v1.1.0', device='cuda:0')
pipe2 = pipeline(task='video-to-video', model='damo/Video-to-Video', model_revision='v1.1.0', device='cuda:0')

output_video_path = pipe1("test.jpg", output_video='./i2v_output.mp4')[OutputKeys.OUTPUT_VIDEO]
p_input = {'video_path': output_video_path}
new_output_video_path = pipe2(p_input, output_video='./v2v_output.mp4')[OutputKeys.OUTPUT_VIDEO]
"""


class Written(NamedTuple):
    """What a file holds, as a player sees it."""

    width: int
    height: int
    frames: int
    fps: float
    codec: str


def read_back(path: Path) -> Written:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert all(frame.shape == (stream.height, stream.width, 3) for frame in frames)
        assert all(frame.std() > 1 for frame in frames)
        assert stream.frames == len(frames)
        name = stream.codec_context.name
        return Written(stream.width, stream.height, len(frames), float(stream.average_rate or 0), name)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model of the second stage, as a hub holds it."""
    return second_stage.make(tmp_path_factory.mktemp("second") / "origin", max_frames=3, latent_hei=6, latent_wid=10)


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, with `variables` on top of the environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.full
def test_the_models_cards_script_of_both_stages(origin: Path, second: Path, picture: str, tmp_path: Path) -> None:
    """With one line added, against a hub; then with none, through the command, from the cache alone."""
    shutil.copy(picture, tmp_path / "test.jpg")
    (tmp_path / "one_line_added.py").write_text(IMPORTS + "import i2vgen_ms\n" + CARD)
    (tmp_path / "unchanged.py").write_text(IMPORTS + CARD)
    inputs = {file.name for file in tmp_path.iterdir()}
    models = {(MODEL, REVISION): origin, (SECOND, REVISION): second}
    with LoopbackHub(models) as server:
        variables = server.environment(tmp_path / "cache")
        with_import = run("one_line_added.py", cwd=tmp_path, **variables)
        fetched = [line for line in server.log if "FilePath=" in line]
    assert (with_import.returncode, with_import.stdout) == (0, ""), with_import.stderr
    assert len(fetched) == sum(len(list(folder.iterdir())) for folder in models.values())
    assert with_import.stderr.count("DeviceWarning: device 'cuda:0'") == (0 if torch.cuda.is_available() else 2)
    assert "WARNING" not in with_import.stderr
    outputs = ("i2v_output.mp4", "v2v_output.mp4")
    assert {file.name for file in tmp_path.iterdir()} == inputs | {"cache", *outputs}
    assert [read_back(tmp_path / name) for name in outputs] == [
        Written(64, 64, 2, 8.0, "h264"),
        Written(80, 48, 2, 8.0, "h264"),
    ]
    first = [(tmp_path / name).read_bytes() for name in outputs]
    for name in outputs:
        (tmp_path / name).unlink()
    unchanged = run("-m", "i2vgen_ms", "run", "unchanged.py", cwd=tmp_path, **variables)
    assert (unchanged.returncode, unchanged.stdout) == (0, ""), unchanged.stderr
    assert [(tmp_path / name).read_bytes() for name in outputs] == first
