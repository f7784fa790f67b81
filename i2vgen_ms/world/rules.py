"""The rules of the procedural world: its words, its colours and the speeds that every scene shares.

Lengths are in units of the picture's shorter side, times in seconds, angles in degrees, clockwise as seen; x goes
right, y goes down, and the origin is the picture's middle. What the first frame does not show is fixed here,
so that a perfect model could be exact. It knows no scene and draws nothing.
"""

from __future__ import annotations

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "arrow", "drop", "heart")
HELD_OUT_SHAPES = ("heart",)  # never drawn unless asked for
POINTED_SHAPES = ("triangle", "arrow", "drop")  # turn to where they move

COLOURS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]
    "red": (0.86, 0.12, 0.14),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.97, 0.86, 0.12),
    "green": (0.12, 0.62, 0.22),
    "cyan": (0.08, 0.74, 0.82),
    "blue": (0.14, 0.28, 0.88),
    "purple": (0.52, 0.18, 0.74),
    "pink": (0.96, 0.36, 0.68),
}
TEXTURES = {"plain": "", "stripes": "striped", "dots": "dotted", "checks": "checked"}  # and the caption's words

BACKGROUNDS: dict[str, tuple[float, float, float]] = {  # muted, so that things stand out
    "grey": (0.64, 0.65, 0.67),
    "blue": (0.58, 0.67, 0.79),
    "green": (0.60, 0.71, 0.60),
    "brown": (0.74, 0.67, 0.57),
    "rose": (0.77, 0.65, 0.67),
    "violet": (0.67, 0.63, 0.77),
}
PATTERNS = {"smooth": "", "waves": "wavy", "spots": "spotted"}

HEADINGS = (  # of gliding things, every 45 degrees
    "to the right",
    "down and to the right",
    "down",
    "down and to the left",
    "to the left",
    "up and to the left",
    "up",
    "up and to the right",
)
TURNS = {1: "clockwise", -1: "counter-clockwise"}
MOTIONS = ("glide", "spin", "grow", "shrink", "rest")
CAMERAS = {
    "still": "",
    "pan right": "the camera moves to the right",
    "pan down": "the camera moves down",
    "pan left": "the camera moves to the left",
    "pan up": "the camera moves up",
    "zoom in": "the camera zooms in",
    "zoom out": "the camera zooms out",
}

GLIDE_SPEED = 0.32  # units a second; 2.6 pixels a frame at 128x64 and 8 frames a second
CLEAR_SECONDS = 1.25  # no gliding thing meets a wall before
SPIN_SPEED = 90.0  # degrees a second
GROWTH_SPEED = 0.06  # of the radius, units a second
RADIUS_LIMITS = (0.12, 0.3)  # where growing turns into shrinking, and back
PAN_SPEED, PAN_LIMIT = 0.18, 0.36  # units a second; where the camera turns back
ZOOM_SPEED, ZOOM_LIMIT = 0.24, 1.48  # of the magnification, a second; where it turns back

SINGLE_RADIUS = (0.17, 0.24)
PAIR_RADIUS = (0.16, 0.2)
GROWING_RADIUS = (0.15, 0.18)
SHRINKING_RADIUS = (0.24, 0.27)
