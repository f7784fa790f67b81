"""Training: the ST-UNet of both stages, the autoencoder and the encoders, from one settings file.

>>> from i2vgen_ms.training import Trainer, read
>>> folder = Trainer(read('small-image-to-video')).train()

It stands on accelerate (the extra [train]). Every number of a run stands in its settings; everything random of a step
is a function of the seed and the step, so that a run goes on after a kill as if nothing had happened.
"""

from i2vgen_ms.training.loop import Trainer
from i2vgen_ms.training.settings import Settings, read

__all__ = ["Settings", "Trainer", "read"]
