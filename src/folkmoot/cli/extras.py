"""Parts of the distribution that are installed only where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from folkmoot.errors import Misconfigured


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn an import that fails for want of an extra into a sentence that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("folkmoot"):
            raise
        raise Misconfigured(f"this command needs {error.name}: pip install 'folkmoot[{extra}]'") from error
