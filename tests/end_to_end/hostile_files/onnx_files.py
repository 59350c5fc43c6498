"""ONNX: tensors in other files, protobuf that is none, sizes that are not true."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto as Type

from hostile_files.archives import archive
from hostile_files.row import CANARY, accepted, refused

Payload = int | bytes
FLOATS = {"F16": Type.FLOAT16, "BF16": Type.BFLOAT16, "F32": Type.FLOAT, "F64": Type.DOUBLE}


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def message(*fields: tuple[int, Payload]) -> bytes:
    """Fields as they are: numbers as varints, bytes with their length."""
    encoded = b""
    for number, payload in fields:
        if isinstance(payload, bytes):
            encoded += varint(number << 3 | 2) + varint(len(payload)) + payload
        else:
            encoded += varint(number << 3) + varint(payload)
    return encoded


def tensor(*fields: tuple[int, Payload], without: tuple[int, ...] = ()) -> bytes:
    usual = [(1, 2), (2, Type.FLOAT), (8, b"w"), (9, bytes(8))]
    return message(*(field for field in usual if field[0] not in without), *fields)


def model(*tensors: bytes) -> bytes:
    return message((1, 8), (7, message(*((5, each) for each in tensors))))


def in_graph(*fields: tuple[int, Payload]) -> bytes:
    return message((1, 8), (7, message((5, TENSOR), *fields)))


def attribute(number: int, value: bytes) -> tuple[int, bytes]:
    """A node with one attribute."""
    return (1, message((5, message((1, b"value"), (number, value)))))


def nested(depth: int, innermost: bytes = b"") -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    inner = innermost
    for _ in range(depth):
        inner = message((1, message((5, message((1, b"body"), (6, inner))))))
    return message((1, 8), (7, inner))


def packed(count: int, dtype: int = Type.INT64, field: int = 7) -> bytes:
    """Numbers that take a byte each here and eight in memory."""
    return model(message((1, count), (2, dtype), (8, b"w"), (field, bytes(count))))


def elsewhere(location: str) -> bytes:
    where = message((1, b"location"), (2, location.encode()))
    return message((1, 2), (2, Type.FLOAT), (8, b"canary"), (13, where), (14, 1))


def float_tensor(array: Any, dtype: str) -> bytes:
    return model(message((1, array.size), (2, FLOATS[dtype]), (8, b"w"), (9, array.tobytes())))


TENSOR = tensor()
OUTSIDE = elsewhere(str(CANARY))

FILES = {
    "U17 an initializer in a file that is there": refused("external_data", model(TENSOR, OUTSIDE)),
    "U17 a file above": refused("external_data", model(elsewhere("../../../../../../etc/passwd"))),
    "U17 a file of the system's": refused("external_data", model(elsewhere("/proc/self/environ"))),
    "U17 a file that is an address": refused("external_data", model(elsewhere("http://169.254.169.254/"))),
    "U17 a place beside values": refused("external_data", model(tensor((13, message((1, b"location"), (2, b"x")))))),
    "U17 said to be outside": refused("external_data", model(tensor((14, 1)))),
    "U17 said to be outside, and inside": refused("external_data", model(tensor((14, 1), (14, 0)))),
    "U17 a constant": refused("external_data", in_graph(attribute(5, OUTSIDE))),
    "U17 one of a list of constants": refused("external_data", in_graph(attribute(10, OUTSIDE))),
    "U17 a sparse constant": refused("external_data", in_graph(attribute(22, message((1, OUTSIDE))))),
    "U17 the indices of a sparse constant": refused("external_data", in_graph(attribute(22, message((2, OUTSIDE))))),
    "U17 a branch of a loop's body": refused("external_data", nested(5, message((5, OUTSIDE)))),
    "U17 a function": refused("external_data", model(TENSOR) + message((25, message((7, attribute(5, OUTSIDE)[1]))))),
    "U17 the training's start": refused(
        "external_data", model(TENSOR) + message((20, message((1, message((5, OUTSIDE))))))
    ),
    "U6 a sparse initializer": refused("invalid_file", in_graph((15, message((1, TENSOR))))),
    "U6 a quantised type": refused("invalid_file", model(tensor((2, Type.INT4), without=(2,)))),
    "U6 texts": refused("invalid_file", model(message((1, 1), (2, Type.STRING), (8, b"w"), (6, b"a")))),
    "U6 complex numbers": refused("invalid_file", model(tensor((2, Type.COMPLEX64), without=(2,)))),
    "U6 a negative size": refused("invalid_file", model(tensor((1, 2**64 - 1), without=(1,)))),
    "U6 sizes that overflow": refused("invalid_file", model(tensor((1, 2**32), (1, 2**32)))),
    "U6 a terabyte that is not there": refused("invalid_file", model(tensor((1, 2**38), without=(1,)))),
    "U6 a thousand dimensions": refused("invalid_file", model(tensor(*[(1, 1)] * 1000))),
    "U6 too few values": refused("invalid_file", model(tensor((9, bytes(7)), without=(9,)))),
    "U6 too many values": refused("invalid_file", model(tensor((9, bytes(9)), without=(9,)))),
    "U6 a bool of two": refused("invalid_file", model(message((1, 1), (2, Type.BOOL), (8, b"w"), (5, b"\x02")))),
    "U6 values in two fields": refused("invalid_file", model(tensor((4, bytes(8))))),
    "U6 a segment": refused("invalid_file", model(tensor((3, message((1, 0), (2, 1)))))),
    "U15 one name for two": refused("invalid_file", model(TENSOR, TENSOR)),
    "U15 no name": refused("invalid_file", model(tensor(without=(8,)))),
    "U15 two names": refused("invalid_file", model(tensor((8, b"v")))),
    "U15 a name that is not UTF-8": refused("invalid_file", model(tensor((8, b"\xff"), without=(8,)))),
    "U15 a name of 10,000 letters": refused("too_large", model(tensor((8, b"n" * 10_000), without=(8,)))),
    "U19 a name with a line break": refused("invalid_file", model(tensor((8, b"a\r\nb"), without=(8,)))),
    "U18 no graph": refused("invalid_file", message((1, 8))),
    "U18 two graphs": refused("invalid_file", model(TENSOR) + message((7, b""))),
    "U18 a graph that is a number": refused("invalid_file", message((1, 8), (7, 1))),
    "U18 a length beyond the end": refused("invalid_file", model(TENSOR)[:-1]),
    "U18 a length of 64 bits": refused("invalid_file", message((1, 8)) + b"\x3a" + varint(2**64 - 1)),
    "U18 a length of eleven bytes": refused("invalid_file", message((1, 8)) + b"\x3a" + b"\xff" * 10 + b"\x01"),
    "U18 a group": refused("invalid_file", model(TENSOR) + b"\x0b\x0c"),
    "U18 field 0": refused("invalid_file", model(TENSOR) + b"\0\0"),
    "U11 graphs 101 deep": refused("too_large", nested(40)),
    "U11 graphs 20,000 deep": refused("too_large", lambda: nested(20_000)),
    "U11 a million fields": refused("too_large", lambda: model(TENSOR) + b"\x28\x01" * 1_000_001),
    "U11 just under a million fields": accepted(lambda: in_graph((1, b"\x30\x01" * 999_000))),
    "U11 a million nodes": refused(
        "too_large", lambda: message((1, 8), (7, message((5, TENSOR)) + b"\x0a\x00" * 1_000_000))
    ),
    "U11 40 MB of small numbers that are 320 MB": refused("too_large", lambda: packed(40_000_000)),
    "U11 40 MB of bytes in 32-bit numbers": refused("too_large", lambda: packed(40_000_000, Type.INT32, 5)),
    "U11 4 MB of small numbers that are 32 MB": accepted(lambda: packed(4_000_000)),
    "U11 50,000 initializers": accepted(
        lambda: model(*(tensor((8, b"w%d" % number), without=(8,)) for number in range(50_000)))
    ),
    "U8 the largest float64": accepted(lambda: float_tensor(np.array([1.7e308]), "F64")),
    "U20 a zip archive behind": refused("invalid_file", model(TENSOR) + b"PK\x05\x06" + bytes(18)),
    "U20 a zip archive as the model's description": refused(
        "invalid_file", model(TENSOR) + message((6, archive(("code/run.py", b"print()"))))
    ),
    "U20 a byte behind": refused("invalid_file", model(TENSOR) + b"\0"),
    "U20 text in front": refused("unsupported_container", b"#!/bin/sh\n" + model(TENSOR)),
}
