"""Rows about what becomes of the frames: files, names, temporary files, the rate and the rounding."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from i2vgen_ms.errors import Cancelled, OutputError
from i2vgen_ms.media.frames import to_uint8
from i2vgen_ms.media.writers.container import ContainerSink
from i2vgen_ms.pipelines import ImageToVideo
from tests.defects.conftest import Job

QUICK: dict[str, Any] = {"steps": 1, "progress": False}


@pytest.mark.parametrize("place", ["write", "finish"])
@pytest.mark.parametrize("named", [True, False])
def test_b1_b2_a_failing_encoder_is_an_error_that_says_what_failed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, named: bool
) -> None:
    """B1: the failure is logged and the name of no file returned. B2: the words logged are empty. B4: open() fails."""

    def broken(self: ContainerSink, *_: Any) -> None:
        raise av.error.ExternalError(-542398533, "the encoder broke")

    monkeypatch.setattr(ContainerSink, place, broken)
    target = tmp_path / "video.mp4" if named else None
    with pytest.raises(OutputError, match="the encoder broke") as caught:
        job.pipe(job.source, output=target, **QUICK)
    assert ("video.mp4" if named else "to memory") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_b3_output_names_are_never_a_shell_string(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B3: the name is pasted into a shell command, so that spaces break it and a ; runs what follows."""

    def refuse(*given: Any, **_: Any) -> None:
        raise AssertionError(f"a program was to be started: {given}")

    for module, name in ((subprocess, "Popen"), (os, "system"), (os, "posix_spawn"), (os, "fork"), (os, "execve")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setenv("PATH", "")  # where an ffmpeg program would be found
    monkeypatch.chdir(tmp_path)
    names = ["it's; touch PWNED #.mp4", "$(touch PWNED) `touch PWNED`.webm", "a b\nc & %06d.gif"]
    for name in names:
        assert job.pipe(job.source, output=name, **QUICK).path == name
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize("name", [None, "video.mp4", "video.gif", "frames"])
def test_b4_b5_nothing_temporary_is_left_whatever_happens(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """B4: the temporary name is given back before it is used. B5: an exception leaves a folder full of PNG files."""
    for folder in ("tmp", "out"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(os, "system", None)
    output = None if name is None else tmp_path / "out" / name
    with pytest.raises(Cancelled):
        job.pipe(job.source, output=output, steps=1, progress=lambda event: event.stage != "decoding")
    assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "out").iterdir()] == []
    result = job.pipe(job.source, output=output, **QUICK)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ([] if name is None else [name])
    assert (result.video is None) == (name is not None)


@pytest.mark.parametrize("fps", [None, 12])
def test_b6_the_file_plays_at_the_rate_that_the_network_was_told(
    pipe: ImageToVideo, picture: np.ndarray, tmp_path: Path, fps: int | None
) -> None:
    """B6: files are written at 8.0 whatever the rate is. Stage 1 conditions on 8 too; `fps` changes both."""
    told: list[float] = []
    hook = pipe.networks.st_unet.fps_embedding.register_forward_pre_hook(
        lambda module, args: told.extend(args[0].tolist())
    )
    try:
        pipe(picture, output=tmp_path / "video.mp4", fps=fps, **QUICK)
    finally:
        hook.remove()
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert container.streams.video[0].average_rate == (fps or 8)
    assert set(told) == {fps or 8}


def published_tensor2vid(task: str) -> Any:
    """The published conversion, from the published pipeline's file, which registers nothing while it is read."""
    from modelscope.pipelines import base
    from modelscope.pipelines.builder import PIPELINES

    name = task.replace("-", "_")
    file = Path(base.__file__).parent / f"multi_modal/{name}_pipeline.py"
    spec = importlib.util.spec_from_file_location(f"published_{name}_pipeline", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(PIPELINES), "register_module", lambda *_, **__: lambda made: made)
        spec.loader.exec_module(module)
    return module.tensor2vid


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["image-to-video", "video-to-video"])
def test_b29_frames_are_rounded_and_the_video_is_left_as_it_was(task: str) -> None:
    """B29: the published conversion cuts fractions off, changes its input, and keeps item 0 of a batch only."""
    video = torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.7
    exact = (video.clamp(-1, 1).double() + 1) * 127.5
    kept = video.clone()
    frames = to_uint8(video.permute(0, 2, 3, 4, 1))
    assert torch.equal(video, kept)
    ours = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).double()
    theirs = torch.tensor(np.stack(published_tensor2vid(task)(video))).permute(3, 0, 1, 2)
    assert not torch.equal(video, kept)
    assert ours.shape == (2, 3, 2, 8, 8)
    assert theirs.shape == (3, 2, 8, 8)
    assert float((ours - exact).abs().max()) <= 0.5 + 1e-4
    assert float((exact[0] - theirs).max()) > 0.9
    difference = ours[0] - theirs
    assert set(difference.unique().tolist()) == {0.0, 1.0}  # published: up to a level darker


def test_b29_a_call_delivers_rounded_frames(job: Job) -> None:
    """B29: what a call gives as frames is its tensor, rounded; a file is written of the same frames."""
    video = job.pipe(job.source, output_type="pt", **QUICK).tensor
    frames = torch.from_numpy(job.pipe(job.source, output_type="frames", **QUICK).frames).permute(3, 0, 1, 2)
    exact = (video.clamp(-1, 1).double() + 1) * 127.5
    assert float((frames - exact).abs().max()) <= 0.5 + 1e-3
    assert float((exact.floor() != frames).float().mean()) > 0.2


def test_b17_a_list_gives_a_file_each_with_its_own_video(job: Job, tmp_path: Path) -> None:
    """B17: all results of a list are written to one file, so that the last one is left. B18: they are mixed."""
    sources = [job.source, np.ascontiguousarray(job.source[..., ::-1])]
    results = job.pipe(sources, output=tmp_path / "video.mp4", **QUICK)
    assert [Path(result.path).name for result in results] == ["video_0.mp4", "video_1.mp4"]
    contents = [Path(result.path).read_bytes() for result in results]
    assert contents == [job.pipe(source, **QUICK).video for source in sources]
    assert contents[0] != contents[1]
