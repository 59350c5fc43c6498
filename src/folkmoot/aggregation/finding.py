"""How a strategy is found by its name: an entry point, ours included, whose signature is the schema of its options."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import UnionType
from typing import Any, Union, get_args, get_origin

from folkmoot.aggregation.rules import checked_rules
from folkmoot.aggregation.screening import Screen
from folkmoot.aggregation.strategy import Strategy
from folkmoot.errors import InvalidValue, NotInstalled

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "folkmoot.strategies"

Factory = Callable[..., Strategy]


def strategies() -> dict[str, Factory]:
    """Return the factories of all installed strategies by name; a factory's keywords are its options.

    One that cannot be loaded is left out, and the log says why: it is not to take the others with it.
    """
    factories = {}
    for name, entry_point in sorted(_entry_points().items()):
        try:
            factories[name] = _load(entry_point)
        except NotInstalled as error:
            log.warning("%s", error, exc_info=error)
    return factories


def find_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Make the strategy of that name; raises InvalidValue for a name or an option that there is not.

    Beside its own options every strategy takes `clip`, `screen`, `rules` and `scores`.
    """
    installed = _entry_points()
    if name not in installed:
        raise InvalidValue(f"there is no strategy {name!r}; there are {', '.join(sorted(installed))}")
    factory = _load(installed[name])
    own = {option: value for option, value in options.items() if option not in COMMON}
    _check_options(name, _parameters(name, factory), own)
    common = {option: COMMON[option](options[option]) for option in COMMON if option in options}
    return replace(_made(name, factory, own), name=name, **common)


def parameters_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those that are left at their defaults: `find_strategy` makes the same strategy of them.

    Of a default that JSON has no word for there is none. Raises as `find_strategy` does.
    """
    find_strategy(name, options)
    parameters = _parameters(name, _load(_entry_points()[name]))
    defaults = {option: each.default for option, each in parameters.items() if isinstance(each.default, _PLAIN)}
    return {**defaults, **options}


def package_of(name: str) -> tuple[str, str]:
    """The package that the strategy comes from, and its version; raises InvalidValue for a name that there is not."""
    installed = _entry_points()
    if name not in installed:
        raise InvalidValue(f"there is no strategy {name!r}")
    distribution = installed[name].dist
    return (distribution.name, distribution.version) if distribution else ("", "")


_PLAIN = (bool, int, float, str, type(None))


def _made(name: str, factory: Factory, options: Mapping[str, Any]) -> Strategy:
    try:
        strategy = factory(**options)
    except InvalidValue:
        raise
    except Exception as error:  # somebody else's program, and not to stop ours
        log.warning("the strategy %s cannot be made", name, exc_info=error)
        raise NotInstalled(f"the strategy {name} cannot be made of these options; the log says why") from error
    if not isinstance(strategy, Strategy):
        raise NotInstalled(f"the strategy {name} cannot be used: what makes it returned {strategy!r}")
    return strategy


def _clip(value: Any) -> float:
    if not _is_a(value, (int, float)) or not 0 < value <= _LARGEST:
        raise InvalidValue(f"clip is a number above 0, the largest L2 norm of a delta, not {shortened(value)}")
    return float(value)


def _screen(value: Any) -> Screen:
    if not isinstance(value, Mapping) or not {"score", "bound"} <= set(value) <= {"score", "bound", "action"}:
        raise InvalidValue(
            f"screen is an object with score, bound and, if not to reject, action; not {shortened(value)}"
        )
    return Screen(**value)


def _scores(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue(f"scores is true or false, not {shortened(value)}")
    return value


COMMON: dict[str, Callable[[Any], Any]] = {
    "clip": _clip,
    "rules": checked_rules,
    "scores": _scores,
    "screen": _screen,
}
"""The options that every strategy takes, and how each is read."""


def _entry_points() -> dict[str, EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@cache
def _entry_points_on(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    # Read once: the metadata of everything that is installed takes longer to read than a small aggregation.
    found: dict[str, EntryPoint] = {}
    # Ours last: no other package gets to say what FedAvg is.
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: _is_ours(each)):
        if entry_point.name in found:
            log.warning("two packages have a strategy %s; that of %s counts", entry_point.name, entry_point.value)
        found[entry_point.name] = entry_point
    return found


def _is_ours(entry_point: EntryPoint) -> bool:
    return entry_point.value.startswith("folkmoot.aggregation.")


def _load(entry_point: EntryPoint) -> Factory:
    try:
        factory: Factory = entry_point.load()
    except Exception as error:  # somebody else's program, and not to stop ours
        raise NotInstalled(f"the strategy {entry_point.name} cannot be loaded; the log says why") from error
    return factory


_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@cache
def _parameters(name: str, factory: Factory) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters
    except (NameError, TypeError, ValueError) as error:
        raise NotInstalled(f"the options of the strategy {name} cannot be read from its signature: {error}") from error
    return {option: each for option, each in parameters.items() if each.kind in _BY_NAME}


def _check_options(name: str, known: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> None:
    for option, value in options.items():
        if option not in known:
            takes = ", ".join(sorted({*known, *COMMON}))
            raise InvalidValue(f"{name} has no option {option!r}; its options are: {takes}")
        _check_type(name, option, value, known[option].annotation)
    missing = [option for option, parameter in known.items() if parameter.default is parameter.empty]
    if missing_here := sorted(set(missing) - set(options)):
        raise InvalidValue(f"{name} needs the option {missing_here[0]!r}")


_ACCEPTED: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    Mapping[str, Any]: ((Mapping,), "an object"),
    type(None): ((type(None),), "null"),
}


def _check_type(name: str, option: str, value: Any, annotation: Any) -> None:
    """An annotation such as `int | None` takes either; one that is none of the above takes anything."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if any(each not in _ACCEPTED for each in choices):
        return
    if not any(_is_a(value, _ACCEPTED[each][0]) for each in choices) or _is_extreme(value, choices):
        expected = " or ".join(_ACCEPTED[each][1] for each in choices)
        raise InvalidValue(f"the option {option!r} of {name} must be {expected}, not {shortened(value)}")


_LARGEST = 1e100


def _is_extreme(value: Any, choices: tuple[Any, ...]) -> bool:
    """Numbers so large or small that products of two or three of them would be none."""
    if float not in choices or not isinstance(value, int | float) or value != value:
        return False
    return bool(value) and not 1 / _LARGEST <= abs(value) <= _LARGEST


def shortened(value: Any) -> str:
    """What is shown of a value that came from outside."""
    try:
        text = repr(value)
    except ValueError:  # of a whole number of thousands of digits
        return "what was given"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _is_a(value: Any, accepted: tuple[type, ...]) -> bool:
    # bool is an int to Python
    return isinstance(value, accepted) and (not isinstance(value, bool) or accepted == (bool,))
