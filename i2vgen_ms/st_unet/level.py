"""A level of the network: the stages of one resolution. It knows neither the other levels nor the skips."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from i2vgen_ms.st_unet.context import Context
from i2vgen_ms.st_unet.residual import ResidualBlock
from i2vgen_ms.st_unet.transformer import Begun, SpatialTransformer


class Stage(nn.Module):
    """A residual block and, on levels that have it, attention within frames and over frames."""

    def __init__(self, residual: ResidualBlock, spatial: SpatialTransformer | None, temporal: nn.Module | None) -> None:
        super().__init__()
        self.residual, self.spatial, self.temporal = residual, spatial, temporal

    def forward(
        self,
        given: Tensor | list[Tensor] | Begun,
        embedding: Tensor,
        context: Tensor | Context | None,
        shared: Any,
        skip_temporal: bool,
    ) -> Any:
        """What the residual block takes, `b f h w c`, and `embedding: b e`, or more rows, of which the first count.

        Of a context `(g b) n d`, g conditions an item, the result is `(g b) f h w c` if the stage looks at it. Without
        a context, a stage that looks at one stops before it and returns `Begun`, to be given back with each context.
        Both are calls of the module, as who brings its weights waits for these.
        """
        if isinstance(given, Begun):
            x = given
        else:
            rows = len(given[0] if isinstance(given, list) else given)
            x = self.residual(given, embedding[:rows], skip_temporal)
        if self.spatial is not None:
            x = self.spatial(x, context.of(self.spatial) if isinstance(context, Context) else context)
            if context is None:
                return x
        if self.temporal is not None and not skip_temporal:
            x = self.temporal(x, shared)
        return x


class Level(nn.Module):
    """The stages of one resolution on the way down or up, and the change of resolution after them, if any."""

    def __init__(self, stages: list[Stage], resample: nn.Module | None) -> None:
        super().__init__()
        self.stages, self.resample = nn.ModuleList(stages), resample
