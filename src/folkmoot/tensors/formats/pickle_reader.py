"""Pickles, read without running them: an opcode puts plain data together, or it is refused.

Nothing is imported and no attribute is looked up. What a pickle names, the caller finds in a table of its own
or refuses. Opcodes that torch never writes are refused too, so that what is accepted means to every other reader
what it means here. Source: the standard library's pickletools, which documents each opcode.
"""

from __future__ import annotations

import pickletools
import re
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from folkmoot.errors import InvalidFile, TooLarge, UnknownClass, UnsafePickle
from folkmoot.tensors.limits import Limits

_HIGHEST_PROTOCOL = 5
_MAX_INTEGER_BYTES = 16
_BYTES_PER_CHARACTER = 4
_MARKS_PER_LEVEL = 4  # a module in a module takes two, a tensor in it two more
_BYTES_PER_STEP = 16
_LONGEST_SHOWN = 100

# What follows a global that is a class of which an object is made: perhaps a memo, no arguments, NEWOBJ.
_INSTANTIATION = re.compile(rb"(?:q.|r.{4}|\x94)?\)\x81", re.DOTALL)
_STANDARD_LIBRARY = sys.stdlib_module_names | {"__builtin__", "copy_reg"}


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is of no use to us, such as bytes or a device; `kind` says what it is."""

    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """The name of a class of which a pickle may make objects."""

    name: str


@dataclass(slots=True, eq=False)
class Instance:
    """An object: its class's name, and what the pickle put into it."""

    cls: Class
    state: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """What may be called; `build` gets the arguments and raises InvalidFile if they are not what torch writes."""

    name: str
    build: Callable[[tuple[object, ...]], object]


class Dictionary(dict[str, object]):
    """A dict or OrderedDict with the entries whose keys are texts; of the others only the number.

    Nothing that we look up has such a key, and numbers can be chosen so that a hash table becomes slow.
    """

    __slots__ = ("num_other_keys",)

    def __init__(self) -> None:
        self.num_other_keys = 0

    def put(self, key: object, value: object) -> None:
        if isinstance(key, str):
            self[key] = value
        else:
            self.num_other_keys += 1


class Vocabulary(Protocol):
    """What a pickle may name."""

    def find(self, module: str, name: str) -> object | None:
        """Return what stands for a global, None if it is not taken."""

    def load(self, persistent_id: object) -> object:
        """Return what stands for something outside of the pickle; raises InvalidFile."""


def read_pickle(data: bytes | bytearray, vocabulary: Vocabulary, limits: Limits) -> object:
    """Return what the pickle holds: numbers, texts, lists, tuples, sets, Dictionary, Instance, what was found.

    Raises UnsafePickle or UnknownClass for a global that `vocabulary` does not know, InvalidFile, TooLarge.
    """
    return _Reader(data, vocabulary, limits).read()


class _Reader:
    def __init__(self, data: bytes | bytearray, vocabulary: Vocabulary, limits: Limits) -> None:
        self.data = data
        self.position = 0
        self.vocabulary = vocabulary
        self.limits = limits
        self.steps_left = limits.max_pickle_ops
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: list[object] = []

    def read(self) -> object:
        try:
            self._run()
        except (IndexError, struct.error, UnicodeDecodeError):
            raise self.damaged() from None
        if self.position != len(self.data) or self.below or len(self.stack) != 1:
            raise InvalidFile("the pickle does not end where it says that it ends")
        return self.stack[0]

    def _run(self) -> None:
        data, steps, handlers = self.data, _STEPS, _HANDLERS
        while (opcode := data[self.position]) != _STOP:
            self.position += 1
            self.spend(steps[opcode])
            handlers[opcode](self)
        self.position += 1

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise TooLarge(f"the pickle takes more than {self.limits.max_pickle_ops} steps to read")

    def damaged(self) -> InvalidFile:
        return InvalidFile(f"the pickle is damaged near byte {self.position}")

    def take(self, size: int) -> bytes | bytearray:
        start, stop = self.position, self.position + size
        if stop > len(self.data):
            raise self.damaged()
        self.position = stop
        return self.data[start:stop]

    def number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return value

    def line(self) -> str:
        stop = self.data.find(b"\n", self.position)
        if stop < 0:
            raise self.damaged()
        raw = self.take(stop - self.position)
        self.position += 1
        return raw.decode()

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise self.damaged()
        return value

    def remember(self, index: int) -> None:
        # Any other order than that of writing is a forger's: chosen numbers make a hash table slow.
        if index != len(self.memo):
            raise self.damaged()
        self.memo.append(self.stack[-1])

    def push_global(self, module: str, name: str) -> None:
        found = self.vocabulary.find(module, name)
        if found is None:
            raise self._refusal(module, name)
        self.stack.append(found)

    def _refusal(self, module: str, name: str) -> UnsafePickle:
        shown = _shown(f"{module}.{name}")
        made_into_object = _INSTANTIATION.match(self.data, self.position)
        if made_into_object and module.partition(".")[0] not in _STANDARD_LIBRARY:
            return UnknownClass(
                f"the file holds an object of the class {shown}, which is not one of torch.nn: whoever downloads the "
                "file would run it; send TorchScript (torch.jit.script(model)) or model.state_dict() instead"
            )
        return UnsafePickle(
            f"the pickle names {shown}, which no file of weights needs; nothing of it was run. "
            "Send model.state_dict() or TorchScript instead"
        )


def _shown(text: str) -> str:
    return ascii(text[:_LONGEST_SHOWN])[1:-1]


_UINT8, _UINT16, _UINT32, _UINT64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<L"), struct.Struct("<Q")
_INT32, _DOUBLE = struct.Struct("<l"), struct.Struct(">d")


def _protocol(reader: _Reader) -> None:
    version = reader.number(_UINT8)
    if version > _HIGHEST_PROTOCOL:
        raise InvalidFile(f"the pickle is of protocol {version}; the highest that is taken is {_HIGHEST_PROTOCOL}")


def _frame(reader: _Reader) -> None:
    # A hint to those who read from a stream; some of them need it to be true.
    if reader.number(_UINT64) > len(reader.data) - reader.position:
        raise reader.damaged()


def _constant(value: object) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(value)


def _plain(form: struct.Struct) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(reader.number(form))


def _long(reader: _Reader) -> None:
    raw = reader.take(reader.number(_UINT8))
    if len(raw) > _MAX_INTEGER_BYTES:
        raise TooLarge(f"the pickle holds an integer of more than {_MAX_INTEGER_BYTES} bytes")
    reader.stack.append(int.from_bytes(raw, "little", signed=True))


def _text(form: struct.Struct) -> Callable[[_Reader], None]:
    def push(reader: _Reader) -> None:
        raw = reader.take(reader.number(form))
        if len(raw) > _BYTES_PER_CHARACTER * reader.limits.max_name_length:
            reader.stack.append(Opaque("a long text"))
            return
        text = raw.decode()
        reader.spend(text.__sizeof__() // _BYTES_PER_STEP)
        reader.stack.append(text)

    return push


def _bytes(form: struct.Struct) -> Callable[[_Reader], None]:
    opaque = Opaque("bytes")

    def push(reader: _Reader) -> None:
        reader.take(reader.number(form))
        reader.stack.append(opaque)

    return push


def _empty(kind: Callable[[], object]) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(kind())


def _mark(reader: _Reader) -> None:
    if len(reader.below) >= _MARKS_PER_LEVEL * reader.limits.max_nesting:
        raise TooLarge(f"the pickle is nested more than {reader.limits.max_nesting} deep")
    reader.below.append(reader.stack)
    reader.stack = []


def _tuple(reader: _Reader) -> None:
    items = reader.pop_mark()
    reader.stack.append(tuple(items))


def _short_tuple(size: int) -> Callable[[_Reader], None]:
    def push(reader: _Reader) -> None:
        stack = reader.stack
        if len(stack) < size:
            raise reader.damaged()
        stack[-size:] = (tuple(stack[-size:]),)

    return push


def _append(reader: _Reader) -> None:
    value = reader.stack.pop()
    reader.top(list).append(value)


def _append_all(reader: _Reader) -> None:
    items = reader.pop_mark()
    reader.top(list).extend(items)


def _set_item(reader: _Reader) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.top(Dictionary).put(key, value)


def _set_items(reader: _Reader) -> None:
    items = reader.pop_mark()
    if len(items) % 2:
        raise reader.damaged()
    dictionary = reader.top(Dictionary)
    reader.spend(len(items))
    for key, value in zip(items[::2], items[1::2], strict=True):
        dictionary.put(key, value)


def _add_all(reader: _Reader) -> None:
    items = reader.pop_mark()
    reader.spend(4 * len(items))
    reader.top(set).update(texts(items))


def _frozen_set(reader: _Reader) -> None:
    items = reader.pop_mark()
    reader.spend(4 * len(items))
    reader.stack.append(texts(items))


def texts(items: Iterable[object]) -> frozenset[str]:
    """The set of `items`; only texts are kept, as in Dictionary."""
    return frozenset(item for item in items if isinstance(item, str))


def _put(form: struct.Struct) -> Callable[[_Reader], None]:
    return lambda reader: reader.remember(reader.number(form))


def _memoize(reader: _Reader) -> None:
    reader.remember(len(reader.memo))


def _get(form: struct.Struct) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(reader.memo[reader.number(form)])


def _global(reader: _Reader) -> None:
    module, name = reader.line(), reader.line()
    reader.push_global(module, name)


def _stack_global(reader: _Reader) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise reader.damaged()
    reader.push_global(module, name)


def _reduce(reader: _Reader) -> None:
    arguments, function = reader.stack.pop(), reader.stack.pop()
    if isinstance(function, Class):
        raise UnsafePickle(f"the pickle calls {_shown(function.name)}; torch does not call it to load a file")
    if not isinstance(function, Function) or type(arguments) is not tuple:
        raise reader.damaged()
    reader.stack.append(function.build(arguments))


def _new_object(reader: _Reader) -> None:
    arguments, cls = reader.stack.pop(), reader.stack.pop()
    if not isinstance(cls, Class) or arguments != ():
        raise reader.damaged()
    reader.stack.append(Instance(cls))


def _build(reader: _Reader) -> None:
    state, target = reader.stack.pop(), reader.stack[-1]
    if isinstance(target, Instance) and target.state is None:
        target.state = state
    elif not isinstance(target, Dictionary):  # of an OrderedDict it is the attributes, such as _metadata
        raise reader.damaged()


def _persistent(reader: _Reader) -> None:
    reader.stack.append(reader.vocabulary.load(reader.stack.pop()))


def _old_instance(reader: _Reader) -> None:
    module, name = reader.line(), reader.line()
    raise UnsafePickle(f"the pickle makes an object of {_shown(f'{module}.{name}')}; nothing of it was run")


def _refused(reader: _Reader) -> None:
    code = chr(reader.data[reader.position - 1])
    what = next((f"the opcode {known.name}" for known in pickletools.opcodes if known.code == code), "no opcode at all")
    raise UnsafePickle(f"the pickle uses {what}, which torch does not write; nothing of it was run")


# The opcode, what handles it, and how many steps it counts for: one for each 16 bytes or so that it may leave
# in memory, so that the limit of steps bounds the memory too.
_STOP = ord(".")
_OPCODES: dict[bytes, tuple[Callable[[_Reader], None], int]] = {
    b"\x80": (_protocol, 1),
    b"\x95": (_frame, 1),
    b"N": (_constant(None), 1),
    b"\x88": (_constant(True), 1),
    b"\x89": (_constant(False), 1),
    b"K": (_plain(_UINT8), 1),
    b"M": (_plain(_UINT16), 3),
    b"J": (_plain(_INT32), 3),
    b"\x8a": (_long, 4),
    b"G": (_plain(_DOUBLE), 2),
    b"\x8c": (_text(_UINT8), 1),
    b"X": (_text(_UINT32), 1),
    b"C": (_bytes(_UINT8), 1),
    b"B": (_bytes(_UINT32), 1),
    b"\x8e": (_bytes(_UINT64), 1),
    b"\x96": (_bytes(_UINT64), 1),
    b")": (_constant(()), 1),
    b"]": (_empty(list), 5),
    b"}": (_empty(Dictionary), 8),
    b"\x8f": (_empty(set), 14),
    b"(": (_mark, 5),
    b"t": (_tuple, 5),
    b"\x85": (_short_tuple(1), 4),
    b"\x86": (_short_tuple(2), 4),
    b"\x87": (_short_tuple(3), 5),
    b"a": (_append, 4),
    b"e": (_append_all, 2),
    b"s": (_set_item, 4),
    b"u": (_set_items, 2),
    b"\x90": (_add_all, 1),
    b"\x91": (_frozen_set, 16),
    b"q": (_put(_UINT8), 1),
    b"r": (_put(_UINT32), 1),
    b"\x94": (_memoize, 1),
    b"h": (_get(_UINT8), 1),
    b"j": (_get(_UINT32), 1),
    b"c": (_global, 8),
    b"\x93": (_stack_global, 8),
    b"R": (_reduce, 12),
    b"\x81": (_new_object, 6),
    b"b": (_build, 1),
    b"Q": (_persistent, 12),
    b"i": (_old_instance, 1),
}
_HANDLERS = [_OPCODES.get(bytes([code]), (_refused, 1))[0] for code in range(256)]
_STEPS = [_OPCODES.get(bytes([code]), (_refused, 1))[1] for code in range(256)]
