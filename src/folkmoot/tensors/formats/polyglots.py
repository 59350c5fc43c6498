"""Files that are two things at once: one to us, a zip archive to programs that look for its end first.

torch.jit.load is such a program, and runs what it finds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from folkmoot.errors import InvalidFile
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.tensor_file import map_file

_ENTRY_MARK, _END_MARK = b"PK\x01\x02", b"PK\x05\x06"
_END64_LOCATOR_MARK, _END64_MARK = b"PK\x06\x07", b"PK\x06\x06"
_END = struct.Struct("<12x2L2x")
_END64 = struct.Struct("<40x2Q")
_END64_LOCATOR = struct.Struct("<8xQ4x")
_MAX_COMMENT_BYTES = 0xFFFF


def check_not_also_zip(path: Path) -> None:
    """Raise InvalidFile if a zip reader would find an archive in the file, which begins as something else."""
    file = map_file(path, TRUSTED)
    # Four bytes by chance are in one of 65,536 files; with a second four where they point to, in none.
    for directory in _directories(file):
        if directory >= 0 and file[directory : directory + len(_ENTRY_MARK)] == _ENTRY_MARK:
            raise InvalidFile(
                "the bytes end in the directory of a zip archive: what is a model to one program and an archive to "
                "another is not taken"
            )


def _directories(file: bytes | mmap.mmap) -> Iterator[int]:
    """Yield where archives that end here would have their directories.

    torch goes where the end record points to, Python's zipfile as far back as the directory is long. Neither asks
    that the comment ends with the file.
    """
    for end in _ends(file):
        size, offset = _END.unpack_from(file, end)
        yield from (offset, end - size)
        for end64 in _ends64(file, end - _END64_LOCATOR.size):
            size, offset = _END64.unpack_from(file, end64)
            yield from (offset, end64 - size)


def _ends(file: bytes | mmap.mmap) -> Iterator[int]:
    stop = len(file) - _END.size + len(_END_MARK)
    while (end := file.rfind(_END_MARK, max(len(file) - _END.size - _MAX_COMMENT_BYTES, 0), max(stop, 0))) >= 0:
        yield end
        stop = end + len(_END_MARK) - 1


def _ends64(file: bytes | mmap.mmap, locator: int) -> Iterator[int]:
    if locator < 0 or file[locator : locator + 4] != _END64_LOCATOR_MARK:
        return
    for end64 in (*_END64_LOCATOR.unpack_from(file, locator), locator - _END64.size):
        if 0 <= end64 <= locator - _END64.size and file[end64 : end64 + 4] == _END64_MARK:
            yield end64
