"""The networks a configuration describes, on the meta device, each with the layout of its published file.

No weights are read and no memory is used; what loads, checks and converts files starts from here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from i2vgen_ms import catalogue
from i2vgen_ms.config.schema import Configuration, PartSpec
from i2vgen_ms.tensors.ops import Ops
from i2vgen_ms.weights.layout import IDENTITY, Layout
from i2vgen_ms.weights.names import StUNetLayout
from i2vgen_ms.weights.names_autoencoder import AutoencoderLayout
from i2vgen_ms.weights.names_clip import ImageEncoderLayout, TextEncoderLayout

NETWORKS = ("encoder", "st_unet", "autoencoder")


@dataclass(frozen=True)
class Architecture:
    """A network without values, and how the published files name its tensors."""

    network: nn.Module
    layout: Layout


class _Temporal:
    """The chosen temporal blocks, as the ST-UNet takes them."""

    def __init__(self, spec: PartSpec) -> None:
        self._part: Any = catalogue.resolve("temporal-blocks", spec.type, spec.where)
        self._spec = spec
        self.fixed_heads = bool(getattr(self._part, "fixed_heads", False))

    def block(self, **given: Any) -> nn.Module:
        network: nn.Module = catalogue.build("temporal-blocks", self._spec, **given)
        return network

    def shared_part(self, **given: Any) -> nn.Module | None:
        shared: nn.Module | None = self._part.shared_part(**self._spec.options, **given)
        return shared


def build(configuration: Configuration, name: str, ops: Ops | None = None, *, device: str = "meta") -> Architecture:
    """The network `name` (one of NETWORKS) of a configuration, on the meta device, in evaluation mode.

    device: another one gives the network the weights that its layers begin with, from torch's own random numbers.
    Raises: ConfigurationError for a part or an option that is not there.
    """
    make = {"encoder": _encoder, "st_unet": _st_unet, "autoencoder": _autoencoder}[name]
    with torch.device(device):
        architecture = make(getattr(configuration, name), ops or Ops())
    architecture.network.eval().requires_grad_(False)
    return architecture


def _encoder(spec: PartSpec, ops: Ops) -> Architecture:
    network = catalogue.build("encoders", spec)
    if spec.type == "openclip-image":
        return Architecture(network, ImageEncoderLayout())
    if spec.type != "openclip-text":
        return _foreign(network)
    skipped = 0 if spec.options["layer"] == "last" else 1
    return Architecture(network, TextEncoderLayout(layers=spec.options["text"]["layers"], skipped=skipped))


def _autoencoder(spec: PartSpec, ops: Ops) -> Architecture:
    network = catalogue.build("autoencoders", spec, ops=ops)
    return Architecture(network, AutoencoderLayout()) if spec.type == "kl-f8" else _foreign(network)


def _foreign(network: nn.Module) -> Architecture:
    """A network of another package: its attribute `layout` translates names; without one files hold its own names."""
    return Architecture(network, getattr(network, "layout", IDENTITY))


def _st_unet(spec: PartSpec, ops: Ops) -> Architecture:
    if spec.type != "st-unet":
        return _foreign(catalogue.build("st-unets", spec, ops=ops))

    def nested(name: str) -> PartSpec:
        where = f"{spec.where}.{name}" if spec.where else name
        return PartSpec.from_json(spec.options.get(name, {}), where)

    numbers = {key: value for key, value in spec.options.items() if key not in ("context", "temporal", "attention")}
    context, temporal = nested("context"), nested("temporal")
    attention = catalogue.build("attention", nested("attention"))
    if nested("attention").type != "sdpa":  # the table's own is that, and has faster kernels for some shapes
        ops = replace(ops, attention=attention)
    network = catalogue.build(
        "st-unets",
        PartSpec(spec.type, numbers, spec.where),
        context=partial(catalogue.build, "contexts", context),
        temporal=_Temporal(temporal),
        ops=ops,
    )
    layout = StUNetLayout(
        levels=len(numbers["multipliers"]),
        residual_blocks=numbers["residual_blocks"],
        attention_levels=numbers["attention_levels"],
        context=context.type,
        rotary_repeats=temporal.options.get("repeats", 0) if temporal.type == "rotary" else 0,
    )
    return Architecture(network, layout)
