"""What the warm parent has found installed; a confined process finds nothing more."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress

from folkmoot.errors import NotInstalled

_EXTRAS = {"torch": "torch", "onnxruntime": "onnx"}


def import_libraries() -> None:
    """Import those that are installed."""
    for library in _EXTRAS:
        with suppress(ImportError):
            importlib.import_module(library)


def is_imported(library: str) -> bool:
    # A library whose import failed is not among them.
    return library in sys.modules


def require(library: str) -> None:
    """Raise NotInstalled, naming the extra, unless the library has been imported."""
    if not is_imported(library):
        extra = _EXTRAS[library]
        raise NotInstalled(f"this server has no {library}, which this model needs: pip install 'folkmoot[{extra}]'")
