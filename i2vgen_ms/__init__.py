"""i2vgen_ms: image to video and video to video with the I2VGen-XL models, a drop-in for ModelScope's pipelines.

Importing it makes ModelScope's `pipeline` use this implementation for its two tasks, in any import order; it loads
neither torch nor modelscope. `load` (a pipeline from a model folder, without modelscope) is fetched on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from i2vgen_ms.activation import activate

if TYPE_CHECKING:
    from i2vgen_ms.pipelines import load

__version__ = "0.1.0"

__all__ = ["__version__", "load"]

activate()


def __getattr__(name: str) -> Any:
    if name == "load":
        from i2vgen_ms.pipelines import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
