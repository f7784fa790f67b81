"""The catalogue: every entry resolves and fits its slot, options are checked, other packages' parts are found."""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from i2vgen_ms import catalogue
from i2vgen_ms.config import reader
from i2vgen_ms.config.part import PartSpec
from i2vgen_ms.errors import ConfigurationError, UnknownPartError
from i2vgen_ms.weights import architecture

ROOT = Path(__file__).resolve().parent.parent
SLOTS = (
    *("attention", "autoencoders", "contexts", "encoders", "guidance", "readers", "samplers", "schedules", "spacings"),
    *("st-unets", "temporal-blocks", "writers"),
)
ENTRIES = [(slot, name) for slot in catalogue.slots() for name in catalogue.names(slot)]
OTHERS = {
    "schedule": "schedules",
    "spacing": "spacings",
    "sampler": "samplers",
    "guidance": "guidance",
    "writer": "writers",
    "reader": "readers",
}
CALLS = ("forward", "begin", "decode", "__call__")  # what a part does, by the kind of part


def test_the_slots_are_those_of_the_plan() -> None:
    assert catalogue.slots() == sorted(SLOTS)


@pytest.mark.parametrize(("slot", "name"), ENTRIES)
def test_every_entry_resolves_and_is_described(slot: str, name: str) -> None:
    entry = catalogue.names(slot)[name]
    part = catalogue.resolve(slot, name)
    assert part.__module__ == entry.path.partition(":")[0], "the entry should name the module that defines the part"
    assert entry.about.strip() == entry.about != ""
    assert "\n" not in entry.about
    assert inspect.getdoc(part)
    kinds = {parameter.kind for parameter in inspect.signature(part).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds, "an unknown option must not vanish in **kwargs"
    if isinstance(part, type):
        assert kinds <= {inspect.Parameter.KEYWORD_ONLY}, "a part's options are keyword-only"


@pytest.mark.parametrize("slot", catalogue.slots())
def test_all_parts_of_a_slot_are_called_alike(slot: str) -> None:
    calls = {name: _call(catalogue.resolve(slot, name)) for name in catalogue.names(slot)}
    assert len(set(calls.values())) == 1, calls


def _call(part: Any) -> tuple[Any, ...]:
    """How a part is called: its positional parameters (a function), or those of the method that does its work."""
    if isinstance(part, type):
        method = next(getattr(part, name) for name in CALLS if name in vars(part))
        parameters = list(inspect.signature(method).parameters.values())[1:]
        return (method.__name__, *((p.kind, p.name if len(parameters) > 1 else "x") for p in parameters))
    return tuple(p.name for p in inspect.signature(part).parameters.values() if p.kind is not p.KEYWORD_ONLY)


@pytest.mark.parametrize("variant", reader.variants())
def test_every_shipped_variant_can_be_built(variant: str) -> None:
    configuration = reader.shipped(variant)
    parts = dict(configuration.parts())
    for name in architecture.NETWORKS:
        assert sum(tensor.numel() for tensor in architecture.build(configuration, name).network.parameters()) > 10_000
        parts.pop(name)
    for path, spec in parts.items():
        slot = OTHERS[path.rpartition(".")[2]]
        # how many frames are read is the call's business, not the configuration's
        catalogue.build(slot, spec, **({"max_frames": 1} if slot == "readers" else {}))


def test_building_passes_options_and_given_arguments() -> None:
    sampler = catalogue.build("samplers", {"type": "ddim", "eta": 1})
    assert sampler.eta == 1.0
    assert isinstance(sampler.eta, float)
    spec = PartSpec("ddim", {"eta": 0.0})
    assert catalogue.build("samplers", spec, eta=0.25).eta == 0.25
    schedule = catalogue.build("schedules", reader.shipped("image-to-video").diffusion.schedule)
    assert isinstance(schedule, functools.partial)
    assert schedule().timesteps == 1000
    assert catalogue.bind("contexts", {"type": "image-vector", "tokens": 2}).keywords == {"tokens": 2}


WRONG = [
    ("samplers", {"type": "hune"}, UnknownPartError, "no part 'hune' in the slot 'samplers'; did you mean 'heun'"),
    ("sampler", {"type": "heun"}, UnknownPartError, "no slot 'sampler'; did you mean 'samplers'"),
    ("samplers", {"type": "ddim", "etaa": 1}, ConfigurationError, "'ddim' of samplers: unknown option 'etaa'; did you"),
    ("samplers", {"type": "ddim", "eta": "1"}, ConfigurationError, "'ddim' of samplers: option 'eta': .*got '1'"),
    ("samplers", {"type": "ddim", "eta": True}, ConfigurationError, "option 'eta': .*got True"),
    ("samplers", {"type": "ddim", "eta": None}, ConfigurationError, "option 'eta': .*got None"),
    ("samplers", {"type": "ddim", "eta": -1}, ConfigurationError, "samplers.eta: a number from 0"),
    ("samplers", {"eta": 1}, ConfigurationError, "samplers.type: missing"),
    ("samplers", {"type": ["ddim"]}, ConfigurationError, "samplers.type: a part's name"),
    ("schedules", {"type": "linear", "timesteps": 10}, ConfigurationError, "options first_beta, last_beta"),
    ("schedules", {"type": "linear", "timesteps": 1.5}, ConfigurationError, "option 'timesteps': .*got 1.5"),
    ("guidance", {"type": "classifier-free", "scale": 1, "branches": "both"}, ConfigurationError, "option 'branches'"),
    ("st-unets", {"type": "st-unet", "multipliers": [1, "2"]}, ConfigurationError, r"option 'multipliers'\[1\]"),
    ("temporal-blocks", {"type": "transformer", "ops": 3}, ConfigurationError, "'ops'"),
]


@pytest.mark.parametrize(("slot", "spec", "error", "message"), WRONG)
def test_a_wrong_part_or_option_is_refused(
    slot: str, spec: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        catalogue.build(slot, spec)


def test_errors_say_where_the_part_was_read() -> None:
    configuration = reader.shipped("image-to-video").replace("diffusion.sampler", {"type": "ddim", "etta": 1})
    with pytest.raises(
        ConfigurationError, match=r"^configuration: diffusion.sampler: part 'ddim' of samplers: unknown"
    ):
        catalogue.build("samplers", configuration.diffusion.sampler)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package of tests/packages/extra_parts."""
    folder = tmp_path_factory.mktemp("site")
    source = ROOT / "tests" / "packages" / "extra_parts"
    copy = tmp_path_factory.mktemp("source") / "extra_parts"  # setuptools writes beside its sources
    shutil.copytree(source, copy)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--target", str(folder), str(copy)], check=True)
    return folder


def python(installed: Path, code: str) -> str:
    """What the code prints, run with the extra package installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_package_adds_parts_and_cannot_break_the_listing(installed: Path) -> None:
    code = "from i2vgen_ms.cli.main import main; import sys; main(['parts']); sys.exit('torch' in sys.modules)"
    listing = python(installed, code)
    lines = {line.split()[0]: line for line in listing.splitlines() if line.endswith("[extra-parts]")}
    assert "The midpoint method: second order" in lines["midpoint"]
    assert "Mixes every frame with the mean of its neighbours." in lines["moving-average"]
    assert "Never reached." in lines["broken"]
    assert "(module extra_parts.nowhere is not installed)" in lines["absent"]
    assert "(Nothing is not defined in extra_parts.midpoint)" in lines["unnamed"]
    assert "heun" not in lines, "a package must not replace a part of ours"


def test_parts_of_an_installed_package_are_built_by_name(installed: Path) -> None:
    code = """
import math, torch
from i2vgen_ms import catalogue
from i2vgen_ms.errors import ConfigurationError, UnknownPartError
from i2vgen_ms.weights import architecture
sampler = catalogue.build("samplers", {"type": "midpoint", "where": 0.5})
x, target = torch.ones(1, 4, 2, 3, 3), torch.full((1, 4, 2, 3, 3), 2.0)
*_, last = sampler(lambda x, sigma: target, x, [math.inf, 1.0, 0.0], None)
assert torch.allclose(last.x, target)
block = catalogue.build("temporal-blocks", {"type": "moving-average", "strength": 1.0},
                        channels=4, heads=1, head_channels=4, norm_groups=1, ops=None)
assert torch.allclose(block(torch.arange(3.0).view(1, 3, 1, 1, 1))[0, 1], torch.tensor(1.0))
assert catalogue.resolve("samplers", "heun").__module__ == "i2vgen_ms.diffusion.samplers.heun"
for name, words in (("broken", "brought by extra-parts, cannot be imported"), ("absent", "No module named")):
    try:
        catalogue.resolve("samplers", name)
    except UnknownPartError as error:
        assert words in str(error), error
    else:
        raise AssertionError(name)
try:
    catalogue.build("samplers", {"type": "midpoint", "where": "x"})
except ConfigurationError as error:
    print(error)
"""
    assert "part 'midpoint' of samplers: option 'where'" in python(installed, code)


def test_a_configuration_chooses_parts_of_an_installed_package(installed: Path, tmp_path: Path) -> None:
    """The sampler and the temporal block of the extra package make a video, by their names in configuration.json."""
    code = f"""
import json, pathlib
import numpy as np
from i2vgen_ms import random_model
from i2vgen_ms.config import reader
from i2vgen_ms.pipelines import load
folder = pathlib.Path({str(tmp_path)!r})
random_model.make_random_model(folder, {{"max_frames": 3, "latent_hei": 4, "latent_wid": 4}})
values = reader.read(folder).to_json()
values["diffusion"]["sampler"] = {{"type": "midpoint", "where": 0.5}}
values["diffusion"]["steps"] = 2
values["st_unet"]["temporal"] = {{"type": "moving-average", "strength": 0.5}}
(folder / "configuration.json").write_text(json.dumps(values))
random_model.write_random_weights(folder, reader.read(folder))
pipe = load(folder, device="cpu")
assert type(pipe.networks.st_unet.stem_temporal).__module__ == "extra_parts.moving_average"
picture = np.zeros((32, 32, 3), np.uint8)
frames = pipe(picture, output_type="frames", progress=False).frames
other = pipe(picture, output_type="frames", progress=False, sampler="heun").frames
assert frames.shape == (3, 32, 32, 3) and not np.array_equal(frames, other)
"""
    python(installed, code)


def test_an_encoder_of_another_package_is_read_under_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    from i2vgen_ms.config import reader
    from i2vgen_ms.weights import architecture
    from i2vgen_ms.weights.layout import IDENTITY

    known = catalogue.build
    monkeypatch.setattr(
        catalogue,
        "build",
        lambda slot, spec, **given: nn.Linear(2, 3) if spec.type == "extra" else known(slot, spec, **given),
    )
    configuration = reader.shipped("image-to-video").replace("encoder", {"type": "extra"})
    built = architecture.build(configuration, "encoder")
    assert isinstance(built.network, nn.Linear)
    assert built.layout is IDENTITY
