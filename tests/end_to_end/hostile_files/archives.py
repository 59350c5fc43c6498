"""Zip archives: bombs, lies, hidden members. The npz and torch readers share the reader of archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np

from hostile_files.row import accepted, refused

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
QUOTED = 39  # the bytes of a local header with a name of nine letters


def npy(array: np.ndarray | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(12, dtype="f4") if array is None else array)
    return file.getvalue()


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members:
            target.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def patched(content: bytes, *fields: tuple[bytes, int, str, int]) -> bytes:
    """Overwrite fields: the mark of the last header of a kind, an offset in it, a layout and a value."""
    changed = bytearray(content)
    for mark, offset, layout, value in fields:
        struct.pack_into(layout, changed, content.rindex(mark) + offset, value)
    return bytes(changed)


def claiming(content: bytes, size: int) -> bytes:
    """The archive with another expanded size of its last member, in both places."""
    return patched(content, (LOCAL, 22, "<L", size), (CENTRAL, 24, "<L", size))


def zeros(num_bytes: int) -> bytes:
    """An array of zeros, which deflate makes a thousand times smaller."""
    return archive(("a.npy", npy(np.zeros(num_bytes, "u1"))), method=zipfile.ZIP_DEFLATED)


def diluted(ratio: int, num_bytes: int, *, order: str = "C") -> bytes:
    """An array that deflate makes about `ratio` times smaller: mostly zeros, some noise."""
    array = np.zeros(num_bytes, "u1")
    noise = num_bytes * 85 // ratio // 100
    array[:noise] = np.random.default_rng(0).integers(0, 256, noise)
    square = array.reshape(1000, -1, order=order)
    return archive(("a.npy", npy(square)), method=zipfile.ZIP_DEFLATED)


def nested(depth: int) -> bytes:
    inner = npy()
    for _ in range(depth):
        inner = archive(("a.npy", inner), method=zipfile.ZIP_DEFLATED)
    return inner


def overlapping(count: int) -> bytes:
    """`count` names for one member."""
    body = SINGLE[:START]
    entries = b"".join(SINGLE[START:STOP].replace(b"a.npy", b"%05d.npy" % number) for number in range(count))
    for_each = bytearray(entries)
    size = (STOP - START) + 4
    for number in range(count):
        struct.pack_into("<H", for_each, number * size + 28, 9)
    return body + bytes(for_each) + struct.pack("<4s4H2LH", END, 0, 0, count, count, len(for_each), START, 0)


def quoted(count: int) -> bytes:
    """A bomb without nesting: each member's data are the members behind it, headers and all, and then the bomb.

    Source: David Fifield, A better zip bomb, 2019, https://www.bamsoftware.com/hacks/zipbomb/
    """
    kernel = zlib.compress(np.random.default_rng(0).bytes(50_000) + bytes(5_000_000), 9, wbits=-zlib.MAX_WBITS)
    quoting = struct.pack("<BHH", 0, QUOTED, 0xFFFF ^ QUOTED)  # a block that is not compressed: the next header
    body, size, entries = kernel, 5_050_000, []
    for number in reversed(range(count)):
        data = kernel if not entries else quoting + body
        fields = struct.pack("<5H3L", 20, 0, 8, 0, 0x21, 0, len(data), size) + struct.pack("<H", 9)
        name = b"%05d.npy" % number
        body = LOCAL + fields + b"\0\0" + name + data
        entries.append((fields, name, len(body)))
        size += QUOTED
    directory = b"".join(
        CENTRAL + b"\x14\0" + fields + bytes(12) + struct.pack("<L", len(body) - distance) + name
        for fields, name, distance in reversed(entries)
    )
    return body + directory + struct.pack("<4s4H2LH", END, 0, 0, count, count, len(directory), len(body), 0)


SINGLE = archive(("a.npy", npy()))
DEFLATED = archive(("a.npy", npy()), method=zipfile.ZIP_DEFLATED)
PAIR = archive(("a.npy", npy()), ("b.npy", npy()))
START, STOP = SINGLE.index(CENTRAL), SINGLE.index(END)


def hidden_between() -> bytes:
    second = PAIR.rindex(LOCAL)
    parted = PAIR[:second] + b"hidden" + PAIR[second:]
    return patched(parted, (CENTRAL, 42, "<L", second + 6), (END, 16, "<L", PAIR.index(CENTRAL) + 6))


def duplicates() -> bytes:
    content = archive(("a.npy", npy()), ("b.npy", npy(np.zeros(2))))
    return content.replace(b"b.npy", b"a.npy")


def symlink() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        link = zipfile.ZipInfo("a.npy")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    return file.getvalue()


FILES = {
    "U11 zeros that expand a thousand times": refused("too_large", lambda: zeros(50_000_000)),
    "U11 10 MB that expand to 4 GB, so they say": refused(
        "too_large", lambda: claiming(archive(("a.npy", npy(np.zeros(10_000_000, "u1"))), method=8), 2**32 - 2)
    ),
    "U11 10 MB that are stored as 4 GB, so they say": refused(
        "invalid_file", lambda: claiming(archive(("a.npy", npy(np.zeros(10_000_000, "u1")))), 2**32 - 2)
    ),
    "U11 a member that expands further than it says": refused(
        "invalid_file", lambda: claiming(zeros(20_000_000), 3000)
    ),
    "U11 a member that expands less than it says": refused("invalid_file", claiming(DEFLATED, 2000)),
    "U11 just within the ratio": accepted(lambda: diluted(190, 300_000_000)),
    "U11 just within the ratio, in Fortran's order": refused("too_large", lambda: diluted(190, 300_000_000, order="F")),
    "U11 4,096 members": accepted(lambda: archive(*((f"{number}.npy", npy()) for number in range(4096)))),
    "U11 4,097 members": refused("too_large", lambda: archive(*((f"{number}.npy", npy()) for number in range(4097)))),
    "U11 50,000 members": refused("too_large", lambda: archive(*((f"{number}.npy", b"") for number in range(50_000)))),
    "U11 2,000 names for one member": refused("invalid_file", lambda: overlapping(2000)),
    "U11 a bomb that quotes itself": refused("invalid_file", lambda: quoted(200)),
    "U11 an archive in an archive, forty deep": refused("invalid_file", lambda: nested(40)),
    "U11 lzma": refused("invalid_file", archive(("a.npy", npy()), method=zipfile.ZIP_LZMA)),
    "U11 bzip2": refused("invalid_file", archive(("a.npy", npy()), method=zipfile.ZIP_BZIP2)),
    "U11 gzip": refused("unsupported_container", zlib.compress(bytes(10_000), wbits=31)),
    "U11 zlib": refused("unsupported_container", zlib.compress(bytes(10_000))),
    "U11 deflate64, so it says": refused(
        "invalid_file", patched(DEFLATED, (LOCAL, 8, "<H", 9), (CENTRAL, 10, "<H", 9))
    ),
    "U11 data that cannot be inflated": refused("invalid_file", lambda: DEFLATED[:35] + b"\xff" * 20 + DEFLATED[55:]),
    "U11 a 64-bit size that is not there": refused("invalid_file", patched(SINGLE, (CENTRAL, 24, "<L", 0xFFFFFFFF))),
    "U14 a member ../a.npy": refused("invalid_file", archive(("a.npy", npy()), ("../b.npy", npy()))),
    "U14 a member a/../../b.npy": refused("invalid_file", archive(("a.npy", npy()), ("a/../../b.npy", npy()))),
    "U14 a member /etc/cron.d/a.npy": refused("invalid_file", archive(("a.npy", npy()), ("/etc/cron.d/a.npy", npy()))),
    "U14 a member C:\\a.npy": refused("invalid_file", archive(("a.npy", npy()), ("C:\\a.npy", npy()))),
    "U14 a member whose name has a line break": refused("invalid_file", archive(("a\nb.npy", npy()))),
    "U14 a member whose name is not UTF-8": refused("invalid_file", SINGLE.replace(b"a.npy", b"\xff.npy")),
    "U14 a symlink": refused("invalid_file", symlink),
    "U14 a folder": refused("invalid_file", archive(("a.npy", npy()), ("folder/", b""))),
    "U14 two members of one name": refused("invalid_file", duplicates),
    "U14 another name in the member than in the directory": refused(
        "invalid_file", SINGLE.replace(b"a.npy", b"b.npy", 1)
    ),
    "U14 another size in the member": refused("invalid_file", patched(SINGLE, (LOCAL, 22, "<L", 1))),
    "U14 another method in the member": refused("invalid_file", patched(SINGLE, (LOCAL, 8, "<H", 8))),
    "U14 a wrong checksum": refused("invalid_file", patched(SINGLE, (LOCAL, 14, "<L", 1), (CENTRAL, 16, "<L", 1))),
    "U14 a wrong checksum of compressed data": refused(
        "invalid_file", patched(DEFLATED, (LOCAL, 14, "<L", 1), (CENTRAL, 16, "<L", 1))
    ),
    "U14 encrypted": refused("invalid_file", patched(SINGLE, (LOCAL, 6, "<H", 1), (CENTRAL, 8, "<H", 1))),
    "U14 strongly encrypted": refused("invalid_file", patched(SINGLE, (LOCAL, 6, "<H", 65), (CENTRAL, 8, "<H", 65))),
    "U14 two end records": refused("invalid_file", SINGLE + SINGLE[STOP:]),
    "U14 two archives": refused("invalid_file", SINGLE + SINGLE),
    "U14 something between two members": refused("invalid_file", hidden_between),
    "U14 something in front of the directory": refused("invalid_file", SINGLE.replace(CENTRAL, b"hidden" + CENTRAL)),
    "U14 a member that begins beyond the end": refused("invalid_file", patched(SINGLE, (CENTRAL, 42, "<L", 2**32 - 9))),
    "U14 a member that begins in another": refused("invalid_file", patched(PAIR, (CENTRAL, 42, "<L", 30))),
    "U14 a directory that is elsewhere": refused("invalid_file", patched(SINGLE, (END, 16, "<L", 0))),
    "U14 a directory of 4 GB": refused("invalid_file", patched(SINGLE, (END, 12, "<L", 2**32 - 9))),
    "U14 fewer members than there are": refused("invalid_file", patched(PAIR, (END, 8, "<H", 1), (END, 10, "<H", 1))),
    "U14 more members than there are": refused("invalid_file", patched(PAIR, (END, 8, "<H", 3), (END, 10, "<H", 3))),
    "U14 an archive on several disks": refused("invalid_file", patched(SINGLE, (END, 4, "<H", 1))),
    "U14 no end record": refused("invalid_file", SINGLE[:STOP]),
    "U14 nothing but an end record": refused("unsupported_container", SINGLE[STOP:STOP] + END + bytes(18)),
    "U20 a comment": refused("invalid_file", SINGLE[:-2] + b"\x0a\x00#!/bin/sh\n"),
    "U20 a shell script in front": refused("unsupported_container", b"#!/bin/sh\nexit\n" + SINGLE),
    "U20 a picture in front": refused("unsupported_container", b"\x89PNG\r\n\x1a\n" + SINGLE),
    "U20 a pickle behind": refused("invalid_file", SINGLE + b"\x80\x02."),
    "U3 a tar archive": refused("unsupported_container", bytes(257) + b"ustar\x0000" + bytes(1000)),
    "U3 an archive of something else": refused("invalid_file", archive(("hello.txt", b"hello"))),
    "U3 a Word document": refused("invalid_file", archive(("[Content_Types].xml", b"<a/>"))),
}
