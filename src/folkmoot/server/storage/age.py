"""Which files have been left alone for how long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def old_ones(paths: Iterable[Path], seconds: float) -> Iterator[Path]:
    """Those of the files that have not changed for so long; one that goes meanwhile is none of them."""
    newest = time.time() - seconds
    for path in paths:
        with suppress(FileNotFoundError):
            if path.stat().st_mtime <= newest:
                yield path
