"""The report and the contact sheet: what people read, what programs read, and files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2vgen_ms.errors import OutputError
from i2vgen_ms.evaluation.report import METRICS, Report
from i2vgen_ms.media.sheet import write_sheet

REPORT = Report(
    model="models/small",
    task="image-to-video",
    clips=4,
    settings={"steps": 20},
    columns={
        "model": {"psnr": 27.125, "direction_accuracy": 0.8125, "frechet_distance": 1.0},
        "first frame": {"psnr": 19.5, "direction_accuracy": math.nan},
    },
    seconds=1.234,
    notes=("something is missing",),
)


def test_the_table_has_a_row_a_metric_that_was_measured() -> None:
    assert REPORT.table().splitlines() == [
        "                                   better  model  first frame",
        "PSNR, dB                           higher  27.12        19.50",
        "direction of the motion right      higher  0.812            -",
        "Frechet distance (own classifier)  lower   1.000            -",
        "note: something is missing",
    ]


def test_the_json_holds_everything(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "eval.json")
    assert [file.name for file in tmp_path.iterdir()] == ["eval.json"]
    assert json.loads((tmp_path / "eval.json").read_text()) == {
        "format": "i2vgen-ms-evaluation/1",
        "model": "models/small",
        "task": "image-to-video",
        "clips": 4,
        "settings": {"steps": 20},
        "seconds": 1.23,
        "columns": {
            "model": {"psnr": 27.125, "direction_accuracy": 0.8125, "frechet_distance": 1.0},
            "first frame": {"psnr": 19.5, "direction_accuracy": None},
        },
        "notes": ["something is missing"],
    }


def test_every_metric_says_what_is_better() -> None:
    assert {metric.better for metric in METRICS.values()} == {"higher", "lower", "1"}


VIDEO = torch.zeros(2, 4, 6, 8, 3)


@pytest.mark.parametrize("write", [REPORT.write, lambda path: write_sheet(path, [VIDEO])], ids=["report", "sheet"])
def test_a_file_is_there_whole_or_as_it_was(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "no" / "file.png")
    target = tmp_path / "file.png"
    target.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="the disk is gone"):
        write(target)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_the_sheet_has_a_row_for_each_video_of_each_clip(tmp_path: Path) -> None:
    truth = torch.arange(2)[:, None, None, None, None] * 0.5 + torch.arange(4)[None, :, None, None, None] * 0.1 + VIDEO
    write_sheet(tmp_path / "s.png", [truth, -truth], clips=2, frames=3)
    picture = np.asarray(Image.open(tmp_path / "s.png"))
    assert picture.shape == (4 * 8, 3 * 10, 3)
    levels = (picture[3::8, 4::10, 0] / 127.5 - 1).round(2)
    np.testing.assert_allclose(levels[:, 1:], [[0.2, 0.3], [-0.2, -0.3], [0.7, 0.8], [-0.7, -0.8]], atol=0.011)
    assert (picture[6:8] == 128).all()
