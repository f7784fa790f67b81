"""What an installation holds: built as a wheel and as an editable install, each used from another folder."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import i2vgen_ms

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
LIST = "from i2vgen_ms import catalogue as c; from i2vgen_ms.config import reader; print(reader.variants(), c.slots())"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's installed part, because a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("i2vgen_ms", "configuration", "registry"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped(source: Path) -> set[str]:
    """The files of the source that an installation must hold, as paths inside the package."""
    package = {path.relative_to(source / "i2vgen_ms") for path in (source / "i2vgen_ms").rglob("*") if path.is_file()}
    data = {
        path.relative_to(source)
        for folder in ("configuration", "registry")
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    return {f"i2vgen_ms/{path.as_posix()}" for path in package | data}


def test_a_wheel_holds_everything_and_finds_its_data(source: Path, tmp_path: Path) -> None:
    run([*PIP, "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    assert names == shipped(source)
    here, there = (run([sys.executable, "-c", LIST], tmp_path, PYTHONPATH=str(place)) for place in (ROOT, "site"))
    assert here == there != ""
    modelscope = "from modelscope_hub.cli.main import run_cmd; import sys; sys.exit(run_cmd(sys.argv[1:]))"
    command = [sys.executable, "-c", modelscope, "i2vgen-ms", "parts", "samplers"]
    assert "heun" in run(command, tmp_path, PYTHONPATH="site"), "our commands are missing in ModelScope's own"


def test_an_editable_install_finds_its_data(source: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", target]
    run([*PIP, "install", *options, "-e", str(source)], tmp_path)
    # -S: without the .pth files of this environment, which may hold another editable install of the package
    code = f"import site, sys; site.addsitedir({target!r}); sys.path += {site.getsitepackages()!r}; {LIST}"
    *_, place = run([sys.executable, "-I", "-S", "-c", f"{code}; print(c.__file__)"], tmp_path).split()
    assert place == str(source / "i2vgen_ms" / "catalogue.py")


def test_the_readme_has_the_two_commands_and_the_changelog_the_version() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && i2vgen-ms demo" in readme
    assert "pip install -e '.[test]' && pytest" in readme
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(i2vgen_ms.__version__)}|Unreleased)\]", changelog, re.MULTILINE)


def test_the_readmes_map_is_true() -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## The files\n\n```\n")[1].split("```")[0]
    folder, mapped = ROOT, set()
    for line in block.splitlines():
        name = line.split()[0]
        place = folder / name if line.startswith("  ") else ROOT / name
        if not line.startswith("  "):
            folder = place
        assert place.is_dir() if name.endswith("/") else place.is_file(), line
        mapped.add(place)
    units = {path for path in (ROOT / "i2vgen_ms").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert units <= mapped, "every unit of the package has its phrase"


@pytest.mark.parametrize("name", ["image-to-video", "video-to-video"])
def test_the_model_cards_carry_the_hubs_front_matter(name: str) -> None:
    empty, front, text = (ROOT / "registry" / "cards" / f"{name}.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(front)
    assert empty == ""
    assert values["license"] == "cc-by-nc-nd-4.0"
    assert values["tasks"] == [name]
    assert values["frameworks"] == ["pytorch"]
    assert "They are not part of this project" in " ".join(text.split())


def test_the_lowest_versions_are_those_of_the_plan() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    required = parser["options"]["install_requires"].split()
    for line in ("torch>=2.10", "modelscope[framework]>=1.30", "open_clip_torch>=2.26,<4", "pillow>=12.3"):
        assert line in required
    assert parser["options"]["python_requires"] == ">=3.11"
