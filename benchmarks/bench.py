"""What the rows of a table share: sizes, model folders, both sides loaded, and how exact they are.

Given the arguments of a command. Each stage's models are made and loaded once, when a row first needs them.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.theirs import Theirs
from benchmarks.timing import Gate, interleaved, relative_error
from i2vgen_ms.config import reader
from i2vgen_ms.pipelines import load
from i2vgen_ms.runtime.sizes import latent_size
from i2vgen_ms.weights import architecture

META = torch.device("meta")
# Of a forward that is measured alone; any timestep does.
TIMESTEP = 741


@dataclass
class Bench:
    """One command's choices, and what was loaded for them.

    folder: of the model folders. steps: sampling steps that are run; None is each row's own choice. oracle: where the
    published classes are, for processes that this one starts. alone: measure our side only.
    """

    folder: Path
    size: str
    device: torch.device
    steps: int | None = None
    repeat: int = 3
    oracle: Path | None = None
    alone: bool = False
    _kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def half(self) -> bool:
        """Whether the networks run in fp16, as the shipped configurations have it for CUDA."""
        return self.device.type == "cuda"

    def home(self, stage: int) -> Path:
        return models.make(self.folder, stage, self.size, self.device)

    def configuration(self, stage: int) -> Any:
        return self._once(("configuration", stage), lambda: reader.read(self.home(stage)))

    def latent_shape(self, stage: int) -> tuple[int, int, int, int]:
        return self._once(("shape", stage), lambda: latent_shape(self.configuration(stage)))

    def ours(self, stage: int, **given: Any) -> Any:
        """Our pipeline of a stage, on the device for good."""
        return self._once(("ours", stage, repr(given)), lambda: self._load(stage, given))

    def theirs(self, stage: int) -> Theirs:
        """The published networks of a stage."""
        return self._once(("theirs", stage), lambda: Theirs(self.home(stage), stage, self.device, half=self.half))

    def gate(self, stage: int) -> Gate | None:
        """How exact one forward of a stage's network is, also for the rows that run it many times."""
        if self.alone:
            return None
        return self._once(("gate", stage), lambda: forward_gate(self, stage, batch=1))

    def taken(self, sides: Mapping[str, Callable[[], object]], **options: Any) -> dict[str, list[float]]:
        """What each side takes (`timing.interleaved`); a side that is not to be measured has nothing."""
        wanted = {name: function for name, function in sides.items() if name == "ours" or not self.alone}
        taken = interleaved(wanted, repeat=self.repeat, device=self.device, **options)
        return {name: taken.get(name, []) for name in sides}

    def release(self) -> None:
        """Lets go of everything that was loaded."""
        gates = {key: value for key, value in self._kept.items() if key[0] == "gate"}
        self._kept.clear()
        self._kept |= gates
        free(self.device)

    def _load(self, stage: int, given: dict[str, Any]) -> Any:
        return load(self.home(stage), device=self.device, **{"memory": "fast"} | given)

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True)
class Inputs:
    """The same numbers in the words of both sides, for a batch of one or of the two guidance branches.

    Attributes: ours: the arguments of our network; theirs: those of the published one, an item at a time.
    """

    ours: dict[str, Tensor]
    theirs: list[dict[str, Tensor]]


def inputs(bench: Bench, stage: int, batch: int) -> Inputs:
    """What a forward of a stage is given: latents and a condition, and for 2 the same latents with another."""
    generator = torch.Generator(bench.device).manual_seed(stage)
    x = normal((1, *bench.latent_shape(stage)), generator)
    tokens = 1 if stage == 1 else 77
    conditions = normal((batch, tokens, 1024), generator)
    t = torch.full((1,), TIMESTEP, device=bench.device)
    ours = {"x": x.repeat(batch, 1, 1, 1, 1), "t": t.float().repeat(batch)}
    ours["image" if stage == 1 else "text"] = conditions
    theirs = [{"x": x, "t": t, "y": condition} for condition in conditions.split(1)]
    if stage == 1:
        ours["fps"] = torch.full((batch,), 8.0, device=bench.device)
        theirs = [one | {"fps": torch.full((1,), 8, device=bench.device)} for one in theirs]
    return Inputs(ours, theirs)


def inputs_on_meta(
    configuration: Any, stage: int, *, batch: int = 1, conditions: int = 1, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Arguments without numbers of a forward of ours, at the configuration's size, with so many conditions an item."""
    context = torch.empty((batch * conditions, 1 if stage == 1 else 77, 1024), device=META)
    given = {
        "x": torch.empty((batch, *latent_shape(configuration)), dtype=dtype, device=META),
        "t": torch.empty((batch,), device=META),
        "image" if stage == 1 else "text": context,
    }
    return given | ({"fps": torch.empty((batch,), device=META)} if stage == 1 else {})


def latent_shape(configuration: Any) -> tuple[int, int, int, int]:
    """`c f h w` of what a configuration's network works on at its size."""
    output, network = configuration.output, cast(Any, architecture.build(configuration, "st_unet").network)
    factor = 2 ** (len(configuration.autoencoder.options["multipliers"]) - 1)
    rows, columns = latent_size(network, height=output.height, width=output.width, factor=factor)
    return network.latent_channels, output.num_frames, rows, columns


def our_forward(bench: Bench, stage: int, given: Inputs) -> Tensor:
    with torch.no_grad(), placed(bench.ours(stage), "st_unet") as network:
        out: Tensor = network(**given.ours)
        return out


def their_forward(side: Theirs, given: Inputs) -> Tensor:
    """As published guidance does it: one forward an item."""
    return torch.cat([side.forward(**one) for one in given.theirs])


def forward_gate(bench: Bench, stage: int, batch: int) -> Gate:
    """How far both sides' forwards are from the published network's in fp32."""
    given = inputs(bench, stage, batch)
    side = Theirs(bench.home(stage), stage, bench.device, half=False) if bench.half else bench.theirs(stage)
    with exact(bench.device):
        reference = their_forward(side, given)
    del side
    free(bench.device)
    ours = relative_error(our_forward(bench, stage, given), reference)
    return Gate(ours, relative_error(their_forward(bench.theirs(stage), given), reference))


@contextmanager
def placed(pipe: Any, name: str) -> Iterator[Any]:
    """A network of a pipeline, on the device as a whole."""
    with pipe.networks.residents[name].placed(stream=False, keep=True) as network:
        yield network


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """fp32 without TF32."""
    if device.type != "cuda":
        yield
        return
    places: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to rename them
        before = [place.allow_tf32 for place in places]
        try:
            for place in places:
                place.allow_tf32 = False
            yield
        finally:
            for place, was in zip(places, before, strict=True):
                place.allow_tf32 = was


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def free(device: torch.device) -> None:
    """Gives the memory of what nobody holds back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
