"""npz: .npy headers that are more than data, and values that are none."""

from __future__ import annotations

import struct

import numpy as np

from hostile_files.archives import archive, npy
from hostile_files.row import MARKER, accepted, refused

DATA = bytes(8)


def header(text: str, data: bytes = DATA, *, version: int = 1, length: int | None = None, method: int = 0) -> bytes:
    """An archive with one array of this header."""
    layout = "<H" if version == 1 else "<L"
    content = b"\x93NUMPY" + bytes([version, 0]) + struct.pack(layout, len(text) if length is None else length)
    return archive(("a.npy", content + text.encode("latin-1") + data), method=method)


def fields(descr: str = "'<f4'", order: str = "False", shape: str = "(2,)", more: str = "") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}")


def objects() -> bytes:
    """An array of Python objects, as NumPy pickles it; loading it makes MARKER."""

    class Payload:
        def __reduce__(self):
            return (open, (str(MARKER), "w"))

    return archive(("a.npy", npy(np.array([Payload()], dtype=object))))


FILES = {
    "U16 Python objects": refused("invalid_file", objects),
    "U16 Python objects, so it says": refused("invalid_file", fields("'|O'")),
    "U16 a structured dtype": refused("invalid_file", fields("[('a', '<f4'), ('b', '|O')]")),
    "U16 a structured dtype in short": refused("invalid_file", fields("'f4,O'")),
    "U16 a dtype that is code": refused("invalid_file", fields(f"open({str(MARKER)!r}, 'w')")),
    "U16 a shape that is code": refused("invalid_file", fields(shape=f"(open({str(MARKER)!r}, 'w'),)")),
    "U16 an import": refused("invalid_file", fields("__import__('os').system('id')")),
    "U16 a comprehension": refused("invalid_file", fields(shape="(2 for a in b)")),
    "U16 a lambda": refused("invalid_file", fields("(lambda: '<f4')()")),
    "U16 a sum of shapes": refused("invalid_file", fields(shape="(1+1,)")),
    "U16 a power": refused("invalid_file", fields(shape="(9**9**9,)")),
    "U16 texts": refused("invalid_file", fields("'<U1'")),
    "U16 dates": refused("invalid_file", fields("'<M8[s]'", shape="(1,)")),
    "U16 complex numbers": refused("invalid_file", fields("'<c8'", shape="(1,)")),
    "U16 raw bytes": refused("invalid_file", fields("'|V4'")),
    "U16 long doubles": refused("invalid_file", fields("'<f16'", shape="(0,)")),
    "U16 no shape": refused("invalid_file", header("{'descr': '<f4', 'fortran_order': False}")),
    "U16 one key more": refused("invalid_file", fields(more="'a': 1")),
    "U16 a key twice": refused("invalid_file", fields(more="'shape': (2,)")),
    "U16 a header that is a pickle": refused("invalid_file", header("\x80\x04c os\nsystem\n(S'id'\ntR.")),
    "U16 a header of 64 KiB and more": refused("too_large", lambda: header(" " * 70_000, version=2)),
    "U16 a header of 4 GB, so it says": refused("too_large", header("{", version=2, length=2**32 - 1)),
    "U16 a header that ends within": refused("invalid_file", header("{'descr'", b"", length=500)),
    "U16 60,000 parentheses": refused("invalid_file", lambda: header("(" * 60_000)),
    "U16 60,000 signs": refused("invalid_file", lambda: fields("-" * 60_000 + "1")),
    "U16 version 9": refused("invalid_file", header("{}", version=9)),
    "U6 a negative size": refused("invalid_file", fields(shape="(-2,)")),
    "U6 a size of 5,000 digits": refused("invalid_file", fields(shape=f"(9{'0' * 5000},)")),
    "U6 sizes that overflow": refused("invalid_file", fields(shape="(4294967296, 4294967296, 4)")),
    "U6 a terabyte that is not there": refused("invalid_file", fields(shape="(274877906944,)")),
    "U6 fewer bytes than the shape says": refused("invalid_file", fields(shape="(3,)")),
    "U6 more bytes than the shape says": refused("invalid_file", fields(shape="(1,)")),
    "U18 an empty member": refused("invalid_file", archive(("a.npy", b""))),
    "U18 text": refused("invalid_file", archive(("a.npy", b"hello"))),
    "U18 a member that is no array": refused("invalid_file", archive(("a.npy", npy()), ("data.pkl", b"\x80\x02."))),
    "U15 a name of 600 letters": refused("too_large", archive(("a" * 600 + ".npy", npy()))),
    "U15 a tensor called __metadata__": refused("invalid_file", archive(("__metadata__.npy", npy()))),
    "U8 the largest numbers of either byte order": accepted(
        archive(("a.npy", npy(np.array([3.4e38], ">f4"))), ("b.npy", npy(np.array([-1.7e308], "<f8"))))
    ),
    "U8 a model without tensors": refused("unsupported_container", archive()),
}
