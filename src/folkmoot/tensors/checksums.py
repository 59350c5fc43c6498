"""A checksum for each block of a TensorFile's data, so that whoever reads a part of the file can tell rot from truth.

XXH3 with 64 bits is a checksum and no signature: it finds what a disk or a network did, not what an attacker did.
Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BLOCK_BYTES = 1 << 18
"""Counted from the end of the file's header. A multiple of every dtype's size."""

CHECKSUM_BYTES = 8


Checksum = xxhash.xxh3_64
"""That of one block which comes in parts: `update`, and in the end `digest`."""


def checksum(block: ReadableBuffer) -> bytes:
    """Of one block, as it stands among those of the whole."""
    return xxhash.xxh3_64_digest(block)


class BlockChecksums:
    """Computes the checksums of data that comes in pieces of any size."""

    def __init__(self) -> None:
        self._finished = bytearray()
        self._current = xxhash.xxh3_64()
        self._left = BLOCK_BYTES

    def update(self, data: ReadableBuffer) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            piece, rest = rest[: self._left], rest[self._left :]
            self._current.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._finish_block()

    def digest(self) -> bytes:
        """Eight bytes for each block, the last one as short as the data leaves it."""
        if self._left == BLOCK_BYTES:
            return bytes(self._finished)
        return bytes(self._finished) + self._current.digest()

    def _finish_block(self) -> None:
        self._finished += self._current.digest()
        self._current.reset()
        self._left = BLOCK_BYTES


def block_checksums(data: ReadableBuffer) -> bytes:
    """The checksums of data that is at hand as a whole, in memory or mapped."""
    checksums = BlockChecksums()
    checksums.update(data)
    return checksums.digest()
