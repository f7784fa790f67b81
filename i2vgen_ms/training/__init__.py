"""Training: the ST-UNet of both stages, the autoencoder and the encoders, from one settings file.

>>> from i2vgen_ms.training import Trainer, read
>>> folder = Trainer(read('small-image-to-video')).train()

It stands on accelerate (the extra [train]). Every number of a run stands in its settings; everything random of a step
is a function of the seed and the step, so that a run goes on after a kill as if nothing had happened. `Trainer` is
fetched on first use: the worker processes of the data need no networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from i2vgen_ms.training.settings import Settings, read

if TYPE_CHECKING:
    from i2vgen_ms.training.loop import Trainer

__all__ = ["Settings", "Trainer", "read"]


def __getattr__(name: str) -> Any:
    if name == "Trainer":
        from i2vgen_ms.training.loop import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
