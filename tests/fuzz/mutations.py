"""Ways of spoiling a file: blind ones, and ones that know how the file is built and keep the rest of it sound."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from random import Random

import zstandard

from folkmoot.errors import InvalidFile
from folkmoot.tensors.formats.protobuf import BYTES, Message, field_header

Mutation = Callable[[bytes, Random], bytes]

_NUMBERS = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_TOKENS = [
    *(b"[]", b"{}", b'""', b"null", b"true", b"NaN", b"-1", b"1e9", b"1.0", b"99999999999999999999", b"\\ud800"),
    *(b"\\u0000", b'"__metadata__"', b'"data_offsets"', b"(9,)", b"'<f8'", b"'|O'", b"True", b"../", b"m/data/0"),
    *(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\xff" * 8, bytes(8)),
    *(b"cos\nsystem\n", b"R", b"\x81", b"b", b"Q", b"\x93", b"h\0", b"\x80\x04"),
]
_DEEPEST = 6


def blind(content: bytes, random: Random) -> bytes:
    """Change some bytes wherever they are."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        place = random.randrange(len(changed) + 1)
        random.choice(_BLIND)(changed, place, random)
    return bytes(changed)


def _flip(changed: bytearray, place: int, random: Random) -> None:
    if place < len(changed):
        changed[place] ^= 1 << random.randrange(8)


def _set(changed: bytearray, place: int, random: Random) -> None:
    changed[place : place + 1] = random.choice((b"\0", b"\x7f", b"\x80", b"\xff", random.randbytes(1)))


def _number(changed: bytearray, place: int, random: Random) -> None:
    size = random.choice((1, 2, 4, 8))
    here = int.from_bytes(changed[place : place + size], "little")
    value = random.choice((*_NUMBERS, here + 1, here - 1, here * 2, len(changed)))
    changed[place : place + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _token(changed: bytearray, place: int, random: Random) -> None:
    token = random.choice(_TOKENS)
    changed[place : place + random.choice((0, len(token)))] = token


def _cut(changed: bytearray, place: int, random: Random) -> None:
    del changed[place : place + random.choice((1, 2, 8, 64, len(changed)))]


def _again(changed: bytearray, place: int, random: Random) -> None:
    start = random.randrange(len(changed) + 1)
    changed[place:place] = changed[start : start + random.choice((1, 4, 16, 64))] * random.choice((1, 1, 2, 50))


_BLIND = (_flip, _flip, _set, _number, _number, _token, _cut, _again)


def sequence(parts: list[bytes], spoil: Mutation, random: Random) -> list[bytes]:
    """Leave a part out, have one twice, move one, or spoil one."""
    if not parts:
        return parts
    place, other = random.randrange(len(parts)), random.randrange(len(parts))
    match random.randrange(6):
        case 0:
            return parts[:place] + parts[place + 1 :]
        case 1:
            return [*parts[:other], parts[place], *parts[other:]]
        case 2:
            parts[place], parts[other] = parts[other], parts[place]
            return parts
    return [*parts[:place], spoil(parts[place], random), *parts[place + 1 :]]


def after_length(size: int) -> Mutation:
    """Of a text behind its length: the text changes, and the length becomes that of the new one."""

    def mutation(content: bytes, random: Random) -> bytes:
        length = int.from_bytes(content[:size], "little")
        text = blind(content[size : size + length], random)
        return (len(text) % (1 << 8 * size)).to_bytes(size, "little") + text + content[size + length :]

    return mutation


def npy(content: bytes, random: Random) -> bytes:
    return content[:8] + after_length(2)(content[8:], random)


def opcodes(content: bytes, random: Random) -> bytes:
    """Of a pickle: whole opcodes with their arguments."""
    try:
        places = [place for _, _, place in pickletools.genops(content)]
    except Exception:
        return blind(content, random)
    parts = [content[start:stop] for start, stop in zip(places, [*places[1:], len(content)], strict=True)]
    for _ in range(random.choice((1, 1, 2, 4))):
        parts = sequence(parts, blind, random)
    return b"".join(parts)


def message(content: bytes, random: Random, depth: int = 0) -> bytes:
    """Of a protobuf message: whole fields at any depth; the lengths around them stay right."""
    view = memoryview(content)
    try:
        fields = list(Message(view, 0, len(view)))
    except InvalidFile:
        return blind(content, random)
    parts = [content[field.begin : field.stop] for field in fields]
    nested = [place for place, field in enumerate(fields) if field.wire_type == BYTES]
    if not nested or depth == _DEEPEST or random.random() < 0.3:
        return b"".join(sequence(parts, blind, random))
    place = random.choice(nested)
    inner = message(content[fields[place].start : fields[place].stop], random, depth + 1)
    parts[place] = field_header(fields[place].number, len(inner)) + inner
    return b"".join(parts)


def members(spoil: Callable[[str], Mutation]) -> Mutation:
    """Of a zip archive: a member's content or the list of members; directory and checksums are made anew."""

    def mutation(content: bytes, random: Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                found = [(info.filename, archive.read(info)) for info in archive.infolist()]
        except Exception:
            return blind(content, random)
        return _archive(_changed(found, spoil, random), random)

    return mutation


def _changed(
    found: list[tuple[str, bytes]], spoil: Callable[[str], Mutation], random: Random
) -> Sequence[tuple[str, bytes]]:
    place = random.randrange(len(found)) if found else 0
    match random.randrange(8) if found else 0:
        case 0:
            return [*found, ("m/data/9", random.randbytes(24))]
        case 1:
            return found[:place] + found[place + 1 :]
    name, content = found[place]
    return [*found[:place], (name, spoil(name)(content, random)), *found[place + 1 :]]


def _archive(found: Sequence[tuple[str, bytes]], random: Random) -> bytes:
    file = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in dict(found).items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def in_frame(spoil: Mutation) -> Mutation:
    """Of what may be compressed with zstd: the content, compressed again."""

    def mutation(content: bytes, random: Random) -> bytes:
        try:
            inside = zstandard.ZstdDecompressor().decompress(content, max_output_size=1 << 20)
        except (zstandard.ZstdError, MemoryError):
            return spoil(content, random)
        return zstandard.ZstdCompressor().compress(spoil(inside, random))

    return mutation
