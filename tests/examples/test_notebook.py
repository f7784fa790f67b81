"""examples/notebook.ipynb: a valid notebook without outputs, whose cells run from top to bottom without jupyter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES, LARGE, SMALL, shape

NOTEBOOK: dict[str, Any] = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))


def test_it_is_a_notebook() -> None:
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert NOTEBOOK["metadata"]["kernelspec"]["language"] == "python"
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["execution_count"] is None
            assert cell["outputs"] == [], "outputs are made by whoever runs it"
        else:
            assert cell["cell_type"] == "markdown"
        assert set(cell) == keys
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        assert all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])


@pytest.mark.full
def test_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace('FAST = {"steps": 8}', 'FAST = {"steps": 2}')
            exec(compile(code, cell["id"], "exec"), names)
    assert names["FAST"] == {"steps": 2}
    assert shape(tmp_path / "small.mp4") == SMALL
    assert shape(tmp_path / "large.mp4") == LARGE
    assert (tmp_path / "both.gif").read_bytes().startswith(b"GIF89a")
    assert len(names["previews"]) == 4
    told = capsys.readouterr().out
    assert "cancelled by the progress callback at sampling 4 of 8" in told
    assert "did you mean 'heun'" in told
