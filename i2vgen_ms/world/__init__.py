"""The procedural world: clips without end of coloured shapes that move, made of numbers alone. No files are needed.

    scene = draw(seed=0, index=7, split="train")        what a clip shows; scene.caption says it in words
    pixels = render([scene], frames=16, fps=8)          `b f h w c` in [-1, 1], on any device
    measure.direction_accuracy(pixels, [scene])         whether a video moves as its first frame says

How to read what will happen from the first frame; white is where it goes:

    a white dot near the outline      the thing glides to that side (pointed shapes also point there), and is thrown
                                      back by the picture's edges, where it turns round. Of two things, each keeps to
                                      its half of the picture, as if there were a pane of glass between them.
    a black and a white dot           the thing turns on the spot, from the black dot to the white one, the short way
    a white dot in the middle         it grows, up to a limit, and shrinks again
    a black dot in the middle         it shrinks, down to a limit, and grows again
    no dot                            it rests
    a white bar at the picture's edge     the camera moves to that side, and then back
    white bars at all four edges          the camera zooms in, and then out again
    black bars at all four edges          the camera zooms out, and then in again

All speeds and limits are fixed (rules.py): nothing about a clip is left to chance once its first frame is seen.
Patterns of the background repeat, so that what a moving camera uncovers is known too.
"""

from i2vgen_ms.world.render import render
from i2vgen_ms.world.scene import STANDARD, Background, Scene, Thing, Variety, draw

__all__ = ["STANDARD", "Background", "Scene", "Thing", "Variety", "draw", "render"]
