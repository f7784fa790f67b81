"""README and docs/: links lead somewhere, code parses, commands are real, tables and messages are those of the code."""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from i2vgen_ms import errors
from i2vgen_ms.cli.main import add_commands
from i2vgen_ms.config import reader
from i2vgen_ms.pipelines import arguments, chain, loading
from i2vgen_ms.training import settings as training

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "SECURITY.md"]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
TASKS = ("image-to-video", "video-to-video")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """The names that a page's headings can be linked by."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page: str) -> None:
    found = re.findall(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"", without_code(TEXTS[page]))
    for link in (one or other for one, other in found):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


def test_every_page_and_picture_is_linked() -> None:
    linked = {
        ((ROOT / page).parent / link.partition("#")[0]).resolve()
        for page, text in TEXTS.items()
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
    }
    pictures = [path for path in (ROOT / "docs" / "pictures").iterdir() if path.suffix in (".png", ".gif")]
    scripts = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "examples").glob("*.ipynb")]
    for path in [*PAGES, *pictures, *scripts]:
        assert path in linked, path


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for page, text in TEXTS.items():
        for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if language in languages:
                yield page, code


def test_python_blocks_parse() -> None:
    found = list(blocks("python"))
    assert len(found) > 10
    for page, code in found:
        try:
            ast.parse(code)
        except SyntaxError as error:
            pytest.fail(f"{page}: {error}\n{code}")


def commands(code: str) -> Iterator[list[str]]:
    """The words after `i2vgen-ms` of every such command in a block of shell, comments and continuations resolved."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        for ends, group in itertools.groupby(lexer, key=lambda word: set(word) <= set(";&|")):
            words = list(group)
            if not ends and words[0] == "i2vgen-ms":
                yield words[1:]
            elif words[0] == "torchrun" and "i2vgen_ms" in words:
                yield words[words.index("i2vgen_ms") + 1 :]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="i2vgen-ms", exit_on_error=False)
    made.add_argument("--version", action="store_true")
    add_commands(made)
    return made


def test_commands_are_real(capsys: pytest.CaptureFixture[str]) -> None:
    found = [(page, words) for page, code in blocks("sh") for words in commands(code)]
    # And those of running text, where they are whole: `i2vgen-ms COMMAND ...` without an ellipsis.
    for page, text in TEXTS.items():
        for line in re.findall(r"`i2vgen-ms ([^`.][^`]*)`", re.sub(r"\s*\n\s*", " ", text)):
            if "..." not in line and " " in line:
                found.append((page, shlex.split(line)))
    assert len(found) > 25
    known = parser()
    for page, words in found:
        try:
            known.parse_args(words)
        except (SystemExit, argparse.ArgumentError) as error:
            if words[-1:] != ["--help"]:
                pytest.fail(f"{page}: i2vgen-ms {shlex.join(words)}: {error} {capsys.readouterr().err}")


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = re.split(r"^#+ ", TEXTS[page].split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def shown(task: str, name: str, variant: str) -> str:
    """The value of an argument in a shipped configuration, as the tables write it."""
    values: Any = reader.shipped(variant).to_json()
    paths = arguments.PATHS | arguments.TASK_PATHS[task]
    if name in arguments.PARTS:
        path = f"{arguments.PARTS[name][0]}.type"
    else:
        path = paths.get(name) or f"diffusion.guidance.{arguments.GUIDANCE[name]}"
    for key in path.split("."):
        values = values[key]
    text = str(values) if values != "" else "''"
    return f"`{text[:27]}...`" if len(text) > 30 else f"`{text}`"


def same(cell: str, value: str) -> bool:
    """Long texts are shortened somewhere."""
    return cell == value or (cell.endswith("...`") and value.endswith("...`") and value[:20] == cell[:20])


PAGE = "docs/arguments.md"


@pytest.mark.parametrize("task", TASKS)
def test_every_argument_of_a_call_stands_in_its_table_with_its_default(task: str) -> None:
    column = 1 + TASKS.index(task)
    defaults = {row[0].strip("`"): row[column] for row in rows(PAGE, "Both stages")}
    title = task.replace("-", " ").capitalize()
    defaults |= {row[0].strip("`"): row[1] for row in rows(PAGE, title)}
    for name, cell in defaults.items():
        assert same(cell, shown(task, name, task)), (name, cell, shown(task, name, task))
    other = [row[0].strip("`") for row in rows(PAGE, "Of the call alone") if row[1] in ("both", task)]
    assert sorted([*defaults, *other]) == sorted(arguments.names(task))
    assert set(other) == set(arguments.others(task))
    every = {row[0].strip("`"): row[column] for row in rows(PAGE, "The small models")}
    differing = {name for name in defaults if not same(shown(task, name, f"small-{task}"), defaults[name])}
    assert differing <= {name for name, cell in every.items() if cell}
    for name, cell in every.items():
        assert not cell or same(cell, shown(task, name, f"small-{task}")), (name, cell)


def test_the_arguments_of_the_chain_and_of_loading_are_all_there() -> None:
    described = [row[0].strip("`") for row in rows(PAGE, "Both stages in one call")]
    taken = inspect.signature(chain.Animation.__call__).parameters
    assert set(described) == set(taken) - {"self", "picture"}
    given = {row[0].strip("`"): row[1] for row in rows(PAGE, "Loading")}
    wanted = inspect.signature(loading.load).parameters
    assert {name: cell for name, cell in given.items() if name != "folder"} == {
        name: f"`{parameter.default}`" for name, parameter in wanted.items() if name != "folder"
    }
    assert set(given) == set(wanted)


def test_the_pages_name_all_shipped_settings() -> None:
    assert (
        sorted(row[0].strip("`") for row in rows("docs/training.md", "Training and evaluation")) == training.shipped()
    )


def messages() -> list[str]:
    """Every text in the package's code, with a NUL where a value is put in."""
    found = []
    for file in (ROOT / "i2vgen_ms").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


QUOTED = re.findall(r"^- \*\*`([^`]+)`\*\*[^\n]*\(([\w;' ]+)\)$", TEXTS["docs/troubleshooting.md"], re.MULTILINE)


def test_the_messages_that_troubleshooting_quotes_are_in_the_code() -> None:
    assert len(QUOTED) > 40
    known = messages()
    for quoted, classes in QUOTED:
        pieces = quoted.split("...")
        pattern = re.compile(".*\0.*".join(map(re.escape, pieces)), re.DOTALL)  # the code puts something in there
        likely = (text for text in known if all(piece in text for piece in pieces))
        assert any(pattern.search(text) for text in likely), quoted
        for name in re.findall(r"\w+Error\b", classes):
            assert hasattr(errors, name), name


def test_every_quoted_entry_of_troubleshooting_is_in_the_form_that_is_checked() -> None:
    entries = re.findall(r"^- \*\*`([^`\n]+)`", TEXTS["docs/troubleshooting.md"], re.MULTILINE)
    assert entries == [quoted for quoted, _ in QUOTED]


LARGEST = {".png": 200_000, ".gif": 1_000_000}


def test_pictures_are_small_and_move_where_they_should() -> None:
    files = [path for path in (ROOT / "docs" / "pictures").iterdir() if path.suffix in LARGEST]
    assert len(files) >= 4
    for file in files:
        assert file.stat().st_size < LARGEST[file.suffix], file
        with Image.open(file) as picture:
            assert getattr(picture, "n_frames", 1) == (16 if file.suffix == ".gif" else 1)


def test_both_readmes_say_the_same() -> None:
    english, chinese = TEXTS["README.md"], TEXTS["README.zh.md"]
    for block in (r"^```(?:sh|python)\n.*?^```", r"^#+ "):
        here, there = (re.findall(block, text, re.DOTALL | re.MULTILINE) for text in (english, chinese))
        assert len(here) == len(there) > 3
    code = [re.sub(r"\s*#.*", "", "".join(re.findall(r"^```(?:sh|python)\n.*?^```", text, re.DOTALL | re.MULTILINE)))
            for text in (english, chinese)]  # fmt: skip
    assert code[0] == code[1], "code is the same, but for its comments"
    links = [set(re.findall(r"\]\(([^)\s]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {"README.zh.md"} == links[1] - {"README.md"}
