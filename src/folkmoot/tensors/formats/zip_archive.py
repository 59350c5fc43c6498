"""Zip archives, read strictly: what the directory says and what lies in the file must be the same thing.

Members stand one after the other from the first byte, then the directory, then its end record, and nothing
else. The standard library's reader takes archives in which these disagree, and trusts the sizes they claim.
Source: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from folkmoot.errors import InvalidFile, TooLarge
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.tensor_file import map_file

STORED = 0
DEFLATED = 8

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64_LOCATOR_MARK, _END64_MARK = b"PK\x06\x07", b"PK\x06\x06"
_DESCRIPTOR_MARK = b"PK\x07\x08"

_ENCRYPTED = 0x2041  # encrypted, strong encryption, masked headers
_HAS_DESCRIPTOR = 0x0008
_FULL_32 = 0xFFFFFFFF
_ZIP64_EXTRA = 1
_LOCAL_CRC, _CENTRAL_CRC = 14, 16
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive; `num_bytes` is its expanded size, `compressed_bytes` what it takes here.

    `crc_offsets` are the places in the file at which `crc` stands.
    """

    name: str
    method: int
    flags: int
    crc: int
    compressed_bytes: int
    num_bytes: int
    header_offset: int
    data_offset: int = -1
    crc_offsets: tuple[int, ...] = ()


class ZipArchive:
    """An archive mapped into memory; `members` are in the order in which they lie in the file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.file = map_file(path, limits)
        self._view = memoryview(self.file)
        start, stop, count = _directory(self._view, limits)
        entries = sorted(_entries(self._view[:stop], start, count), key=lambda member: member.header_offset)
        _check_members(entries, limits)
        self.members = list(_place(self._view[:start], entries))

    def chunks(self, member: Member) -> Iterator[bytes | memoryview]:
        """Yield the expanded bytes in bounded pieces; raises InvalidFile when size or checksum are not as claimed."""
        crc = size = 0
        for chunk in self._expand(member):
            size += len(chunk)
            if size > member.num_bytes:
                break
            crc = zlib.crc32(chunk, crc)
            yield chunk
        if size != member.num_bytes or crc != member.crc:
            raise InvalidFile(f"{member.name} is damaged: its size or checksum is not what the archive says")

    def _expand(self, member: Member) -> Iterator[bytes | memoryview]:
        data = self._view[member.data_offset : member.data_offset + member.compressed_bytes]
        pieces = (data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES))
        return pieces if member.method == STORED else _inflate(member, pieces)


def _inflate(member: Member, pieces: Iterator[memoryview]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for piece in pieces:
            yield inflater.decompress(piece, _CHUNK_BYTES)
            while inflater.unconsumed_tail:
                yield inflater.decompress(inflater.unconsumed_tail, _CHUNK_BYTES)
            if inflater.eof:
                break
        yield inflater.flush()
    except zlib.error:
        raise InvalidFile(f"{member.name} is damaged: it cannot be decompressed") from None
    if not inflater.eof or inflater.unused_data or next(pieces, None) is not None:
        raise InvalidFile(f"{member.name} is damaged: its compressed size is not what the archive says")


def _directory(file: memoryview, limits: Limits) -> tuple[int, int, int]:
    """Return where the directory begins and ends, and how many entries it has."""
    end = len(file) - _END.size
    if end < 0:
        raise InvalidFile("the zip archive is cut off")
    mark, disk, first_disk, count_here, count, size, start, comment = _END.unpack_from(file, end)
    if mark != _END_MARK or comment or disk or first_disk or count_here != count:
        raise InvalidFile("the zip archive does not end with the end record of its directory")
    stop = end
    if file[max(end - _END64_LOCATOR.size, 0) : end][:4] == _END64_LOCATOR_MARK:
        stop, count, size, start = _end64(file, end)
    if count > limits.max_members:
        raise TooLarge(f"the archive has {count} members; at most {limits.max_members} are taken")
    if start + size != stop:
        raise InvalidFile("the directory of the zip archive is not where its end record says")
    return start, stop, count


def _end64(file: memoryview, end: int) -> tuple[int, int, int, int]:
    locator = end - _END64_LOCATOR.size
    _, _, offset, _ = _END64_LOCATOR.unpack_from(file, locator)
    if offset + _END64.size != locator:
        raise InvalidFile("the zip archive does not end with the end record of its directory")
    mark, _, _, _, disk, first_disk, count_here, count, size, start = _END64.unpack_from(file, offset)
    if mark != _END64_MARK or disk or first_disk or count_here != count:
        raise InvalidFile("the zip archive does not end with the end record of its directory")
    return offset, count, size, start


def _entries(directory: memoryview, position: int, count: int) -> Iterator[Member]:
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise InvalidFile("the directory of the zip archive is cut off")
        (mark, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length,
         disk, _, _, offset) = _CENTRAL.unpack_from(directory, position)  # fmt: skip
        crc_offset = position + _CENTRAL_CRC
        name_start = position + _CENTRAL.size
        extra_start = name_start + name_length
        position = extra_start + extra_length + comment_length
        if mark != _CENTRAL_MARK or disk or position > len(directory):
            raise InvalidFile("the directory of the zip archive is damaged")
        name = _name(bytes(directory[name_start:extra_start]))
        extra = directory[extra_start : extra_start + extra_length]
        size, packed, offset = _widen(extra, [size, packed, offset])
        yield Member(name, method, flags, crc, packed, size, offset, crc_offsets=(crc_offset,))
    if position != len(directory):
        raise InvalidFile("the directory of the zip archive has more than its end record says")


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidFile("the zip archive has a name that is not UTF-8") from None


def _widen(extra: memoryview, values: list[int]) -> list[int]:
    """Replace those of `values` that do not fit in 32 bits by what the zip64 extra field holds for them."""
    wide = iter(_zip64_values(extra))
    try:
        return [next(wide) if value == _FULL_32 else value for value in values]
    except StopIteration:
        raise InvalidFile("the directory of the zip archive is damaged") from None


def _zip64_values(extra: memoryview) -> list[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        body = extra[position + 4 : position + 4 + length]
        if kind == _ZIP64_EXTRA:
            return [value for (value,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8])]
        position += 4 + length
    return []


def _check_members(members: list[Member], limits: Limits) -> None:
    if len({member.name for member in members}) < len(members):
        raise InvalidFile("two members of the archive have the same name")
    for member in members:
        if member.flags & _ENCRYPTED:
            raise InvalidFile(f"{member.name!r} is encrypted")
        if member.method not in (STORED, DEFLATED):
            raise InvalidFile(f"{member.name!r} is compressed in a way that is not taken; only deflate is")
        if member.method == STORED and member.num_bytes != member.compressed_bytes:
            raise InvalidFile(f"{member.name!r} has two sizes")
        if member.num_bytes > limits.max_ratio * member.compressed_bytes:
            raise TooLarge(f"{member.name!r} claims to expand more than {limits.max_ratio} times")
    if sum(member.num_bytes for member in members) > limits.max_bytes:
        raise TooLarge(f"the archive expands to more than {limits.max_bytes} bytes")


def _place(file: memoryview, members: list[Member]) -> Iterator[Member]:
    """Find the data of each member, and check that the members fill `file` without hole or overlap."""
    position = 0
    for number, member in enumerate(members):
        stop = members[number + 1].header_offset if number + 1 < len(members) else len(file)
        if member.header_offset != position or stop > len(file):
            raise InvalidFile("the members of the archive overlap or leave a gap")
        data_offset = position + _local_header_bytes(file[position:stop], member)
        _check_tail(file[data_offset:stop], member)
        crc_offsets = member.crc_offsets + tuple(_crc_offsets(file, member, data_offset, stop))
        yield replace(member, data_offset=data_offset, crc_offsets=crc_offsets)
        position = stop
    if position != len(file):
        raise InvalidFile("the archive holds something that is not in its directory")


def _local_header_bytes(file: memoryview, member: Member) -> int:
    if len(file) < _LOCAL.size:
        raise InvalidFile("the members of the archive overlap or leave a gap")
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack_from(file)
    data_offset: int = _LOCAL.size + name_length + extra_length
    size, packed = _widen(file[_LOCAL.size + name_length : data_offset], [size, packed])
    same = mark == _LOCAL_MARK and (flags, method) == (member.flags, member.method)
    same = same and file[_LOCAL.size : _LOCAL.size + name_length] == member.name.encode()
    if not member.flags & _HAS_DESCRIPTOR:
        same = same and (crc, packed, size) == (member.crc, member.compressed_bytes, member.num_bytes)
    if not same:
        raise InvalidFile(f"{member.name!r} is not what the archive's directory says")
    return data_offset


def _crc_offsets(file: memoryview, member: Member, data_offset: int, stop: int) -> Iterator[int]:
    """Yield where a member's header and its data descriptor have its checksum; a header may leave it out."""
    in_header = member.header_offset + _LOCAL_CRC
    if file[in_header : in_header + 4] == struct.pack("<L", member.crc):
        yield in_header
    descriptor = data_offset + member.compressed_bytes
    if descriptor < stop:
        has_mark = (stop - descriptor) % 8 == 0  # three numbers, of which two may be wide, take 12 or 20 bytes
        yield descriptor + len(_DESCRIPTOR_MARK) * has_mark


def _check_tail(rest: memoryview, member: Member) -> None:
    """Check that `rest` is the member's data and, where the flags announce one, its data descriptor."""
    tail = bytes(rest[member.compressed_bytes :])
    descriptors = {b""}
    if member.flags & _HAS_DESCRIPTOR:
        sizes = (member.crc, member.compressed_bytes, member.num_bytes)
        packed = [struct.pack("<L2Q", *sizes)]
        if max(sizes) <= _FULL_32:
            packed.append(struct.pack("<3L", *sizes))
        descriptors = {mark + body for body in packed for mark in (b"", _DESCRIPTOR_MARK)}
    if len(rest) < member.compressed_bytes or tail not in descriptors:
        raise InvalidFile("the members of the archive overlap or leave a gap")
