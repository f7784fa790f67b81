"""Rows of single forwards: the networks of both stages, the autoencoder, the encoders.

A batch of 2 is the two branches of guidance, for which the published code runs its network twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.bench import (
    Bench,
    exact,
    forward_gate,
    inputs,
    normal,
    our_forward,
    placed,
    their_forward,
)
from benchmarks.theirs import Theirs
from benchmarks.timing import ROUNDING, Gate, Row, interleaved, relative_error

# Tiny networks are to show that the row works, without the minutes that compiling takes.
COMPILED = {"full": True, "small": False}


def network(bench: Bench, stage: int) -> Iterator[Row]:
    """The forward of a stage's network, for one item and for both guidance branches."""
    for batch in (1, 2):
        given, side = inputs(bench, stage, batch), bench.theirs(stage)
        gate = bench.gate(stage) if batch == 1 or bench.alone else forward_gate(bench, stage, batch)
        taken = bench.taken(
            {
                "published": partial(their_forward, side, given),
                "ours": partial(our_forward, bench, stage, given),
            },
            warm=2,
        )
        name = f"stage {stage}, forward of batch {batch}"
        yield Row(name, "published", taken["published"], taken["ours"], gate=gate)


def compiled(bench: Bench, stage: int) -> list[Row]:
    """The same against the published network under torch.compile."""
    given, side, gate = inputs(bench, stage, 1), bench.theirs(stage), bench.gate(stage)
    eager, waits = side.unet, []
    side.unet = torch.compile(eager, disable=not COMPILED[bench.size])  # type: ignore[assignment]
    for _ in range(2):
        started = time.perf_counter()
        their_forward(side, given)
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
        waits.append(time.perf_counter() - started)
    taken = interleaved(
        {"compiled": lambda: their_forward(side, given), "ours": lambda: our_forward(bench, stage, given)},
        repeat=bench.repeat,
        device=bench.device,
    )
    side.unet = eager
    notes = {"compile wait s": waits[0] - waits[1]}
    name = f"stage {stage}, forward beside torch.compile"
    return [Row(name, "compiled", taken["compiled"], taken["ours"], gate=gate, notes=notes)]


def autoencoder(bench: Bench) -> list[Row]:
    """Stage 2's encoding and decoding of all frames, ours in fp32 and in fp16."""
    formats = ["float32", "float16"] if bench.half else ["float32"]
    generator, side = torch.Generator(bench.device).manual_seed(5), bench.theirs(2)
    output = bench.configuration(2).output
    channels, frames, rows, columns = bench.latent_shape(2)
    size = output.height, output.width
    pixels = torch.rand((1, frames, *size, 3), generator=generator, device=bench.device) * 2 - 1
    latents = normal((1, frames, rows, columns, channels), generator)
    pictures, small = (rearrange(one, "1 f h w c -> f c h w").contiguous() for one in (pixels, latents))
    if not bench.alone:
        wide = Theirs(bench.home(2), 2, bench.device, half=False)
        wide.autoencoder = side.autoencoder  # the same weights: published keeps them in fp32
        with exact(bench.device):
            encoded, decoded = wide.encode(pictures), wide.decode(small)
        own = relative_error(side.decode(small), decoded)
        own_encoding = relative_error(side.encode(pictures), encoded)
    result = []
    for number in formats:
        tuned = bench.ours(2, dtype={"autoencoder": number})
        encode, decode = partial(_encode, tuned, pixels), partial(_decode, tuned, latents)
        gates: list[Gate | None] = [None, None]
        if not bench.alone:
            latent, frame = (rearrange(one(), "1 f h w c -> f c h w") for one in (encode, decode))
            # Published encoding is fp32; in fp16 ours may lose what published decoding loses.
            limit = own_encoding if number == "float32" else max(own_encoding, own)
            gates = [Gate(relative_error(latent, encoded), limit), Gate(relative_error(frame, decoded), own)]
        name = f"{frames} frames, {number}"
        result += [
            _row(bench, f"autoencoder, encode {name}", gates[0], lambda: side.encode(pictures), encode),
            _row(bench, f"autoencoder, decode {name}", gates[1], lambda: side.decode(small), decode),
        ]
    return result


def encoders(bench: Bench) -> list[Row]:
    """The picture's vector of stage 1 and the two texts' tokens of stage 2."""
    generator = torch.Generator(bench.device).manual_seed(6)
    picture = normal((1, 3, 224, 224), generator)
    texts = ["A red panda asleep in the snow", bench.ours(2).configuration.prompt.negative]

    def ours(stage: int, source: Any) -> Tensor:
        with torch.no_grad(), placed(bench.ours(stage), "encoder") as encoder:
            out: Tensor = encoder(source)
            return out

    first, second = bench.theirs(1), bench.theirs(2)
    gates: list[Gate | None] = [None, None]
    if not bench.alone:
        with exact(bench.device):
            wanted = first.encode_picture(picture), second.encode_text(texts)
        made = ours(1, picture), ours(2, texts)
        gates = [Gate(relative_error(got, one), ROUNDING) for got, one in zip(made, wanted, strict=True)]
    return [
        _row(
            bench,
            "encoder, a picture",
            gates[0],
            lambda: first.encode_picture(picture),
            lambda: ours(1, picture),
        ),
        _row(
            bench,
            "encoder, two texts",
            gates[1],
            lambda: [second.encode_text([text]) for text in texts],
            lambda: ours(2, texts),
        ),
    ]


def _encode(pipe: Any, pixels: Tensor) -> Tensor:
    with torch.no_grad(), placed(pipe, "autoencoder") as network:
        latents: Tensor = network.encode(pixels).mode()
        return latents


def _decode(pipe: Any, latents: Tensor) -> Tensor:
    with torch.no_grad(), placed(pipe, "autoencoder") as network:
        return torch.cat(list(network.decode(latents)), dim=1)


def _row(bench: Bench, name: str, gate: Gate | None, theirs: Any, ours: Any) -> Row:
    taken = bench.taken({"published": theirs, "ours": ours})
    return Row(name, "published", taken["published"], taken["ours"], gate=gate)
