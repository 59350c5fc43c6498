"""The machine that a pickle is a program for: a position in the bytes, a stack, a memo, and what is left to spend."""

from __future__ import annotations

import re
import struct
import sys
from typing import Any

from folkmoot.errors import InvalidFile, TooLarge, UnknownClass, UnsafePickle
from folkmoot.tensors.formats.pickle_values import Vocabulary
from folkmoot.tensors.limits import Limits

_LONGEST_SHOWN = 100

# What follows a global that is a class of which an object is made: perhaps a memo, no arguments, NEWOBJ.
_INSTANTIATION = re.compile(rb"(?:q.|r.{4}|\x94)?\)\x81", re.DOTALL)
_STANDARD_LIBRARY = sys.stdlib_module_names | {"__builtin__", "copy_reg"}


class Machine:
    """What the opcodes work on; where the bytes are none of a pickle, its methods raise InvalidFile or IndexError."""

    def __init__(self, data: bytes | bytearray, vocabulary: Vocabulary, limits: Limits) -> None:
        self.data = data
        self.position = 0
        self.vocabulary = vocabulary
        self.limits = limits
        self.steps_left = limits.max_pickle_ops
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: list[object] = []

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
        full_name = shown(f"{module}.{name}")
        made_into_object = _INSTANTIATION.match(self.data, self.position)
        if made_into_object and module.partition(".")[0] not in _STANDARD_LIBRARY:
            return UnknownClass(
                f"the file holds an object of the class {full_name}, which is not one of torch.nn: whoever downloads "
                "the file would run it; send TorchScript (torch.jit.script(model)) or model.state_dict() instead"
            )
        return UnsafePickle(
            f"the pickle names {full_name}, which no file of weights needs; nothing of it was run. "
            "Send model.state_dict() or TorchScript instead"
        )


def shown(text: str) -> str:
    """The beginning of what a stranger has written, as it may stand in a message."""
    return ascii(text[:_LONGEST_SHOWN])[1:-1]
