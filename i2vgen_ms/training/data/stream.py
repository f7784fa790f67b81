"""Batches one after the other, made ahead of their use: by worker processes, and on CUDA on a stream of their own.

Given a source and the plans in their order; the batches come in that order, whoever made them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from i2vgen_ms.training.data import workers
from i2vgen_ms.training.data.batch import Batch, Plan, Source


def batches(source: Source, plans: Iterable[Plan], device: torch.device) -> Iterator[Batch]:
    """The batches of the plans, in order, on the device."""
    pin = device.type == "cuda"
    if source.workers:
        prepared = workers.prepared(source, plans, then=_pinned if pin else _as_it_is)
    else:
        prepared = map(source.prepare, plans)
    if device.type != "cuda":
        return (source.finish(item, device) for item in prepared)
    return _ahead(source, prepared, device)


def _ahead(source: Source, prepared: Iterable[Any], device: torch.device) -> Iterator[Batch]:
    """Makes each batch beside the step before it, so that neither waits for the other.

    Copies to the device wait for what the same stream did before; on the training's own stream that would be a step.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # where the source was filled
    waiting = iter(prepared)

    def make() -> Batch | None:
        item = next(waiting, None)
        if item is None:
            return None
        with torch.cuda.stream(stream):
            return source.finish(item, device)

    batch = make()
    while batch is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in _tensors(batch):
            tensor.record_stream(current)
        yield batch
        batch = make()


def _pinned(made: Any) -> Any:
    """In memory that copies to the device need not wait for, if what was prepared can be put there."""
    pin = getattr(made, "pin_memory", None)
    return made if pin is None else pin()


def _as_it_is(made: Any) -> Any:
    return made


def _tensors(batch: Batch) -> Iterator[Tensor]:
    candidates = (batch.pixels, batch.first, batch.fps, *(batch.moments or ()))
    return (tensor for tensor in candidates if tensor is not None)
