"""A passage: once down through the levels of a network and up again, for one or several conditions an item.

Given what the stem made. What comes before the first look at the context is the same for all conditions, and computed
once; from there they go on as one batch, or one after the other, which takes little more memory than one does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from i2vgen_ms.st_unet.context import Context
from i2vgen_ms.st_unet.level import Level, Stage

if TYPE_CHECKING:
    from i2vgen_ms.st_unet.network import SpatioTemporalUNet


class Passage:
    """Through `network`, with the embedding of time and frame rate, and what temporal blocks share.

    The embedding is `b e`; where the g conditions of each item are together, `(g b) e`.
    """

    def __init__(self, network: SpatioTemporalUNet, embedding: Tensor, shared: Any, skip_temporal: bool) -> None:
        self._network, self._embedding, self._shared, self._skip_temporal = network, embedding, shared, skip_temporal

    def together(self, begun: list[Tensor], context: Tensor | Context) -> Tensor:
        """`(g b) f h w c` of what the stem made, `b f h w c`, alone in a list that is emptied; context `(g b) n d`."""
        return self._rest(begun, self._network.descent(), context)

    def apart(self, begun: list[Tensor], contexts: Iterable[Tensor | Context]) -> Tensor:
        """The same, for contexts `b n d` one after the other; the list grows by what they share."""
        down = deque(self._network.descent())
        while not _looks(down[0]):
            begun.append(self._down(down.popleft(), begun[-1], None))
        stage = down.popleft()
        before, made = self._down(stage, begun[-1], None), []
        for context in contexts:
            passed = [*begun]
            passed.append(self._through(stage, before, context))
            made.append(self._rest(passed, down, context))
        return torch.cat(made)

    def _rest(self, begun: list[Tensor], down: Iterable[nn.Module], context: Tensor | Context) -> Tensor:
        """From what was made on the way down, which is taken from the list, and what was not yet, to the output."""
        network = self._network
        # What is alive stands in this list alone, so that memory is free again as soon as it can be.
        alive = network.shelf()
        while begun:
            alive.append(begun.pop(0))
        for module in down:
            alive.append(self._down(module, alive[-1], context))
        alive.append(network.middle_out(self._handed(alive.pop()), self._embedding, self._skip_temporal))
        for level in cast(Iterable[Level], reversed(network.up)):
            for stage in level.stages:
                alive.append(self._through(stage, self._handed(alive.pop(), alive.pop()), context))
            if level.resample is not None:
                alive.append(level.resample(alive.pop()))
        out: Tensor = network.head(network.head_norm(alive.pop(), silu=True))
        return out

    def _down(self, module: nn.Module, x: Tensor, context: Tensor | Context | None) -> Any:
        return self._through(module, self._handed(x), context) if isinstance(module, Stage) else module(x)

    def _through(self, stage: nn.Module, given: Any, context: Tensor | Context | None) -> Any:
        return stage(given, self._embedding, context, self._shared, self._skip_temporal)

    def _handed(self, *parts: Tensor) -> Tensor | list[Tensor]:
        """What came up, and the skip that waits for it, as a stage takes them.

        The list is the stage's alone, and so is what is in it; with gradients everything is remembered anyway. A skip
        from before the context tells groups of items apart is beside each of them.
        """
        if not torch.is_grad_enabled():
            return list(parts)
        return parts[0] if len(parts) == 1 else self._network.ops.join(*parts)


def _looks(module: nn.Module) -> bool:
    return isinstance(module, Stage) and module.spatial is not None
