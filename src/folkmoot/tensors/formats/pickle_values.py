"""What a pickle is made of here: plain data, and names in place of what it would import, make and call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


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


def texts(items: Iterable[object]) -> frozenset[str]:
    """The set of `items`; only texts are kept, as in Dictionary."""
    return frozenset(item for item in items if isinstance(item, str))
