"""What the system says of files that cannot be read or written for the moment: whoever asks is to come again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from folkmoot.errors import StorageFull, Unavailable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FAILING = {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE}
"""A disk or a file server in trouble, a folder taken away from us, a process that has too many files open."""


def as_unavailable(error: OSError) -> Unavailable | None:
    """The same as an error of ours, if it is one that passes."""
    if error.errno in FULL:
        return StorageFull("no space left for files")
    if error.errno in FAILING:
        return Unavailable(f"the storage fails for the moment ({error.strerror})")
    return None


@contextmanager
def naming_failing_storage() -> Iterator[None]:
    """Raise Unavailable or StorageFull in place of what the system says."""
    try:
        yield
    except OSError as error:
        named = as_unavailable(error)
        if named is None:
            raise
        raise named from error
