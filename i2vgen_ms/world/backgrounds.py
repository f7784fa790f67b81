"""The empty rooms of scenes, and the bars by which the first frame tells what the camera will do.

Given scenes and what their cameras see; knows nothing of things.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from i2vgen_ms.world import paint, rules
from i2vgen_ms.world.motion import View
from i2vgen_ms.world.scene import Scene

_LIGHT, _FIGURE = 0.11, 0.11  # how strong the gradient and the pattern are
_WARMTH = (0.03, 0.0, -0.03)  # RGB along the gradient
_BAR, _BAR_THICKNESS, _BAR_INSET = 0.16, 0.026, 0.055  # half the length, half the thickness, distance from the edge
_BAR_RIM = 0.022
_SIDES = {"pan right": [(1, 0)], "pan down": [(0, 1)], "pan left": [(-1, 0)], "pan up": [(0, -1)]}
_ALL_SIDES = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def paint_backgrounds(
    scenes: Sequence[Scene], view: View, scale: npt.NDArray[np.float64], *, still: npt.NDArray[np.bool_], out: Tensor
) -> None:
    """Fills `out`, `b f h w c`; `scale` is pixels a unit, `b 1`. Where the camera is `still`, one frame is repeated."""
    height, width, device = out.shape[2], out.shape[3], out.device
    for rows, shown in ((np.flatnonzero(still).tolist(), slice(0, 1)), (np.flatnonzero(~still).tolist(), slice(None))):
        if not rows:
            continue
        grounds = [scenes[row].background for row in rows]
        angle = np.radians([[ground.angle] for ground in grounds])
        across, down = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)
        extent = np.array([[scenes[row].width, scenes[row].height] for row in rows]) / 2
        columns = paint.send(
            device,
            view.x[rows, shown],
            view.y[rows, shown],
            1 / (scale[rows] * view.zoom[rows, shown]),
            across,
            down,
            1 / (np.abs(across) * extent[:, :1] + np.abs(down) * extent[:, 1:]),
            [[1 / ground.period] for ground in grounds],
            [[ground.shift[0]] for ground in grounds],
            [[ground.shift[1]] for ground in grounds],
            [[list(rules.PATTERNS).index(ground.pattern)] for ground in grounds],
        )
        x0, y0, unit, ax, ay, far, often, shift_x, shift_y, kind = columns
        x = (torch.arange(width, device=device) + (0.5 - width / 2)) * unit + x0
        y = (torch.arange(height, device=device) + (0.5 - height / 2))[:, None] * unit + y0
        along, aside = x * ax + y * ay, y * ax - x * ay
        gradient = along * far
        light = gradient * _LIGHT + paint.pattern(kind, along * often + shift_x, aside * often + shift_y) * _FIGURE
        base = torch.tensor([rules.BACKGROUNDS[ground.colour] for ground in grounds], device=device)
        colour = base[:, None, None, None] + gradient[..., None] * torch.tensor(_WARMTH, device=device)
        out[torch.tensor(rows, device=device)] = (colour + light[..., None]) * 2 - 1


def paint_bars(scenes: Sequence[Scene], scale: npt.NDArray[np.float64], *, out: Tensor) -> None:
    """Paints the bars of moving cameras over the pictures, the same in every frame."""
    height, width, device = out.shape[2], out.shape[3], out.device
    for camera in rules.CAMERAS:
        rows = [row for row, scene in enumerate(scenes) if scene.camera == camera]
        if camera == "still" or not rows:
            continue
        rooms = np.array([[scenes[row].width, scenes[row].height] for row in rows])
        unit, half_width, half_height = paint.send(device, scale[rows], rooms[:, :1] / 2, rooms[:, 1:] / 2)
        x = (torch.arange(width, device=device) + (0.5 - width / 2)) / unit
        y = (torch.arange(height, device=device) + (0.5 - height / 2))[:, None] / unit
        distance = torch.full_like(x + y, 9.0)
        for right, down in _SIDES.get(camera, _ALL_SIDES):
            middle = x - right * (half_width - _BAR_INSET), y - down * (half_height - _BAR_INSET)
            size = (_BAR_THICKNESS, _BAR) if right else (_BAR, _BAR_THICKNESS)
            distance = torch.minimum(distance, paint.bar(*middle, *size))
        core = (0.5 - distance * unit).clamp(0, 1)[..., None]
        rim = (0.5 - (distance - _BAR_RIM) * unit).clamp(0, 1)[..., None] * 0.6
        value = paint.BLACK if camera == "zoom out" else paint.WHITE
        index = torch.tensor(rows, device=device)
        framed = out[index] * (1 - rim) + rim * (1 - 2 * value)
        out[index] = framed * (1 - core) + core * (2 * value - 1)
