"""The networks of a run: built for training, with the weights that the settings name.

Given the settings; gives back the configuration that describes the networks, and the networks, each fp32. The
operations of what is trained are the plain ones, which have gradients on every device; only attention over frames takes
all clips at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from i2vgen_ms.config import reader
from i2vgen_ms.config.reader import weight_file
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.encoder.text import OpenClipTextEncoder
from i2vgen_ms.errors import ConfigurationError
from i2vgen_ms.runtime import operations
from i2vgen_ms.st_unet.network import SpatioTemporalUNet
from i2vgen_ms.tensors import attention
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.training.randomness import derive
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.load import load

RANDOM, MODEL = "random", "model"
_MOST_ROWS = 32768  # of attention a call; CUDA's kernels take no more than 65535
# The last layers of what is added to something else: with zeros each block begins as the identity.
_ENDS = (".conv_out", ".temporal.convolutions.3", ".project_out", ".to_out")


def described(reference: str) -> tuple[Configuration, Path]:
    """The configuration of a model folder, or of a shipped variant of that name, and its folder."""
    folder = Path(reference)
    if not folder.is_dir():
        if reference not in reader.variants():
            reader.shipped(reference)  # raises, and names the variants that there are
        folder = reader.data.configuration_folder() / reference
    return reader.read(folder), folder


def with_sources(configuration: Configuration, sources: Mapping[str, str]) -> Configuration:
    """The configuration, with the sections of networks that come from other folders as those describe them.

    sources: by network, as in `settings.Sources`.
    """
    for name, source in sources.items():
        if source not in (RANDOM, MODEL):
            other, _ = described(source)
            configuration = configuration.replace(name, getattr(other, name))
    return configuration


def build(
    configuration: Configuration,
    name: str,
    *,
    source: str,
    folder: Path,
    seed: int,
    device: torch.device,
    frozen: bool = False,
) -> nn.Module:
    """One network on the device, fp32, in evaluation mode and without gradients.

    source: as in `settings.Sources`; folder: the model's, for the source `model`. frozen: it will never be trained, and
    is handed the operations of inference.
    Raises: ConfigurationError, CheckpointError.
    """
    if source == RANDOM:
        return fresh(configuration, name, derive(seed, "weights", name)).to(device)
    if source != MODEL:
        other, folder = described(source)
        configuration = configuration.replace("weights", other.weights.model_dump())
    built = architecture.build(configuration, name, operations.table(device) if frozen else training_ops())
    path = weight_file(folder, getattr(configuration.weights, name))
    if not path.exists():
        raise ConfigurationError(
            f"weights.{name}: {path} is not there; give the folder that holds it, or 'random' for new weights"
        )
    network = load(built.network, path, built.layout, dtype=torch.float32, device=device)
    with torch.no_grad():
        for parameter in network.parameters():  # the file's own pages must not be written to
            parameter.data = parameter.data.clone()
    return network


def fresh(configuration: Configuration, name: str, seed: int) -> nn.Module:
    """A network with new weights, on the CPU: those of its layers' own kind, and zeros where a block should begin idle.

    The process's own random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build(configuration, name, training_ops(), device="cpu").network
        with torch.no_grad():
            if isinstance(network, SpatioTemporalUNet):
                _silence(network)
            if isinstance(network, OpenClipTextEncoder):
                network.token_embedding.weight.normal_(std=0.02)  # published: open_clip's own start
    return network


def training_ops() -> Ops:
    """The plain operations, with attention over frames for all clips of a batch in one call."""
    return Ops(frame_attention=_frames_together)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a run changes, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def size(networks: Iterable[nn.Module]) -> int:
    """How many numbers the networks hold."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def fingerprint(configuration: Configuration, name: str, network: nn.Module) -> str:
    """What tells this network's outputs from another's: its description, and sums over its weights."""
    sums = [float(parameter.detach().double().sum()) for parameter in network.parameters()]
    return f"{getattr(configuration, name).to_json()} {sums}"


def _silence(network: SpatioTemporalUNet) -> None:
    for name, parameter in network.named_parameters():
        module = name.rpartition(".")[0]
        inner = ".block." in name  # within a transformer block the sums carry what its last layer takes up
        if module == "head" or (module.endswith(_ENDS) and not inner):
            nn.init.zeros_(parameter)


def _frames_together(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over the frames of every place, `b f n heads d`; copies, but is one call for the whole batch.

    The plain definition takes one clip at a time, which is a call each, and a training batch has many small ones.
    """
    clips = q.shape[0]
    rows = (rearrange(t, "b f n heads d -> (b n) f heads d") for t in (q, k, v))
    chunks = zip(*(t.split(_MOST_ROWS) for t in rows), strict=True)
    out = torch.cat([attention.sdpa(*chunk) for chunk in chunks])
    return rearrange(out, "(b n) f heads d -> b f n heads d", b=clips)
