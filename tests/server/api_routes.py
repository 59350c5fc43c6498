"""Every route of the server, as the router and the viewsets' extra actions make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, get_resolver

OTHERS = ("admin/", "api-auth/", "static/")
"""What comes with Django and its packages, and is tested there."""


@dataclass(frozen=True)
class Route:
    """`path` has `<id>` where an id belongs; `actions` says what each of its methods but HEAD and OPTIONS calls."""

    path: str
    actions: dict[str, str]

    @property
    def resource(self) -> str:
        """What the id in the path is one of: `models`, `users`, ..."""
        return self.path.split("/")[2]

    @property
    def operations(self) -> list[str]:
        return [f"{method} {self.path}" for method in self.actions]


def all_routes() -> list[Route]:
    """Those of the server's own, in the order in which they are looked for."""
    return [Route(path, _actions_of(entry.callback)) for path, entry in _own_patterns()]


def names() -> list[tuple[str, str]]:
    """The names by which addresses are made, each with its path."""
    return [(entry.name, path) for path, entry in _own_patterns() if entry.name]


def _actions_of(view: Any) -> dict[str, str]:
    # A view that is no viewset only shows something.
    actions = getattr(view, "actions", None) or {"get": "get"}
    return {method.upper(): name for method, name in actions.items() if method != "head"}


def _own_patterns() -> list[tuple[str, URLPattern]]:
    return [(path, entry) for path, entry in _patterns(get_resolver()) if not path.startswith(OTHERS, 1)]


def _patterns(resolver: Any, prefix: str = "/") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern).replace("(?P<pk>[^/]+)", "<id>").strip("^$")
        if isinstance(entry, URLPattern):
            yield path, entry
        else:
            yield from _patterns(entry, path)
