"""TorchScript: which attributes of an object are parameters, buffers and modules.

The classes' source code says so in two lists at its head. That text is searched, never run.
Source: torch/csrc/jit/serialization/python_print.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.formats.pickle_values import Dictionary, Instance
from folkmoot.tensors.formats.torch.models import Parts, describe
from folkmoot.tensors.formats.torch.views import TensorView
from folkmoot.tensors.limits import Limits

_MODULE = re.compile(
    rb"^class ([^\s():]+)\(Module\):\n  __parameters__ = \[(.*)\]\n(?:  __buffers__ = \[(.*)\]\n)?", re.MULTILINE
)
_QUOTED = re.compile(rb'"([^"]*)"')


class Declared(NamedTuple):
    """What the head of a module's class lists."""

    parameters: frozenset[str]
    buffers: frozenset[str]


def declared_in(
    sources: Iterable[tuple[str, bytes | bytearray]], wanted: Container[str], limits: Limits
) -> dict[str, Declared]:
    """Find those of the classes `wanted` that are modules; `sources` are dotted names of files and their code."""
    found: dict[str, Declared] = {}
    names_left = limits.max_tensors
    for file, source in sources:
        for match in _MODULE.finditer(source):
            name = f"{file}.{match[1].decode('utf-8', 'replace')}"
            if name not in wanted:
                continue
            if name in found or match.start(3) < 0:
                raise InvalidFile(f"the code of {name} is not what a current torch writes; save the model again")
            names_left -= source.count(b'"', *match.span()) // 2
            if names_left < 0:
                raise TooLarge(f"the classes list more than {limits.max_tensors} tensors")
            found[name] = Declared(_names(match[2]), _names(match[3]))
    return found


def _names(quoted: bytes) -> frozenset[str]:
    return frozenset(name.decode("utf-8", "replace") for name in _QUOTED.findall(quoted))


def parts_of_script(instance: Instance, declared: Mapping[str, Declared]) -> Parts:
    """Take an object apart; raises InvalidFile if it is no module, or keeps its state in a form of its own."""
    state, own = instance.state, declared.get(instance.cls.name)
    if not isinstance(state, Dictionary) or state.num_other_keys or own is None:
        raise InvalidFile(f"the file holds {describe(instance)}, whose parameters cannot be told")
    views = [(name, value) for name, value in state.items() if isinstance(value, TensorView)]
    children = [(name, value) for name, value in state.items() if isinstance(value, Instance)]
    return Parts(
        [(name, view) for name, view in views if name in own.parameters],
        [(name, view) for name, view in views if name in own.buffers],
        [(name, child) for name, child in children if child.cls.name in declared],
    )
