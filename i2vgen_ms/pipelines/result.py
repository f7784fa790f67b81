"""What a call gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True)
class Result:
    """One video.

    seed: the seed that was used; the same seed, input and settings give the same video again.
    path: the file, exactly as it was asked for, if one was asked for.
    video: the file's bytes, if neither a file nor frames were asked for.
    frames: uint8 `f h w c`, if asked for with output_type 'frames'.
    tensor: fp32 `c f h w` near [-1, 1] as decoded, if asked for with output_type 'pt'.
    """

    seed: int
    path: str | None = None
    video: bytes | None = None
    frames: npt.NDArray[np.uint8] | None = None
    tensor: Tensor | None = None
