"""The opcodes that torch writes, and what each does to the machine; all others are refused.

Source: the standard library's pickletools, which documents each opcode.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable

from folkmoot.errors import InvalidFile, TooLarge, UnsafePickle
from folkmoot.tensors.formats.pickle_machine import Machine, shown
from folkmoot.tensors.formats.pickle_values import Class, Dictionary, Function, Instance, Opaque, texts

_HIGHEST_PROTOCOL = 5
_MAX_INTEGER_BYTES = 16
_BYTES_PER_CHARACTER = 4
_MARKS_PER_LEVEL = 4  # a module in a module takes two, a tensor in it two more
_BYTES_PER_STEP = 16

_UINT8, _UINT16, _UINT32, _UINT64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<L"), struct.Struct("<Q")
_INT32, _DOUBLE = struct.Struct("<l"), struct.Struct(">d")


def _protocol(machine: Machine) -> None:
    version = machine.number(_UINT8)
    if version > _HIGHEST_PROTOCOL:
        raise InvalidFile(f"the pickle is of protocol {version}; the highest that is taken is {_HIGHEST_PROTOCOL}")


def _frame(machine: Machine) -> None:
    # A hint to those who read from a stream; some of them need it to be true.
    if machine.number(_UINT64) > len(machine.data) - machine.position:
        raise machine.damaged()


def _constant(value: object) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(value)


def _plain(form: struct.Struct) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.number(form))


def _long(machine: Machine) -> None:
    raw = machine.take(machine.number(_UINT8))
    if len(raw) > _MAX_INTEGER_BYTES:
        raise TooLarge(f"the pickle holds an integer of more than {_MAX_INTEGER_BYTES} bytes")
    machine.stack.append(int.from_bytes(raw, "little", signed=True))


def _text(form: struct.Struct) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        raw = machine.take(machine.number(form))
        if len(raw) > _BYTES_PER_CHARACTER * machine.limits.max_name_length:
            machine.stack.append(Opaque("a long text"))
            return
        text = raw.decode()
        machine.spend(text.__sizeof__() // _BYTES_PER_STEP)
        machine.stack.append(text)

    return push


def _bytes(form: struct.Struct) -> Callable[[Machine], None]:
    opaque = Opaque("bytes")

    def push(machine: Machine) -> None:
        machine.take(machine.number(form))
        machine.stack.append(opaque)

    return push


def _empty(kind: Callable[[], object]) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(kind())


def _mark(machine: Machine) -> None:
    if len(machine.below) >= _MARKS_PER_LEVEL * machine.limits.max_nesting:
        raise TooLarge(f"the pickle is nested more than {machine.limits.max_nesting} deep")
    machine.below.append(machine.stack)
    machine.stack = []


def _tuple(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.stack.append(tuple(items))


def _short_tuple(size: int) -> Callable[[Machine], None]:
    def push(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < size:
            raise machine.damaged()
        stack[-size:] = (tuple(stack[-size:]),)

    return push


def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    machine.top(list).append(value)


def _append_all(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.top(list).extend(items)


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.top(Dictionary).put(key, value)


def _set_items(machine: Machine) -> None:
    items = machine.pop_mark()
    if len(items) % 2:
        raise machine.damaged()
    dictionary = machine.top(Dictionary)
    machine.spend(len(items))
    for key, value in zip(items[::2], items[1::2], strict=True):
        dictionary.put(key, value)


def _add_all(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.spend(4 * len(items))
    machine.top(set).update(texts(items))


def _frozen_set(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.spend(4 * len(items))
    machine.stack.append(texts(items))


def _put(form: struct.Struct) -> Callable[[Machine], None]:
    return lambda machine: machine.remember(machine.number(form))


def _memoize(machine: Machine) -> None:
    machine.remember(len(machine.memo))


def _get(form: struct.Struct) -> Callable[[Machine], None]:
    return lambda machine: machine.stack.append(machine.memo[machine.number(form)])


def _global(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    machine.push_global(module, name)


def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise machine.damaged()
    machine.push_global(module, name)


def _reduce(machine: Machine) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    if isinstance(function, Class):
        raise UnsafePickle(f"the pickle calls {shown(function.name)}; torch does not call it to load a file")
    if not isinstance(function, Function) or type(arguments) is not tuple:
        raise machine.damaged()
    machine.stack.append(function.build(arguments))


def _new_object(machine: Machine) -> None:
    arguments, cls = machine.stack.pop(), machine.stack.pop()
    if not isinstance(cls, Class) or arguments != ():
        raise machine.damaged()
    machine.stack.append(Instance(cls))


def _build(machine: Machine) -> None:
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Instance) and target.state is None:
        target.state = state
    elif not isinstance(target, Dictionary):  # of an OrderedDict it is the attributes, such as _metadata
        raise machine.damaged()


def _persistent(machine: Machine) -> None:
    machine.stack.append(machine.vocabulary.load(machine.stack.pop()))


def _old_instance(machine: Machine) -> None:
    module, name = machine.line(), machine.line()
    raise UnsafePickle(f"the pickle makes an object of {shown(f'{module}.{name}')}; nothing of it was run")


def _refused(machine: Machine) -> None:
    code = chr(machine.data[machine.position - 1])
    what = next((f"the opcode {known.name}" for known in pickletools.opcodes if known.code == code), "no opcode at all")
    raise UnsafePickle(f"the pickle uses {what}, which torch does not write; nothing of it was run")


# The opcode, what handles it, and how many steps it counts for: one for each 16 bytes or so that it may leave
# in memory, so that the limit of steps bounds the memory too.
STOP = ord(".")
_OPCODES: dict[bytes, tuple[Callable[[Machine], None], int]] = {
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
HANDLERS = [_OPCODES.get(bytes([code]), (_refused, 1))[0] for code in range(256)]
STEPS = [_OPCODES.get(bytes([code]), (_refused, 1))[1] for code in range(256)]
