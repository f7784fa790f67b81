"""What networks are told beside the noise."""

from __future__ import annotations

import torch

from i2vgen_ms.pipelines.conditions import first_frame_input


def test_the_first_frames_input_is_the_same_at_every_frame() -> None:
    latents = torch.randn(2, 4, 3, 5)
    made = first_frame_input(latents, 6)
    assert made.shape == (2, 4, 6, 3, 5)
    assert all(torch.equal(made[:, :, frame], latents) for frame in range(6))
