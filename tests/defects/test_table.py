"""The table of README.md: every row is there, every test it names exists, and no test of this folder is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ROWS = [f"{letter}{number}" for letter, last in (("A", 5), ("B", 39), ("C", 9)) for number in range(1, last + 1)]
LINE = re.compile(r"^\| ([A-D]\d*) \| (?:(tests/\S+\.py)::(test_\w+)|not here: .+) \|$")


def lines() -> list[re.Match[str]]:
    """The table's lines below its head, each of the one form there is."""
    table = (HERE / "README.md").read_text(encoding="utf-8").split("| --- | --- |\n")[1]
    matches = [(line, LINE.match(line)) for line in table.splitlines()]
    assert [line for line, match in matches if match is None] == []
    return [match for _, match in matches if match]


def names_in(file: Path) -> set[str]:
    """Names of the test functions at the top of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_row_is_in_the_table_in_order() -> None:
    assert list(dict.fromkeys(match[1] for match in lines())) == [*ROWS, "D"]


def test_every_test_in_the_table_exists() -> None:
    named = [(match[2], match[3]) for match in lines() if match[2]]
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)]
    assert missing == []
    assert len(named) > 130


def test_every_test_of_this_folder_stands_at_the_rows_it_is_named_after() -> None:
    listed = {(match[2], match[3], match[1]) for match in lines()}
    for file in sorted(HERE.glob("test_*.py")):
        for name in names_in(file) if file.name != Path(__file__).name else ():
            rows = [row.upper() for row in re.findall(r"(?<=_)[abc]\d+(?=_)", name)]
            assert rows, name
            for row in rows:
                assert (file.relative_to(ROOT).as_posix(), name, row) in listed, (name, row)
            doc = next(
                ast.get_docstring(node) or ""
                for node in ast.parse(file.read_text(encoding="utf-8")).body
                if isinstance(node, ast.FunctionDef) and node.name == name
            )
            assert all(f"{row}:" in doc for row in rows), name
