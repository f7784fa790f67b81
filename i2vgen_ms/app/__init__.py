"""The page in a browser: a picture becomes a video in two steps, each seen while it is made.

    build()     the page as gradio's Blocks, with the bundled small models unless told otherwise
    launch()    serves such a page until it is told to end

Both need the extra `app`. Importing this package imports neither gradio nor torch.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from i2vgen_ms.errors import I2VGenError

__all__ = ["build", "launch"]


def build(*args: Any, **given: Any) -> Any:
    """The page as gradio's Blocks; `i2vgen_ms.app.page.build` has the arguments. Raises: as `load`; I2VGenError."""
    need_gradio()
    from i2vgen_ms.app import page

    return page.build(*args, **given)


def launch(*args: Any, **given: Any) -> None:
    """Serves a page until a signal ends it; `i2vgen_ms.app.server.launch` has the arguments."""
    need_gradio()
    from i2vgen_ms.app import server

    server.launch(*args, **given)


def need_gradio() -> None:
    """Raises I2VGenError, which says what to install, where gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise I2VGenError("the app needs gradio: pip install 'i2vgen_ms[app]'")
