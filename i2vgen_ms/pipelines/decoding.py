"""Decoding: the frames of one video's latents, chunk by chunk, checked on their way.

Given latents and what decodes them; it does not know where the frames go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from i2vgen_ms.config.sections import Output
from i2vgen_ms.errors import NonFiniteError
from i2vgen_ms.pipelines.preview import Decoder
from i2vgen_ms.pipelines.progress import Progress
from i2vgen_ms.tensors.arrival import Arrival


def decoded(
    latents: Tensor, autoencoder: Decoder, output: Output, report: Callable[[Progress], object]
) -> Iterator[Tensor]:
    """Chunks of frames `f h w c`, cropped to the video's size, of the latents `c f h w` of one video.

    Raises: NonFiniteError for NaN and infinity; what `report` raises.
    """
    done = 0
    coming: deque[tuple[Tensor, Arrival]] = deque()
    chunks = autoencoder.decode(rearrange(latents, "c f h w -> 1 f h w c"))
    while (chunk := next(chunks, None)) is not None or coming:
        if chunk is not None:
            frames = chunk[0, :, : output.height, : output.width]
            coming.append((frames, Arrival(torch.isfinite(frames).all())))
            if frames.is_cuda and len(coming) == 1:
                continue  # the device has the next chunk to work on while this one is waited for
        frames, good = coming.popleft()
        if not bool(good.wait()):
            raise NonFiniteError(
                f"decoding: NaN or infinity after frame {done}; try dtype 'float32' for the autoencoder"
            )
        done += len(frames)
        report(Progress("decoding", done, latents.shape[1]))
        yield frames
