"""Every error this package raises on purpose, in one small tree.

    I2VGenError
    +-- ConfigurationError        configuration.json, or a part's options (also a ValueError)
    |   `-- UnknownPartError      a type name that no catalogue entry or installed package provides
    +-- ArgumentError             an argument of a call (also a ValueError)
    |   `-- LimitError            more is asked for than a service does
    +-- CheckpointError           a weight file that cannot be used
    |   +-- UnsafeCheckpointError it asks for code to be run
    |   +-- CorruptCheckpointError  truncated, damaged, or not a checkpoint at all
    |   `-- MismatchedCheckpointError  tensors missing, unexpected or of another shape
    +-- MediaError                a picture or a video that cannot be read or written
    |   +-- UnreadableMediaError  damaged, empty, or of a format that is not accepted
    |   +-- MediaLimitError       larger than the limits allow
    |   `-- OutputError           the result cannot be written where it was asked for (also an OSError)
    +-- HubError                  a model that cannot be found or downloaded
    +-- DeviceError               a device that is not there, or out of memory
    |   `-- OutOfMemoryError
    +-- ForkError                 a pipeline in a process that was forked after it was loaded (also a RuntimeError)
    +-- NonFiniteError            NaN or infinity where numbers were expected
    +-- ServiceError              what a service of jobs does not do, or does not have
    |   +-- BusyError             its queue is full, or it is ending
    |   +-- WaitError             a job waited longer than it may
    |   +-- UnknownJobError       no job has that id, or not any more
    |   +-- NotDoneError          the job has no result yet
    |   `-- GoneError             the result will never be there, or is there no more
    `-- Cancelled                 the progress callback asked to stop

Every class is built from one message, because modelscope re-raises constructor errors as `type(error)(text)`.
A message says what was wrong, with which value, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_NAME = 80  # characters that are compared: the time that it takes grows with them


class I2VGenError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigurationError(I2VGenError, ValueError):
    """A configuration.json or a part's options are wrong; the message holds the JSON path."""


class UnknownPartError(ConfigurationError):
    """A type name that neither the catalogue nor an installed package provides."""


class ArgumentError(I2VGenError, ValueError):
    """An argument of a call is unknown, of the wrong type or out of range."""


class LimitError(ArgumentError):
    """More is asked for than a service does for one request."""


class CheckpointError(I2VGenError):
    """A weight file cannot be used."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle asks for a global that is not on the list of plain tensor containers."""


class CorruptCheckpointError(CheckpointError):
    """A weight file is truncated, damaged or not a checkpoint at all."""


class MismatchedCheckpointError(CheckpointError):
    """Tensors are missing, unexpected, or of another shape than the architecture's."""


class MediaError(I2VGenError):
    """A picture or a video cannot be read or written."""


class UnreadableMediaError(MediaError, ValueError):
    """A picture or a video is damaged, empty, or of a format that is not accepted."""


class MediaLimitError(MediaError, ValueError):
    """A picture, a video or a download is larger than the limits allow."""


class OutputError(MediaError, OSError):
    """The result cannot be written where it was asked for."""


class HubError(I2VGenError):
    """A model cannot be found or downloaded."""


class DeviceError(I2VGenError, RuntimeError):
    """A device was asked for that is not there or cannot do the work."""


class OutOfMemoryError(DeviceError):
    """The device, or the host, ran out of memory; the message says what to lower."""


class ForkError(I2VGenError, RuntimeError):
    """A pipeline is used in a process that was forked after it was loaded, where it would hang."""


class NonFiniteError(I2VGenError, ArithmeticError):
    """NaN or infinity appeared; the message says at which stage and step."""


class ServiceError(I2VGenError):
    """A service of jobs does not do what was asked for."""


class BusyError(ServiceError):
    """The queue is full, or the service is ending; after `retry_after` seconds it is worth another try."""

    retry_after = 10


class WaitError(ServiceError):
    """A job waited in the queue for longer than it may; it was not started."""


class UnknownJobError(ServiceError):
    """No job has that id, or not any more."""


class NotDoneError(ServiceError):
    """The job has no result yet."""


class GoneError(ServiceError):
    """The job's result will never be there, or is there no more."""


class Cancelled(I2VGenError):
    """The progress callback asked to stop; nothing was written."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for the end of an error about an unknown `name`: the nearest known name and the whole list.

    >>> nearest('hune', ['ddim', 'heun'])
    "did you mean 'heun'? Known: ddim, heun"
    """
    names = sorted(known)
    if not names:
        return "nothing is known here"
    close = difflib.get_close_matches(str(name)[:_LONGEST_NAME], names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}"
