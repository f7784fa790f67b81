"""A worker process: is given plans, gives back what the source prepares for them. Runs until its input ends.

It is started as a program of its own, not forked: a fork of a process that has threads (torch's, a video encoder's) may
hang or crash, and whatever the user's script is, it is not run again.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO

import torch
from torch import Tensor

_LENGTH = struct.Struct("<Q")


class _Pickler(pickle.Pickler):
    """Tensors go as arrays, whose memory is sent as it is."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.detach().numpy(),)
        return NotImplemented


def send(file: BinaryIO, value: Any) -> None:
    """Writes a value: its pickle, then the memory of its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    text = io.BytesIO()
    _Pickler(text, protocol=5, buffer_callback=buffers.append).dump(value)
    raws = [text.getbuffer(), *(buffer.raw() for buffer in buffers)]
    file.write(_LENGTH.pack(len(raws)) + b"".join(_LENGTH.pack(raw.nbytes) for raw in raws))
    for raw in raws:
        file.write(raw)
    file.flush()


def receive(file: BinaryIO) -> Any:
    """Reads a value that `send` wrote. Raises EOFError at the end, and in the middle of a value."""
    (count,) = _LENGTH.unpack(_exactly(file, _LENGTH.size))
    lengths = [_LENGTH.unpack(_exactly(file, _LENGTH.size))[0] for _ in range(count)]
    text, *buffers = (_exactly(file, length) for length in lengths)
    return pickle.loads(text, buffers=buffers)


def _exactly(file: BinaryIO, length: int) -> bytearray:
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        got = file.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got
    return data


def main() -> None:
    """What the process runs: the source first, then plans; for each the answer, or the words of what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        source = receive(requests)
        while True:
            plan = receive(requests)
            answer: tuple[Any, tuple[Exception, str] | None]
            try:
                answer = (source.prepare(plan), None)
            except Exception as error:
                answer = (None, (_sendable(error), traceback.format_exc()))
            send(answers, answer)


def _sendable(error: Exception) -> Exception:
    """The error, or one of a plain class in its place where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
