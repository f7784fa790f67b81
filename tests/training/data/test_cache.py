"""Latents that are kept on disk, and runs on files with and without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from i2vgen_ms.errors import ConfigurationError, MediaLimitError, OutputError
from i2vgen_ms.training import Trainer
from i2vgen_ms.training.data.batch import Spec
from i2vgen_ms.training.data.cache import LatentCache
from i2vgen_ms.training.data.files import FileSource
from i2vgen_ms.training.data.listing import Entry, entries, look
from i2vgen_ms.training.report import DataWarning
from tests.training import small

SIZES = [(64, 32), (32, 64)]
CLIP = Spec(frames=4, width=0, height=0, fps=8)


def source(folder: Path, **changes) -> FileSource:
    items, _ = look(entries(folder))
    return FileSource(items, **{"sizes": SIZES, "seed": 1, "workers": 0} | changes)


def test_latents_are_kept_and_read_again(folder: Path, tmp_path: Path) -> None:
    files = source(folder)
    cache = LatentCache(tmp_path / "cache", "one")
    spec = Spec(2, 64, 32, 8)
    item = files.items[0]

    def encode(pixels: torch.Tensor):
        calls.append(tuple(pixels.shape))
        small = pixels[:, :, ::8, ::8].float() / 255
        return small, small - 1

    calls: list[tuple[int, ...]] = []
    pixels = torch.from_numpy(files.pixels(0, spec))
    assert cache.load([item], spec) is None
    cache.store(item, spec, pixels, encode)
    cache.store(item, spec, pixels, encode)
    assert calls == [(1, 2, 32, 64, 3)]
    stored = cache.load([item, item], spec)
    assert torch.equal(stored.mean[1], pixels[:, ::8, ::8].float() / 255)
    assert torch.equal(stored.logvar, stored.mean - 1)
    assert torch.equal(stored.first[0], pixels[0])
    changes = [Spec(3, 64, 32, 8), Spec(2, 32, 64, 8), Spec(2, 64, 32, 4)]
    assert len({cache.path(item, other) for other in (spec, *changes)}) == 4
    assert LatentCache(tmp_path / "cache", "two").load([item], spec) is None
    moved = type(item)(Entry(item.entry.path, start=0.5), item.width, item.height, item.fps, item.end)
    assert cache.load([moved], spec) is None
    cache.path(item, spec).write_bytes(b"damaged")
    assert cache.load([item], spec) is None
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".safetensors"]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"data\.cache: .* cannot be written: "):
        LatentCache(tmp_path / "file" / "cache", "one").store(item, spec, pixels, encode)


def run_settings(folder: Path, model: Path, output: Path, **data):
    files = {"kind": "files", "path": str(folder), "workers": 0, "cache": None, "held_out": 1} | data
    clips = {"frames": [2, 3], "fps": [8], "sizes": [[32, 16], [16, 32]], "pictures_every": 3}
    return small.settings(
        "small-image-to-video", model, output, data=files, clips=clips, validation={"times": 1, "clips": 2, "steps": 1}
    )


def test_a_run_on_files_reports_what_it_left_out(folder: Path, first: Path, tmp_path: Path) -> None:
    settings = run_settings(folder, first, tmp_path / "run")
    with pytest.warns(DataWarning, match=r"broken\.(mp4|png) is left out") as caught:
        Trainer(settings, device="cpu", progress=False).train()
    assert len([warning for warning in caught if warning.category is DataWarning]) == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {Path(line["path"]).name for line in lines} == {"broken.mp4", "broken.png"}
    assert len(small.log(tmp_path / "run")) == 4
    assert len(small.log(tmp_path / "run", "validation")) == 1


@pytest.mark.filterwarnings("ignore::i2vgen_ms.training.report.DataWarning")
def test_a_run_on_kept_latents_decodes_nothing_after_its_beginning(
    folder: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = run_settings(folder, first, tmp_path / "run", cache=str(tmp_path / "cache"))
    settings = settings.replace("validation.times", 0)
    trainer = Trainer(settings, device="cpu", progress=False)
    trainer.train()
    kept = sorted((tmp_path / "cache").iterdir())
    losses = [entry["loss"] for entry in small.log(tmp_path / "run")]

    def nothing(*_: object) -> None:
        raise AssertionError("a file was decoded")

    monkeypatch.setattr(FileSource, "pixels", nothing)
    again = Trainer(settings.replace("output", str(tmp_path / "again")), device="cpu", progress=False)
    again.train()
    assert sorted((tmp_path / "cache").iterdir()) == kept
    assert [entry["loss"] for entry in small.log(tmp_path / "again")] == losses


@pytest.mark.filterwarnings("ignore::i2vgen_ms.training.report.DataWarning")
def test_a_file_that_is_too_large_to_be_kept_is_left_out(
    folder: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = FileSource.pixels

    def limited(self, index: int, *given) -> np.ndarray:
        if self.items[index].entry.path.endswith("b.mkv"):
            raise MediaLimitError("more than is read")
        return pixels(self, index, *given)

    monkeypatch.setattr(FileSource, "pixels", limited)
    settings = run_settings(folder, first, tmp_path / "run", cache=str(tmp_path / "cache"), held_out=0)
    Trainer(settings.replace("validation.times", 0), device="cpu", progress=False).train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {"path": str(folder / "b.mkv"), "reason": "more than is read"} in lines


def test_latents_cannot_be_kept_for_other_tasks(folder: Path, first: Path, tmp_path: Path) -> None:
    data = run_settings(folder, first, tmp_path / "run", cache=str(tmp_path / "cache")).to_json()["data"]
    settings = small.settings("small-autoencoder", first, tmp_path / "run", data=data)
    with pytest.raises(ConfigurationError, match="only the ST-UNet is trained on latents"):
        Trainer(settings, device="cpu", progress=False).train()
