"""Tensors as torch stores them: views of storages, checked against what the storages really hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from folkmoot.errors import InvalidFile

# Bounds for views that lie across each other, so that a forged file cannot make the comparison long.
_MAX_CROSSING_PAIRS = 10_000
_MAX_OVERLAP_WORK = 1_000


class ElementType(NamedTuple):
    """`name` is that of our schema where there is one, such as F32, and torch's own otherwise."""

    name: str
    itemsize: int


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat piece of memory, which the archive holds as `data/<key>`."""

    key: str
    element: ElementType
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor: which elements of its storage, counted in elements of its own type."""

    storage: Storage
    element: ElementType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool

    @property
    def is_empty(self) -> bool:
        return 0 in self.shape

    @property
    def span(self) -> tuple[int, int]:
        """Where its elements begin and end, in bytes from the start of the storage."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.offset * self.element.itemsize, (self.offset + last + 1) * self.element.itemsize

    @property
    def memory(self) -> tuple[object, ...]:
        """Equal for two views exactly if they are element for element the same memory."""
        steps = tuple(stride for size, stride in zip(self.shape, self.strides, strict=True) if size > 1)
        return self.storage.key, self.element, self.offset, self.shape, steps


def check_view(view: TensorView) -> None:
    """Raise InvalidFile unless the elements lie within the storage, each at a place of its own."""
    what = f"a tensor of shape {view.shape[:32]} in data/{view.storage.key}"
    if len(view.shape) != len(view.strides) or min((view.offset, *view.shape, *view.strides)) < 0:
        raise InvalidFile(f"{what} has impossible sizes, strides or offset")
    if view.is_empty:
        return
    if view.span[1] > view.storage.num_bytes:
        raise InvalidFile(f"{what} needs {view.span[1]} bytes; its storage has {view.storage.num_bytes}")
    covered = 1
    for stride, size in sorted(zip(view.strides, view.shape, strict=True)):
        if size > 1 and stride < covered:
            raise InvalidFile(f"{what} uses elements twice, as after expand(); save tensor.contiguous() instead")
        covered += (size - 1) * stride


def tied(views: Mapping[str, TensorView]) -> tuple[tuple[str, ...], ...]:
    """Group the names whose views are one and the same memory."""
    groups: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, view in views.items():
        if not view.is_empty:
            groups[view.memory].append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def check_apart(views: Mapping[str, TensorView], array_of: Callable[[str], npt.NDArray[Any]]) -> None:
    """Raise InvalidFile if two tensors share some of their elements but are not the same memory.

    Such tensors cannot be given values of their own.
    """
    for count, (first, second) in enumerate(_crossing(views)):
        if count == _MAX_CROSSING_PAIRS:
            raise InvalidFile("too many tensors lie across each other in one storage; save clones of them instead")
        if _overlap(array_of(first), array_of(second)):
            raise InvalidFile(f"{first} and {second} share a part of their memory; save clones of them instead")


def _crossing(views: Mapping[str, TensorView]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of different views whose spans cross; the elements need not."""
    once = {view.memory: name for name, view in views.items() if not view.is_empty}
    ordered = sorted((views[name].storage.key, *views[name].span, name) for name in once.values())
    for number, (storage, _, stop, first) in enumerate(ordered):
        for other in range(number + 1, len(ordered)):
            other_storage, start, _, second = ordered[other]
            if other_storage != storage or start >= stop:
                break
            yield first, second


def _overlap(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    try:
        return np.shares_memory(first, second, max_work=_MAX_OVERLAP_WORK)  # type: ignore[arg-type] # stubs: 0 or -1
    except np.exceptions.TooHardError:
        return True
