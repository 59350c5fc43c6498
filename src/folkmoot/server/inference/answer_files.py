"""Answers in bytes: as safetensors, and as the pickle that the seed's clients open.

The pickle is written here without torch: dictionaries, texts, and tensors spelled as `pickle.dumps` of torch 2.13
spells them, a storage within each as torch saved it before it had zip archives.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.server.inference.answers import Answer
from folkmoot.tensors.schema import Schema

Array = npt.NDArray[Any]

_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
_MAGIC_NUMBER = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL = b"\x80\x02M\xe9\x03."


def as_safetensors(answer: Answer) -> bytes:
    """`inference`, each measure under its name, and `prediction_set` if there is one."""
    tensors = {"inference": answer.inference, **answer.uncertainty, **_sets(answer)}
    schema = Schema.of(tensors)
    return schema.header() + b"".join(_bytes(tensors[spec.name]) for spec in schema)


def as_pickle(answer: Answer) -> bytes:
    """`{"inference": tensor, "uncertainty": {name: tensor}}`, and `prediction_set`, a tensor, if there is one.

    Opening it calls what torch's own tensors call.
    """
    uncertainty = _dictionary({name: _tensor(each) for name, each in answer.uncertainty.items()})
    sets = {name: _tensor(each) for name, each in _sets(answer).items()}
    whole = _dictionary({"inference": _tensor(answer.inference), "uncertainty": uncertainty, **sets})
    return b"\x80\x03" + whole + b"."


def _sets(answer: Answer) -> dict[str, Array]:
    """Of classes as 0 and 1: sets are of different sizes, and rows of a tensor are not."""
    if answer.prediction_set is None:
        return {}
    is_mask = answer.prediction_set.dtype == np.bool_
    return {"prediction_set": answer.prediction_set.astype(np.int64) if is_mask else answer.prediction_set}


def _dictionary(entries: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(_text(name) + value for name, value in entries.items()) + b"u"


def _tensor(array: Array) -> bytes:
    """A call of torch's function for it: storage, offset, size, stride, requires_grad, hooks."""
    strides = [stride // array.itemsize for stride in np.asarray(array, order="C").strides]
    place = _integer(0) + _integers(array.shape) + _integers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(array) + place + b"\x89" + _ORDERED_DICT + b"tR"


def _storage(array: Array) -> bytes:
    saved = _saved_storage(array)
    return b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<L", len(saved)) + saved + b"tR"


def _saved_storage(array: Array) -> bytes:
    """Four pickles: a magic number, a version, what the machine is like, the storage; then key, length, bytes."""
    machine = b"\x80\x02" + _dictionary({"protocol_version": b"M\xe9\x03", "little_endian": b"\x88"}) + b"."
    kind = f"ctorch\n{_STORAGES[array.dtype.name]}\n".encode()
    described = b"(" + _text("storage") + kind + _text("0") + _text("cpu") + _integer(array.size) + b"NtQ"
    keys = b"\x80\x02](" + _text("0") + b"e."
    count = struct.pack("<q", array.size)
    return b"".join((_MAGIC_NUMBER, _PROTOCOL, machine, b"\x80\x02", described, b".", keys, count, _bytes(array)))


def _bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<L", len(raw)) + raw


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<l", value)


def _integers(values: Any) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
