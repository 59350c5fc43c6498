"""Pickles, read without running them: an opcode puts plain data together, or it is refused.

Nothing is imported and no attribute is looked up. What a pickle names, the caller finds in a table of its own
or refuses. Opcodes that torch never writes are refused too, so that what is accepted means to every other reader
what it means here.
"""

from __future__ import annotations

import struct

from folkmoot.errors import InvalidFile
from folkmoot.tensors.formats.pickle_machine import Machine
from folkmoot.tensors.formats.pickle_opcodes import HANDLERS, STEPS, STOP
from folkmoot.tensors.formats.pickle_values import Vocabulary
from folkmoot.tensors.limits import Limits


def read_pickle(data: bytes | bytearray, vocabulary: Vocabulary, limits: Limits) -> object:
    """Return what the pickle holds: numbers, texts, lists, tuples, sets, Dictionary, Instance, what was found.

    Raises UnsafePickle or UnknownClass for a global that `vocabulary` does not know, InvalidFile, TooLarge.
    """
    machine = Machine(data, vocabulary, limits)
    try:
        _run(machine)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise machine.damaged() from None
    if machine.position != len(data) or machine.below or len(machine.stack) != 1:
        raise InvalidFile("the pickle does not end where it says that it ends")
    return machine.stack[0]


def _run(machine: Machine) -> None:
    data, steps, handlers = machine.data, STEPS, HANDLERS
    while (opcode := data[machine.position]) != STOP:
        machine.position += 1
        machine.spend(steps[opcode])
        handlers[opcode](machine)
    machine.position += 1
