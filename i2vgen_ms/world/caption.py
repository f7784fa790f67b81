"""The words for a scene, as a person would describe the clip. Given a scene; knows no picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from i2vgen_ms.world.rules import CAMERAS, HEADINGS, PATTERNS, TEXTURES, TURNS

if TYPE_CHECKING:
    from i2vgen_ms.world.scene import Scene, Thing


def caption(scene: Scene) -> str:
    """Such as 'a red striped arrow moving up over a wavy blue background'; fits in CLIP's 77 tokens."""
    things = " and ".join(f"{_name(thing)} {_motion(thing)}" for thing in scene.things)
    background = _phrase(PATTERNS[scene.background.pattern], scene.background.colour, "background")
    camera = CAMERAS[scene.camera]
    return f"{things} over {background}" + (f", {camera}" if camera else "")


def _name(thing: Thing) -> str:
    return _phrase(thing.colour, TEXTURES[thing.texture], thing.shape)


def _motion(thing: Thing) -> str:
    words = {
        "glide": f"moving {HEADINGS[thing.heading]}",
        "spin": f"turning {TURNS[thing.turn]}",
        "grow": "growing",
        "shrink": "shrinking",
        "rest": "resting",
    }
    return words[thing.motion]


def _phrase(*words: str) -> str:
    """The words that are not empty, behind 'a' or 'an'."""
    text = " ".join(word for word in words if word)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
