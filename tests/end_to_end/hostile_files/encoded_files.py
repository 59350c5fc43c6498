"""Encoded updates of the harness's model: frames that swell, parts that lie, differences to another model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from harness import initial_model, trained

from folkmoot.tensors.encodings import Base, Encoding, encode
from hostile_files.row import Row, refused

ENCODING = {"values": "int8", "block": 8, "top_k": 0.5, "zstd": 3}


def encoded(**options: object) -> bytes:
    base = Base.of(initial_model())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "update")
        encode(trained(initial_model(), "hostile", 0), Encoding(difference=True, **options), path, base=base)
        return path.read_bytes()


def plain() -> bytes:
    return encoded(values="int8", block=8, top_k=0.5)


def compressed(content: bytes, **options: int) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)


def changed(change: Callable[[dict, bytearray], None]) -> bytes:
    """The encoded update after `change` of its header and its data."""
    content = plain()
    size = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:size]), bytearray(content[size:])
    change(header, data)
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(key: str, value: str, code: str = "invalid_file") -> Row:
    return refused(code, lambda: changed(lambda header, _: header["__metadata__"].update({key: value})))


def overwritten(part: str, value: np.ndarray) -> Row:
    def change(header: dict, data: bytearray) -> None:
        start = header[part]["data_offsets"][0]
        data[start : start + value.nbytes] = value.tobytes()

    return refused("invalid_file", lambda: changed(change))


def huge_window() -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return frame.compress(plain() + bytes(1000)) + frame.flush()


FILES = {
    "U11 zstd that expands to a gigabyte": refused("too_large", lambda: compressed(bytes(2**30))),
    "U11 zstd that wants a window of 128 MiB": refused("invalid_file", huge_window),
    "U11 zstd in zstd": refused("too_large", lambda: compressed(compressed(plain()))),
    "U11 a frame that is cut off": refused("invalid_file", lambda: compressed(plain())[:-5]),
    "U11 a frame that is not one": refused("invalid_file", b"\x28\xb5\x2f\xfd" + bytes(100)),
    "U20 something behind the frame": refused("invalid_file", lambda: compressed(plain()) + b"\0"),
    "U20 two frames": refused("invalid_file", lambda: compressed(plain()) * 2),
    "U20 a frame to be skipped": refused(
        "unsupported_container", lambda: b"\x50\x2a\x4d\x18\1\0\0\0x" + compressed(plain())
    ),
    "U18 a version that is none": described("folkmoot.encoding", "2"),
    "U18 values of a kind that is none": described("values", "int7"),
    "U18 a block of none": described("block", "0"),
    "U18 a block of 10^18": described("block", "1000000000000000000"),
    "U18 top-k that is not a number": described("top_k", "nan"),
    "U18 top-k of more than all": described("top_k", "2.0"),
    "U18 one fact more": described("more", "x"),
    "U18 a base that is a path": described("base", "../../etc/passwd"),
    "U6 a tensor that says it is a terabyte": described("tensor/bias", "F32 549755813888"),
    "U6 a tensor of other dimensions": described("tensor/bias", "F32 1 3", "schema_mismatch"),
    "U6 a tensor of whole numbers": described("tensor/bias", "I32 3"),
    "U6 a scale that is not a number": overwritten("scales/bias", np.array([np.nan], "f4")),
    "U6 a scale that is infinite": overwritten("scales/bias", np.array([np.inf], "f4")),
    "U6 a scale that is negative": overwritten("scales/bias", np.array([-1], "f4")),
    "U6 an index beyond the end": overwritten("indices/bias", np.array([0, 65535], "u2")),
    "U6 an index twice": overwritten("indices/bias", np.array([1, 1], "u2")),
    "U6 indices that go down": overwritten("indices/bias", np.array([2, 1], "u2")),
    "U6 a part that is missing": refused("invalid_file", lambda: changed(lambda header, _: header.pop("indices/bias"))),
    "U6 a difference to another model": refused(
        "conflict", lambda: changed(lambda header, _: header["__metadata__"].update(base="0" * 64))
    ),
}
