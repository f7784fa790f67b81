"""The sections of a training's settings as classes: strict types, ranges, no unknown keys, no defaults, all frozen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from i2vgen_ms.config.sections import Fps, Frames, Section, Size

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
Place = Annotated[str, Field(min_length=1, max_length=4096)]
Range = Annotated[list[Amount], Field(min_length=2, max_length=2)]
Precision = Literal["no", "fp16", "bf16"]


class Length(Section):
    """When a run is over: after so many steps, or so many minutes of the clock, whichever comes first.

    The clock begins when the trainer is made, so that it counts the preparations and the validations too. What follows
    the run's length (rates, phases, validations) follows whichever of the two is further.
    """

    steps: Count | None
    minutes: Annotated[float, Field(gt=0, le=10**6)] | None

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.steps is None and self.minutes is None:
            message = "give steps or minutes, or the run never ends"
            raise PydanticCustomError("option", "{message}", {"message": message})
        return self


class BatchSizes(Section):
    """Clips (or single pictures) a process takes at a time, and how many such batches make a step."""

    clips: Count
    pictures: Count
    accumulation: Count


class Clips(Section):
    """What batches look like: each step draws one of each list. sizes are [width, height] in pixels.

    pictures_every: every so many steps the batch is of single pictures, and the network leaves out all that mixes
    frames; 8 is the published mix of 7 to 1, 0 trains on clips alone.
    """

    frames: Annotated[list[Frames], Field(min_length=1)]
    fps: Annotated[list[Fps], Field(min_length=1)]
    sizes: Annotated[list[Annotated[list[Size], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    pictures_every: CountOrNone


class WorldData(Section):
    """The procedural world, rendered on the training device. Null leaves a choice to the world.

    scenes: so many different ones, over and over, such as 1 to see whether a network can learn at all; null: no end.
    pool: so many clips (and pictures) are made at the beginning, and each batch is drawn from their latents, which stay
        on the device; null makes every clip anew. It costs 4 bytes a latent value, 128 KiB a clip of the small model.
    """

    kind: Literal["world"]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    split: Place
    scenes: Count | None
    shapes: Annotated[list[str], Field(min_length=1)] | None
    pairs: Share | None
    cameras: Share | None
    pool: Count | None
    workers: CountOrNone


class FileData(Section):
    """A folder of videos and pictures, or a list of them (.jsonl, .csv), decoded by `workers` processes.

    cache: a folder for latents, which are then made once, of the beginning of each clip; null makes them at each use,
    of another part each time. held_out: so many files are kept for validation.
    """

    kind: Literal["files"]
    path: Place
    workers: CountOrNone
    cache: Place | None
    held_out: CountOrNone


Data = Annotated[WorldData | FileData, Field(discriminator="kind")]


class Optimiser(Section):
    """AdamW (Loshchilov and Hutter 2019). clip: the largest norm of all gradients together; 0 does not cut."""

    learning_rate: Annotated[float, Field(gt=0, le=10)]
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    epsilon: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Share
    clip: Amount


class Rate(Section):
    """How the learning rate goes in each phase: up over the share `warm_up` of it, then constant, or down a cosine.

    final: the share of the rate that a cosine ends at.
    """

    schedule: Literal["constant", "cosine"]
    warm_up: Annotated[float, Field(ge=0, lt=1)]
    final: Share


class Phase(Section):
    """One part of the run: its share of the whole, the factor of its learning rate, and its data (null: the run's)."""

    share: Annotated[float, Field(gt=0, le=1)]
    rate: Annotated[float, Field(gt=0, le=1000)]
    data: Data | None


class Numerics(Section):
    """Number formats: of the trained network (autocast; its weights stay fp32), and of the frozen ones.

    fast_kernels: TF32 products, and the search for the fastest convolutions, on CUDA.
    graphs: CUDA graphs of the trained network, where one process has one CUDA device: small networks are then as fast
        as the device, and not as the program that starts their kernels. Needs checkpointing 'none'.
    """

    train: Precision
    frozen: Precision
    fast_kernels: bool
    graphs: bool


class Keeping(Section):
    """How often a run's state is written, in steps (0: never, and a killed run starts anew)."""

    every: CountOrNone


class Logging(Section):
    """Every how many steps numbers are read from the device and logged, and whether TensorBoard gets them too."""

    every: Count
    tensorboard: bool


class Validation(Section):
    """How often in a run (0: never; the last time at its end), on how many held-out clips, with how many steps.

    steps: of the sampler; null takes the model's own.
    """

    times: Annotated[int, Field(ge=0, le=1000)]
    clips: Annotated[int, Field(ge=1, le=256)]
    steps: Count | None


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021) of the linear layers with these last names; the network itself stays.

    alpha: the adapters count alpha / rank times.
    """

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Annotated[list[Literal["to_q", "to_k", "to_v", "to_out", "to_qkv"]], Field(min_length=1)]


class Degrading(Section):
    """How clips are spoilt for the second stage; each batch draws one of each.

    factors: by which they are made smaller and larger again. blur: deviation in small pixels. noise: deviation in
    units of [-1, 1]. quality: of the compression, as of JPEG, 1 to 100; compressed and autoencoded are the shares of
    batches that are compressed, and that go through the autoencoder while they are small.
    full, between: shares of the examples that carry the spoilt clip as far as a sampler without noise of its own does,
    and a random part of that, as samplers with noise do; the rest shows the network the clean clip, noised.
    """

    factors: Annotated[list[Annotated[float, Field(ge=1, le=16)]], Field(min_length=1)]
    blur: Range
    noise: Range
    quality: Range
    compressed: Share
    autoencoded: Share
    full: Share
    between: Share

    @model_validator(mode="after")
    def _are_shares(self) -> Self:
        if self.full + self.between > 1:
            message = f"full and between are shares of the examples; {self.full} and {self.between} are more than all"
            raise PydanticCustomError("option", "{message}", {"message": message})
        return self


class DenoisingObjective(Section):
    """What the ST-UNet is trained on.

    condition_dropout: share of examples whose condition is the null condition, for guidance.
    extra_dropout: the same for the extra input, which becomes zeros; independent of the condition's.
    offset_noise: weight of one number a frame and channel in the noise.
    posterior: whether a clip's latents are a `sample` of the autoencoder's posterior or its `mode`.
    timesteps: `uniform` draws each for itself; `stratified` spreads those of a batch evenly.
    shift: 1 draws all timesteps equally often, more draws noisy ones more often (see objective.py).
    start: the share of the noise levels that is trained; null is all of them (of video-to-video: the model's strength).
    """

    condition_dropout: Share
    extra_dropout: Share
    offset_noise: Amount
    posterior: Literal["sample", "mode"]
    timesteps: Literal["uniform", "stratified"]
    shift: Annotated[float, Field(gt=0, le=100)]
    start: Annotated[float, Field(gt=0, le=1)] | None
    degrading: Degrading | None


class AutoencoderObjective(Section):
    """Weights of what the autoencoder is trained on, all means over their values.

    absolute, squared: of the difference between the pixels. edges: of the absolute difference between neighbours'
    differences. kl: of the posterior's distance from a unit normal distribution.
    """

    absolute: Amount
    squared: Amount
    edges: Amount
    kl: Amount


class ContrastiveObjective(Section):
    """CLIP's loss: the softmax's temperature at the start, and the least it may fall to."""

    temperature: Annotated[float, Field(gt=0, le=10)]
    least_temperature: Annotated[float, Field(gt=0, le=10)]
