"""The processes that have a model: one for each, kept as long as there is room, and ended when they fail."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from folkmoot.errors import BY_CODE, FolkmootError, InvalidInput, ModelFailed, NotInstalled, Unavailable
from folkmoot.sandbox.handing import sealed_copy
from folkmoot.sandbox.limits import SandboxLimits
from folkmoot.sandbox.model import SandboxModel
from folkmoot.sandbox.nursery import Nursery, Nursling
from folkmoot.sandbox.wire import Array, Channel, Gone, Malformed, Message

_LONGEST_MESSAGE = 500


class Child:
    """A process with one model in it. Whatever it answers is bytes from someone who may be lying."""

    def __init__(self, nursery: Nursery, model: SandboxModel, limits: SandboxLimits) -> None:
        self._nursery = nursery
        self._limits = limits
        self._busy_seconds = 0.0
        self._nursling: Nursling = nursery.fork()
        self._channel = Channel(self._nursling.line, max_bytes=limits.output_bytes)
        self._file_bytes = 0
        self._fresh_bytes = _private_bytes(self._nursling.pid)
        try:
            self._load(model)
        except BaseException:
            self.close()
            raise

    @property
    def num_bytes(self) -> int:
        """What it takes: its files, and its memory beyond that of a process without a model."""
        return self._file_bytes + max(_private_bytes(self._nursling.pid) - self._fresh_bytes, 0)

    @property
    def is_fit(self) -> bool:
        """Whether it is there, and the next question cannot meet the limit of the processor time of its whole life."""
        return self._channel.is_quiet and self._busy_seconds + self._limits.seconds <= self._limits.cpu_seconds

    def ask(self, question: dict[str, Any], arrays: Sequence[Array] = ()) -> Message:
        """Raises ModelFailed, and what the process says is wrong with the question; after ChildLost it is of no use."""
        with self._timed() as deadline:
            return self._asked(question, arrays, deadline)

    def close(self) -> None:
        self._nursery.end(self._nursling)

    def _load(self, model: SandboxModel) -> None:
        with self._timed() as deadline:
            for role, part in model.parts():
                with sealed_copy(part.path) as descriptor:
                    self._file_bytes += os.fstat(descriptor).st_size
                    self._asked({"ask": "file", "role": role}, (), deadline, descriptor)
            self._asked({"ask": "load", "architecture": model.architecture}, (), deadline)

    @contextmanager
    def _timed(self) -> Iterator[float]:
        began = time.monotonic()
        try:
            yield began + self._limits.seconds
        finally:
            self._busy_seconds += time.monotonic() - began

    def _asked(
        self, question: dict[str, Any], arrays: Sequence[Array], deadline: float, descriptor: int | None = None
    ) -> Message:
        try:
            self._channel.send(question, arrays, descriptor=descriptor, deadline=deadline)
            answer = self._channel.receive(deadline=deadline)
        except TimeoutError:
            raise ChildLost(f"the model took longer than {self._limits.seconds:g} seconds and was stopped") from None
        except Malformed:
            raise ChildLost("the model's process gave an answer that is none, or too long") from None
        except Gone:
            raise ChildLost("the model's process ended while it was at work: it crashed, or took too much") from None
        if answer.fields.get("code"):
            raise _error(answer.fields)
        return answer


class ChildLost(ModelFailed):
    """The process is not to be asked again."""

    code = ModelFailed.code


def _error(fields: dict[str, Any]) -> FolkmootError:
    """What a process reports, as far as it is one of the things that it may report."""
    kind, message = BY_CODE.get(str(fields["code"]), ModelFailed), str(fields.get("message"))[:_LONGEST_MESSAGE]
    if not issubclass(kind, (InvalidInput, NotInstalled)):
        kind = ModelFailed
    return kind("".join(letter if letter.isprintable() else "?" for letter in message))


def _private_bytes(pid: int) -> int:
    """The memory that a process has for itself, 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024
    return 0


class _Place:
    """Where a child is, or is about to be; one caller at a time has it."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.is_busy = False
        self.child: Child | None = None
        self.num_bytes = 0


class Children:
    """The cache of children, the least recently used first. Thread-safe."""

    def __init__(self, nursery: Nursery, limits: SandboxLimits) -> None:
        self._nursery = nursery
        self._limits = limits
        self._changed = threading.Condition()
        self._places: OrderedDict[SandboxModel, _Place] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def lend(self, model: SandboxModel) -> Iterator[Child]:
        """The child that has this model, for one caller. Raises Unavailable, and what loading raises."""
        place = self._take(model)
        is_sound = False
        try:
            if place.child is not None and not place.child.is_fit:
                place.child.close()
                place.child = None
            if place.child is None:
                place.child = Child(self._nursery, model, self._limits)
            try:
                yield place.child
            except FolkmootError as error:
                is_sound = not isinstance(error, ChildLost)
                raise
            is_sound = True
        finally:
            self._give_back(model, place, is_sound=is_sound)

    def close(self) -> None:
        """End those that nobody is using; the others end when they are given back."""
        with self._changed:
            idle = [model for model, place in self._places.items() if not place.is_busy]
            ended = [self._places.pop(model) for model in idle]
        _end(ended)

    def _take(self, model: SandboxModel) -> _Place:
        deadline = time.monotonic() + self._limits.wait_seconds
        evicted: list[_Place] = []
        try:
            with self._changed:
                while (place := self._free_place(model, evicted)) is None:
                    if not self._changed.wait(max(deadline - time.monotonic(), 0)):
                        raise Unavailable("all processes that could run this model are at work; try again")
                place.is_busy = True
                self._places.move_to_end(model)
                return place
        finally:
            _end(evicted)

    def _free_place(self, model: SandboxModel, evicted: list[_Place]) -> _Place | None:
        """The model's own place if it is idle, or a new one if there is room, or room can be made."""
        place = self._places.get(model)
        if place is not None:
            return None if place.is_busy else place
        of_owner = [each for each, place in self._places.items() if place.owner == model.owner]
        if len(of_owner) >= self._limits.max_children_per_owner and not self._evict(of_owner, evicted):
            return None
        if len(self._places) >= self._limits.max_children and not self._evict(list(self._places), evicted):
            return None
        self._places[model] = place = _Place(model.owner)
        return place

    def _evict(self, candidates: list[SandboxModel], evicted: list[_Place]) -> bool:
        for model in candidates:
            if not self._places[model].is_busy:
                evicted.append(self._places.pop(model))
                return True
        return False

    def _give_back(self, model: SandboxModel, place: _Place, *, is_sound: bool) -> None:
        ended: list[_Place] = []
        if is_sound and place.child is not None:
            place.num_bytes = place.child.num_bytes
        with self._changed:
            place.is_busy = False
            if not is_sound:
                ended.append(self._places.pop(model))
            while sum(each.num_bytes for each in self._places.values()) > self._limits.cache_bytes:
                if not self._evict(list(self._places), ended):
                    break
            self._changed.notify_all()
        _end(ended)


def _end(places: list[_Place]) -> None:
    for place in places:
        if place.child is not None:
            place.child.close()
