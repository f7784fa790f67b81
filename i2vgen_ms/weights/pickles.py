"""A machine that reads a checkpoint's pickle without executing anything.

Given the bytes of a pickle (or of a larger file that begins with one). The standard library's `pickletools` splits
them into opcodes; the machine below understands the opcodes that build plain data, and turns every global into a
label of `weights.pickle_globals`. Python's own unpickler is not used at all, so there is no attribute look-up, no
`__setstate__`, no copyreg extension and no import that a file could reach. It does not know files, storages' data or
names of weights.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from typing import Any

from i2vgen_ms.errors import CheckpointError, CorruptCheckpointError, UnsafeCheckpointError
from i2vgen_ms.weights import limits, pickle_globals
from i2vgen_ms.weights.pickle_globals import Global, Inert, PickledTensor, Storage

_ADVICE = "Nothing of it was run. Use a safetensors copy of these weights"

_PUSHED = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,  # a set's members would have to be hashed; nobody reads them
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleMachine:
    """Reads pickles one after the other from one block of bytes (the legacy torch format has five in a row)."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._operations = 0
        self._tensors = 0
        self.storages: dict[str, Storage] = {}  # every storage mentioned so far

    @property
    def position(self) -> int:
        """Bytes read so far: where the next pickle, or the data behind the last one, begins."""
        return self._file.tell()

    def load(self) -> Any:
        """The next pickle's value: plain containers, numbers, strings, `PickledTensor`, `Global` and `Inert`.

        Raises UnsafeCheckpointError naming the first global that is not on the list, CorruptCheckpointError when the
        bytes are no complete pickle or larger than the limits.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(self._file):
                self._charge(1)
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except CheckpointError:
            raise
        # A warning, of an escape that there is not, arrives as an error where a program asks for that.
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, struct.error, Warning) as error:
            raise CorruptCheckpointError(
                f"its pickle is damaged or cut off near byte {self.position}; download it again"
            ) from error
        raise CorruptCheckpointError("its pickle has no end; download it again")

    def _charge(self, operations: int) -> None:
        self._operations += operations
        if self._operations > limits.PICKLE_OPERATIONS:
            raise CorruptCheckpointError(f"its pickle has more than {limits.PICKLE_OPERATIONS} operations")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            if isinstance(argument, int) and argument.bit_length() > limits.INTEGER_BITS:
                raise CorruptCheckpointError(f"its pickle holds an integer of {argument.bit_length()} bits")
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            self._marked.append(stack)
            self._stack = []
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif name not in ("PROTO", "FRAME"):
            operation = _OPERATIONS.get(name)
            if operation is None:
                raise UnsafeCheckpointError(
                    f"its pickle uses the operation {name}, which no checkpoint needs. {_ADVICE}"
                )
            operation(self, argument)

    def _to_mark(self) -> list[Any]:
        """The values since the last mark, which is taken away."""
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise IndexError("stack")
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _marked_tuple(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _marked_list(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _marked_dict(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not isinstance(target, (dict, Inert)):
            raise CorruptCheckpointError("its pickle sets items of something that is no dictionary")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[pickle_globals.hashable(key)] = value

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, (list, Inert)):
            raise CorruptCheckpointError("its pickle appends to something that is no list")
        if isinstance(target, list):
            target.extend(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _pop_mark(self, _: Any) -> None:
        self._to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(pickle_globals.find(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise CorruptCheckpointError("its pickle names a global by something that is no text")
        self._stack.append(pickle_globals.find(module, name))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Global):
            raise UnsafeCheckpointError(
                f"its pickle calls a {type(function).__name__}, which no checkpoint needs. {_ADVICE}"
            )
        if not isinstance(arguments, tuple):
            raise CorruptCheckpointError("its pickle calls with something that is no tuple of arguments")
        # Containers given to a call may be copied, and the same one may be given again and again.
        self._charge(sum(len(given) for given in arguments if isinstance(given, (list, tuple, dict))))
        value = pickle_globals.call(function, arguments)
        if isinstance(value, PickledTensor):
            self._tensors += 1
            if self._tensors > limits.TENSORS:
                raise CorruptCheckpointError(f"it holds more than {limits.TENSORS} tensors")
        self._stack.append(value)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._call(function, arguments)

    def _new_with_keywords(self, _: Any) -> None:
        _, arguments, kind = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._call(kind, arguments)

    def _instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        function = pickle_globals.find(module, name)
        items = self._to_mark()
        self._call(function, tuple(items))

    def _object(self, _: Any) -> None:
        items = self._to_mark()
        self._call(items[0], tuple(items[1:]))

    def _build(self, _: Any) -> None:
        """Drops the state: an object here has none, and a state_dict's `_metadata` is not read."""
        self._stack.pop()
        if not isinstance(self._stack[-1], (dict, list, Inert, PickledTensor)):
            raise UnsafeCheckpointError(
                f"its pickle sets the state of a {type(self._stack[-1]).__name__}, which no checkpoint needs. {_ADVICE}"
            )

    def _persistent(self, _: Any) -> None:
        given = self._stack.pop()
        if not isinstance(given, tuple) or len(given) < 5 or given[0] != "storage" or not isinstance(given[1], Global):
            raise CorruptCheckpointError("its pickle refers to something outside that is no tensor storage")
        _, kind, key, _, length, *view = given
        lengths = [length]
        start = 0
        if view and view[0] is not None:  # the legacy format: a storage that is a part of another
            _, start, length = view[0]
            lengths += [start, length]
        if kind.name != "storage" or not isinstance(key, str):
            raise CorruptCheckpointError("its pickle refers to a storage of an unknown kind")
        if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 2**62 for n in lengths):
            raise CorruptCheckpointError(f"storage {key!r:.80} has an impossible length")
        storage = Storage(key, kind.dtype, length, start)
        self.storages.setdefault(key, storage)
        self._stack.append(storage)


_OPERATIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "TUPLE": PickleMachine._marked_tuple,
    "FROZENSET": PickleMachine._marked_tuple,
    "LIST": PickleMachine._marked_list,
    "DICT": PickleMachine._marked_dict,
    "APPEND": PickleMachine._append,
    "APPENDS": lambda machine, _: machine._extend(machine._to_mark()),
    "ADDITEMS": lambda machine, _: machine._extend(machine._to_mark()),
    "SETITEM": PickleMachine._set_item,
    "SETITEMS": lambda machine, _: machine._set(machine._to_mark()),
    "POP": PickleMachine._pop,
    "POP_MARK": PickleMachine._pop_mark,
    "DUP": PickleMachine._duplicate,
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "REDUCE": PickleMachine._reduce,
    "NEWOBJ": PickleMachine._reduce,
    "NEWOBJ_EX": PickleMachine._new_with_keywords,
    "INST": PickleMachine._instance,
    "OBJ": PickleMachine._object,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent,
}
