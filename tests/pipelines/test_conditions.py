"""What networks are told beside the noise."""

from __future__ import annotations

import torch

from i2vgen_ms.pipelines.conditions import first_frame_input


def test_the_first_frames_input_is_the_same_at_every_frame() -> None:
    latents = torch.randn(2, 4, 3, 5)
    made = first_frame_input(latents, 6, "latents")
    assert made.shape == (2, 4, 6, 3, 5)
    assert all(torch.equal(made[:, :, frame], latents) for frame in range(6))


def test_places_are_told_by_frame_row_and_column() -> None:
    latents = torch.randn(2, 4, 3, 5)
    made = first_frame_input(latents, 6, "latents-and-places")
    assert made.shape == (2, 7, 6, 3, 5)
    assert torch.equal(made[:, :4], first_frame_input(latents, 6, "latents"))
    for axis, size in enumerate((6, 3, 5)):
        wanted = torch.linspace(-1, 1, size).reshape([-1 if one == axis else 1 for one in range(3)])
        assert torch.equal(made[:, 4 + axis], wanted.expand(2, 6, 3, 5))
