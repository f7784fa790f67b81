"""The names a checkpoint's pickle may mention, and the inert values that stand for them.

Given the dotted name of a global and, where the pickle "calls" it, the arguments. Nothing here imports, looks up or
calls what the name means: a name becomes a `Global` (a label), a call becomes a plain container, a `PickledTensor`,
or an `Inert` object that remembers only its name. It does not know files, offsets or tensor data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from i2vgen_ms.errors import CorruptCheckpointError, UnsafeCheckpointError
from i2vgen_ms.weights import limits


@dataclass(frozen=True, slots=True)
class Global:
    """A global's dotted name, as a label; `dtype` where it names a torch dtype or a typed storage."""

    name: str
    dtype: torch.dtype | None = None


class Inert:
    """Stands for an object the pickle builds and nobody reads; it keeps its class's name and nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage mentioned by the pickle: its key in the file, its length in elements, the view's start in elements.

    `dtype` is None for an untyped storage, whose length is in bytes.
    """

    key: str
    dtype: torch.dtype | None
    length: int
    start: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize if self.dtype else 1


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor mentioned by the pickle, checked to lie within its storage; numbers are in elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


_STORAGES: dict[str, torch.dtype | None] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": None,
}
_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
# Classes of these packages are pickled into training checkpoints beside the weights; their objects carry no weights.
_INERT_PACKAGES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.")
_INERT_NAMES = frozenset(
    {
        "argparse.Namespace",
        "_codecs.encode",
        "builtins.object",
        "copyreg._reconstructor",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.Tensor",
        "torch._tensor.Tensor",
        "typing.Any",
        *(
            f"builtins.{name}"
            for name in ("bool", "bytes", "complex", "float", "int", "range", "slice", "str", "xrange", "unicode")
        ),
        *(f"numpy.{part}.multiarray.{name}" for part in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", "bool_", "float16", "float32", "float64")),
        *(f"numpy.{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def find(module: str, name: str) -> Global:
    """The label of the global `module.name`, if a checkpoint may mention it.

    Raises UnsafeCheckpointError naming it otherwise. Nothing is imported either way.
    """
    module = _PYTHON_2.get(module, module)
    dotted = f"{module}.{name}"
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
        return Global("storage", _STORAGES[name])
    if dotted in _DTYPES:
        return Global("dtype", _DTYPES[dotted])
    if dotted in _CALLS or dotted in _INERT_NAMES or dotted.startswith(_INERT_PACKAGES):
        return Global(dotted)
    shown = dotted if len(dotted) <= 200 else dotted[:200] + "..."
    raise UnsafeCheckpointError(
        f"its pickle asks for {shown!r}, which is no plain tensor container. Nothing of it was run. Use a safetensors "
        "copy of these weights, or ask their publisher for a file that holds a state_dict only"
    )


def call(function: Global, arguments: tuple[Any, ...]) -> Any:
    """What stands for the result of `function(*arguments)`; nothing outside this file is called."""
    handler = _CALLS.get(function.name)
    return Inert(function.name) if handler is None else handler(*arguments)


def _mapping(*arguments: Any) -> dict[Any, Any]:
    """OrderedDict, defaultdict, Counter, dict: a plain dict of what was given as pairs."""
    pairs = next((a for a in arguments if isinstance(a, (dict, list, tuple))), ())
    given = pairs.items() if isinstance(pairs, dict) else pairs
    return {hashable(key): value for key, value in given}


def _sequence(*arguments: Any) -> list[Any]:
    """list, set, frozenset, deque and tuple as one plain list: their kind does not matter to anybody here."""
    return list(arguments[0]) if arguments and isinstance(arguments[0], (list, tuple)) else []


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    return sizes if isinstance(sizes, tuple) else ()


def hashable(key: Any) -> Any:
    """`key` if it is flat and short; hashing a nested or a huge one could take exponential time, or the whole stack."""
    flat = (int, float, bool, type(None), Global, Inert)
    parts = key if isinstance(key, tuple) and len(key) <= 16 else (key,)
    if all(
        isinstance(part, flat) or (isinstance(part, (str, bytes)) and len(part) <= limits.KEY_LENGTH) for part in parts
    ):
        return key
    raise CorruptCheckpointError(f"its pickle uses a {type(key).__name__} as a dictionary key")


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise CorruptCheckpointError(f"a tensor's {what} is {_short(value)}, not a count")
    return value


def _short(value: Any) -> str:
    plain = isinstance(value, (int, float, str, bool, type(None)))
    return repr(value)[:40] if plain and not (isinstance(value, int) and abs(value) > 2**64) else type(value).__name__


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> PickledTensor:
    if not isinstance(storage, Storage):
        raise CorruptCheckpointError("a tensor is built from something that is no storage")
    dtype = dtype or storage.dtype or torch.uint8
    length = storage.length
    if storage.dtype is not None and storage.dtype != dtype:
        raise CorruptCheckpointError(f"a {dtype} tensor is built on a {storage.dtype} storage")
    if storage.dtype is None:
        length //= dtype.itemsize
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or len(shape) != len(stride):
        raise CorruptCheckpointError("a tensor's shape and strides do not belong together")
    if len(shape) > limits.DIMENSIONS:
        raise CorruptCheckpointError(f"a tensor has {len(shape)} dimensions; at most {limits.DIMENSIONS} are accepted")
    offset = _whole(offset, "storage offset")
    sizes = tuple(_whole(size, "size") for size in shape)
    strides = tuple(_whole(step, "stride") for step in stride)
    elements = math.prod(sizes)
    last = (
        offset + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True)) + 1 if elements else offset
    )
    if last > length or elements > length:
        raise CorruptCheckpointError(
            f"a tensor of shape {sizes} and strides {strides} does not fit in its storage of {length} elements"
        )
    return PickledTensor(storage, dtype, offset, sizes, strides)


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any = None, hooks: Any = None, meta: Any = None
) -> PickledTensor:
    if meta:
        raise CorruptCheckpointError("a tensor is saved as a lazy conjugate or negative, which is not read here")
    return _tensor(storage, offset, shape, stride)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, meta: Any = None
) -> PickledTensor:
    if meta or not isinstance(dtype, Global) or dtype.dtype is None:
        raise CorruptCheckpointError("a tensor is saved in a way that is not read here")
    return _tensor(storage, offset, shape, stride, dtype.dtype)


def _parameter(data: Any, *_: Any) -> PickledTensor:
    if not isinstance(data, PickledTensor):
        raise CorruptCheckpointError("a parameter is built from something that is no tensor")
    return data


def _from_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor with Python attributes, which are dropped."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise CorruptCheckpointError("a tensor is saved in a way that is not read here")
    if "_rebuild_from_type" in function.name:  # it would let the file choose how deep we recurse
        raise CorruptCheckpointError("a tensor subclass is nested in a tensor subclass")
    return call(function, arguments)


_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence,
    "builtins.tuple": _sequence,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "collections.deque": _sequence,
    "builtins.bytearray": lambda *_: b"",
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
