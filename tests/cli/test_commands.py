"""The command line in-process: what it prints, which exit status it gives, what it hands on."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from i2vgen_ms import __version__, catalogue, demo, hub, pipelines, random_model
from i2vgen_ms.cli import animate, image_to_video, main, options, video_to_video
from i2vgen_ms.errors import ArgumentError, Cancelled
from i2vgen_ms.media.clip import read_clip
from i2vgen_ms.pipelines import arguments, chain

SMALL = {
    "max_frames": 2,
    "latent_hei": 8,
    "latent_wid": 8,
    "UNet": {
        "dim": 32,
        "dim_mult": [1, 2],
        "head_dim": 16,
        "num_res_blocks": 1,
        "attn_scales": [1.0, 0.5],
        "y_dim": 64,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model in the published formats."""
    return random_model.make_random_model(tmp_path_factory.mktemp("model") / "small", SMALL)


def run(*words: object) -> int:
    return main.main([str(word) for word in words])


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"i2vgen-ms {__version__}\n"


def test_wrong_words_are_refused_with_the_words_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("", "image-to-vidoe", "image-to-video x.png", "image-to-video x.png -o y --stepz"):
        with pytest.raises(SystemExit, match="2"):
            run(*line.split())
        assert "usage: i2vgen-ms" in capsys.readouterr().err


def test_parts_lists_every_part_of_every_slot(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("parts") == 0
    text = capsys.readouterr().out
    for slot in catalogue.slots():
        for name, entry in catalogue.names(slot).items():
            assert f"  {name} " in text
            assert entry.about in text
    assert run("parts", "samplers") == 0
    assert capsys.readouterr().out.splitlines()[0] == "samplers"


def test_an_unknown_slot_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("parts", "smplers") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("i2vgen-ms: there is no slot 'smplers'; did you mean 'samplers'?")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"), [(ArgumentError("x"), 2), (Cancelled("x"), 130), (KeyboardInterrupt(), 130)]
)
def test_errors_become_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(catalogue, "names", fail)
    assert run("parts", "samplers") == status
    assert capsys.readouterr().err.startswith("i2vgen-ms: ")


def test_check_says_whether_a_folder_will_load(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", folder) == 0
    assert "will load" in capsys.readouterr().out
    assert run("check", tmp_path) == 1
    assert "configuration.json: not found" in capsys.readouterr().out
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "small_random.pth").unlink()
    assert run("check", broken) == 1
    assert "will NOT load" in capsys.readouterr().out


def test_convert_writes_a_folder_that_loads(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", folder, tmp_path / "ours", "--dtype", "float16") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ours")
    assert run("convert", tmp_path / "ours", tmp_path / "back", "--layout", "modelscope") == 0
    assert (tmp_path / "back" / "small_random.pth").exists() or list((tmp_path / "back").glob("*.pth"))
    capsys.readouterr()
    assert run("check", tmp_path / "ours") == run("check", tmp_path / "back") == 0
    assert run("convert", folder, tmp_path / "ours") == 1
    assert str(tmp_path / "ours") in capsys.readouterr().err


def test_download_hands_on_the_revision(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(hub, "download", lambda model, revision: f"{model} at {revision}")
    assert run("download", "damo/Image-to-Video", "--revision", "v1.1.0") == 0
    assert capsys.readouterr().out == "damo/Image-to-Video at v1.1.0\n"


@pytest.mark.parametrize("command", [image_to_video, video_to_video])
def test_every_argument_of_a_call_has_an_option(command: Any) -> None:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    there = {action.dest for action in parser._actions}
    task = command.__name__.rpartition(".")[2].replace("_", "-")
    wanted = set(arguments.names(task)) - {"output_type"}  # the command writes files
    assert wanted <= there
    assert set(command.CALL) | {"dtype", "memory"} == wanted


def test_every_argument_of_both_stages_has_an_option() -> None:
    parser = argparse.ArgumentParser()
    animate.arguments(parser)
    wanted = set(chain.NAMES) - {"output_type"}
    assert wanted <= {action.dest for action in parser._actions}
    assert set(animate.CALL) == wanted


def test_video_to_video_hands_on_what_was_asked_for_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def pipe(clips: Any, **call: Any) -> Any:
        calls.append((clips, call))
        return SimpleNamespace(path="o.mp4", seed=7)

    monkeypatch.setattr(pipelines, "load", lambda folder, **given: pipe)
    words = ("--text", "a boat", "--fps", "source", "--window", "--prompt-suffix", "", "--strength", 0.5)
    assert run("video-to-video", "a.mp4", "-o", "o.mp4", "-m", tmp_path, *words) == 0
    assert capsys.readouterr().out == "a.mp4 -> o.mp4 (seed 7)\n"
    given = {"text": "a boat", "fps": "source", "window": True, "prompt_suffix": "", "strength": 0.5}
    assert calls == [("a.mp4", {"output": "o.mp4", **given})]
    assert run("video-to-video", "a.mp4", "-o", "o.mp4", "-m", tmp_path, "--window", 3, "--fps", 12) == 0
    assert calls[-1] == ("a.mp4", {"output": "o.mp4", "window": 3, "fps": 12})


def test_both_stages_from_the_command_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = random_model.make_random_model(tmp_path / "second", {"max_frames": 2}, task="video-to-video")
    video, kept = tmp_path / "v.mp4", tmp_path / "small.mp4"
    models = ("--first-model", folder, "--second-model", second)
    words = ("--text", "a boat", "--keep-first", kept, "--seed", 3)
    steps = ("--first", '{"steps": 1}', "--second", '{"steps": 1, "width": 96, "height": 80}')
    assert run("animate", demo.sample().path, "-o", video, *models, *words, *steps, "--no-progress") == 0
    assert capsys.readouterr().out == f"{demo.sample().path} -> {video} (seed 3)\n"
    assert [
        (clip.width, clip.height, clip.count) for clip in (read_clip(file, max_frames=9) for file in (kept, video))
    ] == [
        (64, 64, 2),
        (96, 80, 2),
    ]
    assert run("animate", demo.sample().path, "-o", video, *models, "--first", '{"step": 1}') == 2
    assert "first: unknown argument 'step'; did you mean 'steps'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run("animate", demo.sample().path, "-o", video, "--first", "[1]")
    loaded: list[Any] = []
    monkeypatch.setattr(pipelines, "load", lambda place, **given: loaded.append((place, given["device"])))
    where = ("--device", "cuda:0", "--second-device", "cuda:1")
    assert run("animate", demo.sample().path, "-o", video, *models, *where) == 2  # nothing was loaded
    assert loaded == [(folder, "cuda:0"), (second, "cuda:1")]


def test_image_to_video_hands_on_what_was_asked_for_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def pipe(pictures: Any, **call: Any) -> Any:
        calls.append((pictures, call))
        results = [SimpleNamespace(path=f"v{index}.mp4", seed=7) for index in range(2)]
        return results if isinstance(pictures, list) else results[0]

    monkeypatch.setattr(pipelines, "load", lambda folder, **given: calls.append((folder, given)) or pipe)
    np.save(tmp_path / "noise.npy", np.ones((1, 4, 2, 8, 8), np.float32))
    words = ("--steps", 3, "--sampler", '{"type": "ddim", "eta": 0.5}', "--spacing", "trailing", "--guidance-scale", 2)
    more = ("--latents", tmp_path / "noise.npy", "--no-progress", "--dtype", "float32")
    more += ("--memory", "low", "--lora", "adapter", "--lora-scale", "0.5")
    assert run("image-to-video", "a.png", "-o", "v.mp4", "-m", tmp_path, *words, *more) == 0
    assert capsys.readouterr().out == "a.png -> v0.mp4 (seed 7)\n"
    loading = {"device": None, "dtype": "float32", "cache": False, "memory": "low", "compile": None}
    assert calls[0] == (tmp_path, {**loading, "lora": "adapter", "lora_scale": 0.5})
    picture, call = calls[1]
    assert picture == "a.png"
    torch.testing.assert_close(call.pop("latents"), torch.ones(1, 4, 2, 8, 8))
    assert call == {
        "output": "v.mp4",
        "steps": 3,
        "sampler": {"type": "ddim", "eta": 0.5},
        "spacing": "trailing",
        "guidance_scale": 2.0,
        "progress": False,
    }
    assert run("image-to-video", "a.png", "b.png", "-o", "v.mp4", "-m", tmp_path) == 0
    assert calls[-1] == (["a.png", "b.png"], {"output": "v.mp4"})
    assert capsys.readouterr().out == "a.png -> v0.mp4 (seed 7)\nb.png -> v1.mp4 (seed 7)\n"


def test_a_folder_of_pictures_is_sorted_and_read_by_suffix(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    listed = options.listed(["http://x/y.png", str(tmp_path)], image_to_video.SUFFIXES, "pictures")
    assert listed == ["http://x/y.png", str(tmp_path / "a.jpg"), str(tmp_path / "b.PNG")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="no pictures in the folder"):
        options.listed([str(tmp_path / "empty")], image_to_video.SUFFIXES, "pictures")


@pytest.mark.parametrize("value", ["{", "nothing.npy"])
def test_options_that_cannot_be_read_are_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = "--sampler" if value == "{" else "--latents"
    with pytest.raises(SystemExit, match="2"):
        run("image-to-video", "a.png", "-o", "v.mp4", option, value)
    assert option in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_was_asked_for_and_is_not_there_is_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, video = demo.sample().path, tmp_path / "v.mp4"
    assert run("image-to-video", picture, "-o", video, "-m", folder, "--device", "cuda") == 1
    assert "no CUDA device" in capsys.readouterr().err
    assert not video.exists()


def test_the_job_with_a_folder_needs_no_modelscope(folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(demo.sample().path, pictures / name)
    words = ["image-to-video", str(pictures), "-o", str(tmp_path / "v.mp4"), "-m", str(folder), "--steps", "1"]
    code = f"""
import sys
from i2vgen_ms.cli.main import main
assert main({words!r}) == 0
assert not {{"modelscope", "modelscope_hub"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(" -> ")[1].split(" ")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / "v_0.mp4"),
        str(tmp_path / "v_1.mp4"),
    ]
    assert (tmp_path / "v_0.mp4").stat().st_size > 500


def test_run_gives_a_script_its_words_and_its_exit_status(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:], __name__)\nsys.exit(3)\n")
    words = [sys.executable, "-m", "i2vgen_ms", "run", str(script), "--help", "--", "-x"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stdout == "['--help', '--', '-x'] __main__\n"


def test_an_error_of_a_script_keeps_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("from i2vgen_ms.errors import MediaError\nraise MediaError('out of film')\n")
    assert run("run", script) == 1
    assert "line 2" in capsys.readouterr().err
    assert run("run", tmp_path / "nothing.py") == 2
    assert "no script at" in capsys.readouterr().err


def test_demo_hands_on_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[str] = []
    monkeypatch.setattr(demo, "run", outputs.append)
    assert run("demo") == run("demo", "-o", "x.gif") == 0
    assert outputs == ["demo.mp4", "x.gif"]


def test_demo_refuses_what_its_sheet_cannot_be_made_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert (run("demo", "-o", "x.webp"), "demo: 'x.webp': the sheet" in capsys.readouterr().err) == (1, True)
