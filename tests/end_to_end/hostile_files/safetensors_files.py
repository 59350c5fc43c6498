"""safetensors: headers that lie, JSON that swells, values that are none."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np

from hostile_files.archives import archive
from hostile_files.row import accepted, refused


def file_with(entries: object, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[object], start: object, stop: object, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def one(**changes: object) -> bytes:
    """A file of one tensor of one byte, with these changes to its entry."""
    return file_with({"a": entry([1], 0, 1) | changes}, b"x")


def many(count: int) -> bytes:
    """So many tensors without elements, with a byte of data in a last one."""
    empty = '"dtype":"F32","shape":[0],"data_offsets":[0,0]'
    names = "".join(f'"layer.{number}":{{{empty}}},' for number in range(count - 1))
    return file_with(b"{" + names.encode() + b'"last":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")


def values(array: np.ndarray, dtype: str) -> bytes:
    return file_with({"w": entry(list(array.shape), 0, array.nbytes, dtype)}, array.tobytes())


def repeated(text: bytes, count: int) -> bytes:
    return file_with(b'{"a":{"dtype":"U8","shape":[' + (text + b",") * (count - 1) + text + b'],"data_offsets":[0,1]}}')


GOOD = one()

FILES = {
    "U15 an empty file": refused("unsupported_container", b""),
    "U15 no header": refused("unsupported_container", bytes(8)),
    "U15 a header of no entries is a model of no tensors": accepted(file_with({})),
    "U15 a header that is cut off": refused("invalid_file", GOOD[:20]),
    "U15 a length of all ones": refused("too_large", b"\xff" * 8 + b"{}"),
    "U15 a length just over the limit": refused("too_large", (2**24 + 1).to_bytes(8, "little") + b"{" * 100),
    "U15 a length of 16 MiB and two bytes": refused("invalid_file", (2**24).to_bytes(8, "little") + b"{}"),
    "U15 a list": refused("unsupported_container", file_with([])),
    "U15 two objects": refused("invalid_file", file_with(b"{}{}")),
    "U15 a byte order mark": refused("unsupported_container", file_with(b"\xef\xbb\xbf{}")),
    "U15 not UTF-8": refused("invalid_file", file_with(b'{"\xff": 1}')),
    "U15 a name twice": refused(
        "invalid_file",
        file_with(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
    ),
    "U15 a name twice, once escaped": refused(
        "invalid_file",
        file_with(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
    ),
    "U15 a key of an entry twice": refused(
        "invalid_file", file_with(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"x")
    ),
    "U15 metadata twice": refused("invalid_file", file_with(b'{"__metadata__":{"a":"b","a":"c"}}')),
    "U15 metadata that is no text": refused("invalid_file", file_with({"__metadata__": {"a": [1]}})),
    "U15 metadata with half a character": refused("invalid_file", file_with(b'{"__metadata__":{"a":"\\ud800"}}')),
    "U15 a thousand objects, one in another": refused("invalid_file", file_with(b'{"a":' * 1000 + b"1" + b"}" * 1000)),
    "U15 100,000 objects, one in another": refused(
        "invalid_file", lambda: file_with(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    ),
    "U15 400,000 lists, one in another": refused(
        "invalid_file", lambda: file_with(b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}")
    ),
    "U15 four million lists": refused("invalid_file", lambda: repeated(b"[]", 4_000_000)),
    "U15 800,000 lists": refused("invalid_file", lambda: repeated(b"[]", 800_000)),
    "U15 four million numbers": refused("invalid_file", lambda: repeated(b"999", 4_000_000)),
    "U15 three million texts": refused("invalid_file", lambda: repeated(b'"ab"', 3_000_000)),
    "U15 two million names": refused(
        "too_large",
        lambda: file_with(b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(1_200_000)) + b"}}"),
    ),
    "U15 eight megabytes of metadata": accepted(
        lambda: file_with(b'{"__metadata__":{"a":"' + "\N{GRINNING FACE}".encode() * 2_000_000 + b'"}}')
    ),
    "U15 nine megabytes of metadata": refused(
        "too_large", lambda: file_with(b'{"__metadata__":{"a":"' + "\N{GRINNING FACE}".encode() * 2_300_000 + b'"}}')
    ),
    "U15 a number of ten thousand digits": refused("invalid_file", lambda: repeated(b"9" * 10_000, 1)),
    "U15 a number of four million digits": refused("invalid_file", lambda: repeated(b"9" * 4_000_000, 1)),
    "U15 100,000 tensors": accepted(lambda: many(100_000)),
    "U15 100,001 tensors": refused("too_large", lambda: many(100_001)),
    "U15 a name of four million letters": refused("too_large", lambda: file_with({"a" * 4_000_000: 1})),
    "U15 a name of 10,000 letters": refused("too_large", file_with({"a" * 10_000: entry([1], 0, 1)}, b"x")),
    "U15 an entry that is a number": refused("invalid_file", file_with({"a": 1})),
    "U15 an entry with one key more": refused("invalid_file", one(more=1)),
    "U15 an entry without a dtype": refused(
        "invalid_file", file_with({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x")
    ),
    "U15 a dtype that nobody has": refused("invalid_file", one(dtype="F7")),
    "U15 a dtype that is a list": refused("invalid_file", one(dtype=["U8"])),
    "U15 complex numbers": refused("invalid_file", file_with({"a": entry([1], 0, 8, "C64")}, bytes(8))),
    "U15 quarter precision": refused("invalid_file", one(dtype="F8_E4M3")),
    "U6 a negative size": refused("invalid_file", one(shape=[-1])),
    "U6 two negative sizes": refused("invalid_file", one(shape=[-1, -1])),
    "U6 a size that is true": refused("invalid_file", one(shape=[True])),
    "U6 a size that is a fraction": refused("invalid_file", one(shape=[1.0])),
    "U6 a size that is not a number": refused(
        "invalid_file", file_with(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x")
    ),
    "U6 a shape of 64 bits and more": refused("invalid_file", one(shape=[2**32, 2**32, 2])),
    "U6 a huge size beside zero": refused("invalid_file", file_with({"a": entry([0, 2**63], 0, 0)})),
    "U6 sizes whose product is small modulo 2^64": refused("invalid_file", one(shape=[2**63 + 1, 2])),
    "U6 a thousand dimensions": refused("invalid_file", one(shape=[1] * 1000)),
    "U6 32 dimensions": accepted(one(shape=[1] * 32)),
    "U6 a terabyte that is not there": refused(
        "invalid_file", file_with({"a": entry([2**38], 0, 2**40, "F32")}, bytes(8))
    ),
    "U15 offsets beyond the end": refused("invalid_file", one(shape=[9], data_offsets=[0, 9])),
    "U15 offsets the wrong way round": refused("invalid_file", one(data_offsets=[1, 0])),
    "U15 a negative offset": refused("invalid_file", one(shape=[2], data_offsets=[-1, 1])),
    "U15 three offsets": refused("invalid_file", one(data_offsets=[0, 1, 1])),
    "U15 an offset of 2^64": refused("invalid_file", one(data_offsets=[2**64, 2**64 + 1])),
    "U15 tensors that overlap": refused(
        "invalid_file", file_with({"a": entry([2], 0, 2), "b": entry([2], 1, 3)}, b"xyz")
    ),
    "U15 two tensors in the same bytes": refused(
        "invalid_file", file_with({"a": entry([1], 0, 1), "b": entry([1], 0, 1)}, b"x")
    ),
    "U15 a hole between tensors": refused(
        "invalid_file", file_with({"a": entry([1], 0, 1), "b": entry([1], 2, 3)}, b"xyz")
    ),
    "U15 an empty tensor inside of another": refused(
        "invalid_file", file_with({"a": entry([2], 0, 2), "b": entry([0], 1, 1)}, b"xy")
    ),
    "U20 a byte behind the last tensor": refused("invalid_file", GOOD + b"\0"),
    "U20 a shell script in front": refused("unsupported_container", b"#!/bin/sh\n" + GOOD),
    "U20 a zip archive behind": refused("invalid_file", GOOD + b"PK\x05\x06" + bytes(18)),
    "U20 a zip archive as a tensor's values": refused(
        "invalid_file", values(np.frombuffer(archive(("code/run.py", b"print()")), "u1"), "U8")
    ),
    "U20 the end of an archive that has no directory is data": accepted(
        file_with({"a": entry([22], 0, 22)}, b"PK\x05\x06" + bytes(18))
    ),
    "U19 a tensor whose name has a line break": refused("invalid_file", file_with({"a\r\nb": entry([1], 0, 1)}, b"x")),
    "U19 a tensor whose name has NUL": refused("invalid_file", file_with({"a\0b": entry([1], 0, 1)}, b"x")),
    "U19 a tensor whose name is half a character": refused(
        "invalid_file", file_with(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    ),
    "U19 a tensor that is called like a path": accepted(file_with({"../../etc/passwd": entry([1], 0, 1)}, b"x")),
    "U19 a tensor that is called like a script": accepted(
        file_with({"<script>alert(1)</script>": entry([1], 0, 1)}, b"x")
    ),
    "U8 the largest float32": accepted(values(np.array([3.4e38, -3.4e38], "f4"), "F32")),
    "U8 the largest float64": accepted(values(np.array([1.7e308, -1.7e308]), "F64")),
    "U8 the largest bfloat16": accepted(values(np.array([3.3e38], ml_dtypes.bfloat16), "BF16")),
    "U8 a denormal": accepted(values(np.array([1e-45], "f4"), "F32")),
}
