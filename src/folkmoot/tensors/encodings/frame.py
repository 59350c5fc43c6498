"""A whole file as one zstd frame, and back without trust in what the frame says."""

from __future__ import annotations

from typing import BinaryIO

import zstandard

from folkmoot.errors import InvalidFile, TooLarge

MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW_BYTES = 1 << 23
# Four bytes of a frame can stand for a block of 128 KiB, so a piece for 32 MiB; with larger ones a bomb would go off
# within one call, before its bytes are counted.
_PIECE_BYTES = 1 << 10


def compressor(level: int, num_bytes: int) -> zstandard.ZstdCompressionObj:
    """Takes `num_bytes` bytes in any pieces. Equal input gives equal output of one version of libzstd."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, threads=0).compressobj(size=num_bytes)


def inflate(source: BinaryIO, target: BinaryIO, max_bytes: int) -> None:
    """Write the content of the one frame that `source` is; raises TooLarge beyond `max_bytes`, InvalidFile.

    The bytes are counted as they come out, since the sizes in a frame are the sender's.
    """
    frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    num_bytes = 0
    while not frame.eof and (piece := source.read(_PIECE_BYTES)):
        content = _inflated(frame, piece)
        num_bytes += len(content)
        if num_bytes > max_bytes:
            raise TooLarge(f"the update expands to more than {max_bytes} bytes, which is more than the model needs")
        target.write(content)
    if not frame.eof:
        raise InvalidFile("the compressed update ends within its frame")
    if frame.unused_data or source.read(1):
        raise InvalidFile("something follows the frame of the compressed update")


def _inflated(frame: zstandard.ZstdDecompressionObj, piece: bytes) -> bytes:
    try:
        return frame.decompress(piece)
    except (zstandard.ZstdError, MemoryError):
        raise InvalidFile("the compressed update is damaged, or needs a window of more than 8 MiB") from None
