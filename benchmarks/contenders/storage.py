"""What the files lie on, and whether the system has them in memory already."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def file_system(path: Path) -> str:
    """Return the type of the file system, such as ext4 or tmpfs."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next((mount[mount.index("-") + 1] for mount in mounts if mount[2] == number), "an unknown file system")


def drop_from_cache(paths: Iterable[Path]) -> None:
    """Ask the system to forget what it has in memory of files that are on the disk already."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def share_in_cache(paths: list[Path], *, most_files: int = 20, places: int = 20) -> float | None:
    """Look at places all over some of the files; None where the file system does not tell.

    What is not in memory may be read ahead because of that.
    """
    found = [
        cached
        for path in paths[:: max(1, len(paths) // most_files)]
        for cached in _cached(path, [path.stat().st_size * place // places for place in range(places)])
    ]
    return None if None in found else sum(map(bool, found)) / len(found)


def _cached(path: Path, offsets: list[int]) -> list[bool | None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [_is_cached(descriptor, offset) for offset in offsets]
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, offset: int) -> bool | None:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return None
