"""What both stages share: a model folder's networks, batches of inputs, decoding and delivering.

A stage keeps nothing of a call, so that threads may share it. The subclasses say what conditions the network and where
sampling starts.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Generator, Tensor

from i2vgen_ms.cautions import caution
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.diffusion.guidance import shares
from i2vgen_ms.diffusion.samplers.sampler import Step
from i2vgen_ms.errors import ArgumentError, ForkError, NonFiniteError, OutOfMemoryError
from i2vgen_ms.media.limits import Limits
from i2vgen_ms.pipelines import arguments, delivery, preview
from i2vgen_ms.pipelines.decoding import decoded
from i2vgen_ms.pipelines.networks import Adapter, Loader, Networks
from i2vgen_ms.pipelines.progress import Progress, Reporter
from i2vgen_ms.pipelines.result import Result
from i2vgen_ms.runtime import heap, residency
from i2vgen_ms.runtime.compiled import advise
from i2vgen_ms.runtime.memory import LOWER, ONLY, MemoryWarning, Need, Plan, choose
from i2vgen_ms.runtime.shortage import let_go, memory_advice
from i2vgen_ms.runtime.sizes import latent_size

# What an encoder computes with, roughly: a picture or two texts.
ENCODING = 256 * 2**20

Settings = TypeVar("Settings", bound=Configuration)
Prepared = TypeVar("Prepared")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Call(Generic[Settings]):
    """One call for `count` inputs: its configuration, its networks, its arguments as given, and the progress.

    fps: frames a second of the files. window: the most frames that the network is given at once, where that is not all
    of them. audio: what is put into the files beside the frames. plan: how the device's memory is used.
    """

    settings: Settings
    networks: Networks
    given: Mapping[str, Any]
    count: int
    reporter: Reporter
    fps: float | Fraction
    window: int = 0
    audio: Any = None
    plan: Plan = ONLY

    @contextmanager
    def placed(self, name: str) -> Iterator[Any]:
        """The network `name`, where it computes, with the room that it needs there."""
        need = self._needs()[name]
        batched = arguments.branches(self.settings.diffusion.guidance) == "batched"
        workspace = need.batched if batched else need.sequential
        # The autoencoder is small and runs as a whole.
        stream = self.plan.stream and name != "autoencoder"
        resident = self.networks.residents[name]
        with ExitStack() as stack:
            with memory_advice(f"making room for the {name}"):
                network = stack.enter_context(resident.placed(stream=stream, keep=self.plan.keep, workspace=workspace))
            yield self.plan.within(network)

    @property
    def graphs(self) -> str:
        """When the calls of the ST-UNet that is placed may be recorded: never while its weights come and go."""
        return "off" if self.networks.residents["st_unet"].streaming else self.settings.cuda_graphs

    def planned(self, device: torch.device) -> Call[Settings]:
        """The call with the plan that its memory mode means on `device`, now that its sizes are known."""
        if device.type == "cpu":
            return self
        plan = choose(self.settings.memory, self._needs(), residency.available_bytes(device))
        settings, guidance = self.settings, self.settings.diffusion.guidance
        if settings.compile:
            advise(plan.mode)
        if plan.sequential and arguments.branches(guidance) is not None and self.given.get("guidance_branches") is None:
            settings = settings.replace("diffusion.guidance", {**guidance.to_json(), "branches": "sequential"})
        return replace(self, plan=plan, settings=settings)

    def _needs(self) -> dict[str, Need]:
        """What each network needs; a part of another package that does not say is taken to need its weights again."""
        channels, frames, rows, columns = self.latent_shape()
        frames, factor = min(frames, self.window or frames), self.networks.autoencoder.factor
        count = min(self.count, self.settings.batch_size)
        needs = {name: Need(one.nbytes, one.nbytes, one.nbytes) for name, one in self.networks.residents.items()}
        if hasattr(self.networks.st_unet, "activation_bytes"):
            sized, item = self.networks.st_unet.activation_bytes, (channels, frames, rows, columns)
            one = sized((count, *item))
            two = sized((count, *item), 2) if shares(self.networks.st_unet) else sized((2 * count, *item))
            needs["st_unet"] = replace(needs["st_unet"], batched=two, sequential=one)
        autoencoder = self.plan.within(self.networks.autoencoder)
        if hasattr(autoencoder, "activation_bytes"):
            size = autoencoder.activation_bytes(rows * factor, columns * factor)
            needs["autoencoder"] = replace(needs["autoencoder"], batched=size, sequential=size)
        return needs | {"encoder": replace(needs["encoder"], batched=ENCODING, sequential=ENCODING)}

    def on_step(self, step: Step) -> None:
        self.reporter.report(Progress("sampling", step.index + 1, step.steps, step.x0, self._preview))

    def _preview(self, latents: Tensor, frames: int, side: int) -> preview.Pictures:
        with memory_advice("decoding a preview"), self.placed("autoencoder") as autoencoder:
            return preview.pictures(latents, autoencoder, self.settings.output, frames=frames, side=side)

    def generators(self, count: int) -> list[Generator]:
        """A generator for each item of a batch, all from the call's seed."""
        return [Generator().manual_seed(self.settings.seed) for _ in range(count)]

    def latent_shape(self) -> tuple[int, int, int, int]:
        """`c f h w` of one item's latents at the size that the network takes."""
        output, network = self.settings.output, self.networks.st_unet
        rows, columns = latent_size(
            network, height=output.height, width=output.width, factor=self.networks.autoencoder.factor
        )
        return network.latent_channels, output.num_frames, rows, columns

    def given_latents(self, name: str) -> Tensor | None:
        """The latents that were given as the argument `name`, fp32, if any; ArgumentError unless their shape fits."""
        latents = self.given.get(name)
        if latents is None:
            return None
        needed = (self.count, *self.latent_shape())
        if not isinstance(latents, Tensor) or tuple(latents.shape) != needed:
            have = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
            output = self.settings.output
            raise ArgumentError(
                f"{name} must be a tensor b c f h w; {self.count} times {output.num_frames} frames of "
                f"{output.width}x{output.height} need {' '.join(map(str, needed))}, not {have}"
            )
        return finite(latents.float(), name)


def finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself. Raises NonFiniteError, which begins with `what`, for NaN and infinity."""
    if not torch.isfinite(tensor).all():
        raise NonFiniteError(f"{what}: NaN or infinity; try dtype 'float32', and check the model folder and the input")
    return tensor


class Stage(ABC, Generic[Settings, Prepared]):
    """One stage with the model of one folder."""

    def __init__(
        self,
        configuration: Settings,
        folder: Path,
        *,
        device: torch.device,
        dtype: Any = None,
        cache: bool = False,
        adapter: Adapter | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.configuration, self.folder, self.device = configuration, folder, device
        self.limits = limits or Limits()
        self._process = os.getpid()
        self._dtypes = arguments.dtypes(configuration, device.type, dtype)
        self._loader = Loader(configuration, folder, device, cache=cache, adapter=adapter)
        self._loader.networks(self._dtypes)

    @property
    def networks(self) -> Networks:
        """The loaded encoder, ST-UNet and autoencoder."""
        return self._loader.networks(self._dtypes)

    def settings(self, **given: Any) -> Settings:
        """The configuration of a call for one input with these arguments; ArgumentError as the call would raise it."""
        return self._begin(given, 1).settings

    @abstractmethod
    def _prepare(self, source: Any, call: Call[Settings]) -> Prepared:
        """Reads one input: everything that can be wrong with it is found out here, before any heavy work."""

    @abstractmethod
    def _latents(self, prepared: Sequence[Prepared], call: Call[Settings], span: slice) -> Tensor:
        """Clean latents `b c f h w` for the prepared inputs, which are the `span` of all that were given."""

    def _settle(self, call: Call[Settings], prepared: Sequence[Prepared]) -> Call[Settings]:
        """The call, with what only its inputs decide."""
        return call

    def _batch_size(self, call: Call[Settings]) -> int:
        """How many inputs are worked off together."""
        return call.settings.batch_size

    def _run_all(self, source: Any, output: Any, given: dict[str, Any]) -> Any:
        """A Result for one input, or a list of them for a list."""
        many = isinstance(source, (list, tuple))
        sources = list(source) if many else [source]
        call = self._begin(given, len(sources))
        output_type = delivery.check_output_type(given.get("output_type"))
        wanted = delivery.targets(output, len(sources) if many else None)
        delivery.probe(call.settings.output, wanted)  # all of them, however late their turn comes
        results: list[Result] = []
        with call.reporter, torch.no_grad(), heap.kept(self.device):
            for start in range(0, len(sources), self._batch_size(call)):
                span = slice(start, start + self._batch_size(call))
                made, memory = self._run_batch(call, sources[span], wanted[span], output_type, span)
                results += made
                call = replace(call, settings=call.settings.replace("memory", memory))
        return results if many else results[0]

    def _begin(self, given: Mapping[str, Any], count: int) -> Call[Settings]:
        """The call for `count` inputs, its arguments checked."""
        if os.getpid() != self._process:
            raise ForkError(
                f"this pipeline was loaded by the process {self._process} and is used in {os.getpid()}, which was "
                "forked from it: torch's threads and CUDA do not survive that, and the call would hang; load the "
                "pipeline in the child, or start it with multiprocessing's 'spawn'"
            )
        settings = arguments.applied(self.configuration, given)
        dtype, fps = given.get("dtype"), settings.output.fps
        dtypes = self._dtypes if dtype is None else arguments.dtypes(self.configuration, self.device.type, dtype)
        return Call(
            settings=settings,
            networks=self._loader.networks(dtypes),
            given=given,
            count=count,
            reporter=Reporter(given.get("progress")),
            fps=0 if fps == "source" else fps,
        )

    def _run_batch(
        self,
        call: Call[Settings],
        sources: Sequence[Any],
        wanted: Sequence[delivery.Target],
        output_type: str,
        span: slice,
    ) -> tuple[list[Result], str]:
        """The results of one batch, and the memory mode that it took."""
        with memory_advice("reading the input"):
            prepared = [self._prepare(source, call) for source in sources]
        settled = self._settle(call, prepared)
        kind, seed = output_type, settled.settings.seed

        def make(call: Call[Settings]) -> list[Result]:
            with ExitStack() as stack:
                # Before any heavy work, so that a place that cannot be written to is found out now.
                opened = delivery.writers(
                    call.settings.output, wanted, fps=call.fps, output_type=kind, seed=seed, audio=call.audio
                )
                writers = [writer and stack.enter_context(writer) for writer in opened]
                sampled = self._latents(prepared, call, span)
                kept = [
                    delivery.deliver(self._decode(one, call), writer, kind, count=one.shape[1])
                    for one, writer in zip(sampled, writers, strict=True)
                ]
            triples = zip(wanted, writers, kept, strict=True)
            return [delivery.result(*triple, output_type=kind, seed=seed) for triple in triples]

        return self._fitting(settled, make)

    def _fitting(self, call: Call[Settings], make: Callable[[Call[Settings]], Made]) -> tuple[Made, str]:
        """What `make` makes of the planned call, and the memory mode that the call had then.

        When memory runs out and the call says so, all is made again in the next lower mode, from the same seed.
        """
        while True:
            planned = call.planned(self.device)
            try:
                with memory_advice("making the video"):
                    return make(planned), call.settings.memory
            except OutOfMemoryError as error:
                let_go(error)
                lower = LOWER.get(planned.plan.mode)
                if lower is None or call.settings.on_oom == "raise":
                    raise
                problem = str(error)
            caution(f"trying again with memory={lower!r}, because of: {problem}", MemoryWarning, stacklevel=2)
            # The estimate of what is needed was too small: nothing that idles keeps its room.
            residency.make_room(self.device, sys.maxsize)
            call = replace(call, settings=call.settings.replace("memory", lower))

    @staticmethod
    def _decode(latents: Tensor, call: Call[Settings]) -> Iterator[Tensor]:
        """Chunks of frames `f h w c`, cropped to the video's size, of the latents `c f h w` of one video."""
        with memory_advice("decoding"), call.placed("autoencoder") as autoencoder:
            yield from decoded(latents, autoencoder, call.settings.output, call.reporter.report)
