"""Shortage: running out of memory, told by what torch and the system raise, and said with advice.

Given an error. It does not know what was being done, and changes nothing but what the error itself holds on to.
"""

from __future__ import annotations

import errno
import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from i2vgen_ms.errors import OutOfMemoryError

# Some of torch's allocators and libraries have no exception class of their own.
_OF_THE_DEVICE = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "ALLOC_FAILED")
_OF_THE_HOST = ("DefaultCPUAllocator", "could not create a memory object", "std::bad_alloc", "Cannot allocate memory")
_DEVICE = (
    "lower the memory mode ('fast', 'balanced', 'low'; on_oom='lower' does it by itself), use dtype 'float16', or else "
    "fewer frames or a smaller width and height"
)
_HOST = "use guidance_branches 'sequential', fewer frames or a smaller width and height, or end other programs"


def of_the_device(error: BaseException) -> bool:
    """Whether it says that an accelerator ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or _says(error, _OF_THE_DEVICE)


def of_the_host(error: BaseException) -> bool:
    """Whether it says that the host ran out of memory."""
    short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return short or isinstance(error, MemoryError) or _says(error, _OF_THE_HOST)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def memory_advice(stage: str) -> Iterator[None]:
    """Turns running out of memory during `stage` into an OutOfMemoryError that says what to lower."""
    try:
        yield
        return
    except OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not (of_the_device(error) or of_the_host(error)):
            raise
        shortage = error
    # Clearing its frames would leave what closures hold, as those of modules with hooks: only their words are kept.
    shortage.add_note("where:\n" + "".join(traceback.format_tb(shortage.__traceback__)))
    let_go(shortage)
    shortage.__traceback__ = None
    advice = _DEVICE if of_the_device(shortage) else _HOST
    details = str(shortage).splitlines()[0][:300] if str(shortage) else "no details"
    raise OutOfMemoryError(f"out of memory while {stage}; {advice} ({details})") from shortage


def let_go(error: BaseException) -> None:
    """Frees what the functions that failed had in hand, and the device's cache.

    An error holds the frames that it came through, and these every tensor of the forward pass: as long as somebody
    keeps it (a log, a notebook's last error), nothing would be free.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
