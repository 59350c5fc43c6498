"""What the warm parent has been able to import; a confined process imports nothing more."""

from __future__ import annotations

import importlib
import sys

from folkmoot.errors import NotInstalled

_EXTRAS = {"torch": "torch", "onnxruntime": "onnx"}
_MOST_LETTERS = 300
_broken: dict[str, str] = {}


def import_libraries() -> None:
    """Import those that are installed, and note of the others what is wrong with them."""
    for library in _EXTRAS:
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            if error.name != library:
                _note(library, error)
        except Exception as error:  # OSError where a shared library is missing; they may raise anything
            _note(library, error)


def is_imported(library: str) -> bool:
    return library not in _broken and library in sys.modules


def require(library: str) -> None:
    """Raise NotInstalled unless the library has been imported: it names the extra, and what is wrong if known."""
    if is_imported(library):
        return
    wrong = f"cannot import {library} ({_broken[library]})" if library in _broken else f"has no {library}"
    extra = _EXTRAS[library]
    raise NotInstalled(f"this server {wrong}, which this model needs: pip install 'folkmoot[{extra}]'")


def _note(library: str, error: Exception) -> None:
    _broken[library] = f"{type(error).__name__}: {error}"[:_MOST_LETTERS]
