"""The tensors of what a torch file holds, under the names and in the order of torch's own state_dict()."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.formats.pickle_values import Dictionary, Instance, Opaque
from folkmoot.tensors.formats.torch.views import TensorView
from folkmoot.tensors.limits import Limits

_EXTRA_STATE = "_extra_state"
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_LONGEST_SHOWN = 100


class Named(NamedTuple):
    """`trainable` tells what is trained from what is not, `is_parameter` a parameter, frozen or not, from a buffer.

    Both are None where the file does not tell.
    """

    name: str
    view: TensorView
    trainable: bool | None
    is_parameter: bool | None = None


class Parts(NamedTuple):
    """What one module consists of, each in the order of state_dict()."""

    parameters: list[tuple[str, TensorView]]
    buffers: list[tuple[str, TensorView]]
    modules: list[tuple[str, Instance]]


def of_state_dict(saved: Dictionary) -> Iterator[Named]:
    """Yield the tensors of a state_dict; whatever else a checkpoint may hold is refused, not guessed at."""
    if saved.num_other_keys:
        raise InvalidFile("the file holds a dictionary with keys that are no names of tensors; expected a state_dict")
    for name, value in saved.items():
        if isinstance(value, TensorView):
            yield Named(name, value, None)
        elif name.rpartition(".")[2] != _EXTRA_STATE:
            raise InvalidFile(_no_state_dict(saved, name, value))


def _no_state_dict(saved: Dictionary, name: str, value: object) -> str:
    """Say what is wrong with a dictionary, and how to save the weights that it probably has."""
    wrong = f"the file holds a dictionary in which {name[:_LONGEST_SHOWN]!a} is {describe(value)}, not a tensor"
    inner = next((key for key in _USUAL_KEYS if isinstance(saved.get(key), Dictionary | Instance)), None)
    if inner is None:
        return f"{wrong}; expected a state_dict, a module or TorchScript"
    return f"{wrong}; save what is under {inner!r} alone: torch.save(checkpoint[{inner!r}], path)"


_KINDS: dict[type, str] = {
    type(None): "None",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    tuple: "a tuple",
    Dictionary: "a dictionary",
    TensorView: "a tensor",
}


def describe(value: object) -> str:
    """Say in a word what `value` is, for a message."""
    if isinstance(value, Opaque):
        return value.kind
    if isinstance(value, Instance):
        return f"an object of {ascii(value.cls.name[:_LONGEST_SHOWN])[1:-1]}"
    return _KINDS.get(type(value), "something else")


def parts_of_module(instance: Instance) -> Parts:
    """Take an nn.Module apart; raises InvalidFile if it is something else."""
    state = instance.state
    if not isinstance(state, Dictionary):
        raise _no_module(instance)
    hidden = state.get("_non_persistent_buffers_set", frozenset())
    if not isinstance(hidden, frozenset | set):
        raise _no_module(instance)
    buffers = _entries(instance, state.get("_buffers"), TensorView)
    return Parts(
        _entries(instance, state.get("_parameters"), TensorView),
        [(name, view) for name, view in buffers if name not in hidden],
        _entries(instance, state.get("_modules"), Instance),
    )


Kind = TypeVar("Kind")


def _entries(instance: Instance, entries: object, kind: type[Kind]) -> list[tuple[str, Kind]]:
    """The entries of one of a module's dictionaries; None stands for what the module could have and has not."""
    if not isinstance(entries, Dictionary) or entries.num_other_keys:
        raise _no_module(instance)
    found = [(name, value) for name, value in entries.items() if isinstance(value, kind)]
    wrong = next((name for name, value in entries.items() if not isinstance(value, kind | None)), None)
    if wrong is not None:
        raise InvalidFile(f"{wrong[:_LONGEST_SHOWN]!a} in {describe(instance)} is {describe(entries[wrong])}")
    return found


def _no_module(instance: Instance) -> InvalidFile:
    return InvalidFile(f"the file holds {describe(instance)}, which is no module that torch could have saved")


class Walk:
    """Visits a module and those in it as state_dict() does, once for each name that a shared one goes by."""

    def __init__(self, take_apart: Callable[[Instance], Parts], limits: Limits) -> None:
        self._take_apart = take_apart
        self._limits = limits
        self._visits_left = limits.max_tensors

    def visit(self, module: Instance, prefix: str = "", depth: int = 0) -> Iterator[Named]:
        """Yield the tensors of `module`, under names that begin with `prefix`."""
        self._check_bounds(prefix, depth)
        parts = self._take_apart(module)
        for name, view in parts.parameters:
            yield Named(prefix + name, view, view.requires_grad, is_parameter=True)
        for name, view in parts.buffers:
            yield Named(prefix + name, view, False, is_parameter=False)
        for name, child in parts.modules:
            yield from self.visit(child, f"{prefix}{name}.", depth + 1)

    def _check_bounds(self, prefix: str, depth: int) -> None:
        self._visits_left -= 1
        if depth > self._limits.max_nesting:
            raise TooLarge(f"modules are nested more than {self._limits.max_nesting} deep")
        if self._visits_left < 0:
            raise TooLarge(f"the file has more than {self._limits.max_tensors} modules")
        if len(prefix) > self._limits.max_name_length:
            raise TooLarge(f"a module's name is longer than {self._limits.max_name_length} characters")
