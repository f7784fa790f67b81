"""What a run leaves behind: a model folder in the project's own format.

Given a configuration and trained networks. Tensors are in our names, in safetensors files; the folder is written beside
its place by the caller and moved there whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2vgen_ms.config.schema import FILE, Configuration
from i2vgen_ms.errors import NonFiniteError, OutputError
from i2vgen_ms.weights import architecture, safetensors_files
from i2vgen_ms.weights.checkpoint import OWN_FORMAT
from i2vgen_ms.weights.verified import is_finite

_UNFINISHED, _OLD = ".partial", ".old"  # how the names of folders end that are on their way in, and out


def write(folder: Path, configuration: Configuration, networks: Mapping[str, nn.Module], dtype: torch.dtype) -> None:
    """Writes configuration.json and a file for each of the networks, by their names, into `folder`.

    Networks that are not given have no file; a folder with all of them loads as a pipeline.
    Raises: NonFiniteError for weights that dtype cannot hold, OSError when the folder cannot be written to.
    """
    files = {name: f"{name}.safetensors" for name in architecture.NETWORKS}
    write_json(folder / FILE, configuration.replace("weights", files).to_json())
    for name, network in networks.items():
        write_tensors(folder / files[name], network.state_dict(), dtype, {"format": OWN_FORMAT, "part": name})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Writes one safetensors file, its real numbers as `dtype`."""
    entries = []
    for name, tensor in tensors.items():
        wanted = dtype if tensor.is_floating_point() else tensor.dtype

        def make(name: str = name, tensor: Tensor = tensor, wanted: torch.dtype = wanted) -> Tensor:
            converted = tensor.detach().to("cpu", wanted)
            if not is_finite(converted):
                raise NonFiniteError(f"{path.name}: the weights {name} hold values that {wanted} cannot hold")
            return converted

        entries.append((name, tuple(tensor.shape), wanted, make))
    safetensors_files.write(path, entries, metadata)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a new JSON file."""
    with path.open("x", encoding="utf-8") as file:
        json.dump(values, file, indent=2)
        file.write("\n")


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and is removed otherwise.

    Raises: OutputError when it cannot be written; what was there is there again.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_UNFINISHED}")
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_OLD}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, old)
        try:
            os.replace(unfinished, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.replace(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def recover(target: Path) -> None:
    """Ends what a kill within `replaced` left: what was at `target` is there again, and nothing else is beside it.

    Raises: OSError.
    """
    for old in target.parent.glob(f".{target.name}.*{_OLD}"):
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)
    for unfinished in target.parent.glob(f".{target.name}.*{_UNFINISHED}"):
        shutil.rmtree(unfinished)
