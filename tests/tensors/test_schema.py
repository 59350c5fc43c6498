from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from folkmoot.errors import InvalidFile, SchemaMismatch
from folkmoot.tensors import Schema, TensorSpec, check_fits
from folkmoot.tensors.schema import DTYPES

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8).filter(
    lambda n: n != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


def schema(**tensors: tuple[str, tuple[int, ...]]) -> Schema:
    return Schema(TensorSpec(name, dtype, shape) for name, (dtype, shape) in tensors.items())


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(DTYPES)), SHAPES), max_size=8))
def test_the_header_is_the_one_that_the_reference_implementation_writes(parts):
    tensors = {name: np.zeros(shape, DTYPES[dtype]) for name, (dtype, shape) in parts.items()}

    header = Schema.of(tensors).header()

    assert save(tensors) == header + bytes(Schema.of(tensors).num_bytes)


def test_every_tensor_is_aligned_to_its_element_size():
    everything = schema(**{f"t{dtype}": (dtype, (3,)) for dtype in DTYPES})

    assert len(everything.header()) % 8 == 0
    assert all(start % spec.numpy_dtype.itemsize == 0 for spec, start, _ in everything.spans())


def test_the_order_does_not_depend_on_the_order_of_the_tensors():
    one = schema(a=("F32", (2,)), b=("F64", ()), c=("F32", (0, 3)))
    other = schema(c=("F32", (0, 3)), b=("F64", ()), a=("F32", (2,)))

    assert one == other
    assert hash(one) == hash(other)
    assert [spec.name for spec in one] == ["b", "a", "c"]
    assert (one.num_elements, one.num_bytes) == (3, 16)


def test_big_endian_arrays_have_the_same_schema():
    assert Schema.of({"a": np.zeros(2, ">f4")}) == Schema.of({"a": np.zeros(2, "<f4")})


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", "V2"])
def test_a_dtype_that_is_not_taken_is_named_with_its_tensor(dtype):
    array = np.zeros(2, dtype)

    with pytest.raises(InvalidFile, match=re.escape(f"layer.weight has the dtype {array.dtype.name}:")):
        Schema.of({"layer.weight": array})


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64", "f32", ""])
def test_an_unknown_dtype_of_safetensors_is_named(dtype):
    with pytest.raises(InvalidFile, match=f"layer.weight has the dtype {dtype}:"):
        TensorSpec("layer.weight", dtype, (2,))


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "a\x7fb", "\x85", "\ud800", "__metadata__"])
def test_a_name_that_cannot_be_shown_or_written_is_refused(name):
    with pytest.raises(InvalidFile, match="cannot be the name of a tensor"):
        TensorSpec(name, "F32", ())


@pytest.mark.parametrize("shape", [(-1,), (2**62,), (0, 2**63), (2**40, 2**40), (1,) * 33])
def test_an_impossible_shape_is_refused(shape):
    with pytest.raises(InvalidFile, match="w has an impossible shape"):
        TensorSpec("w", "F32", shape)


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(InvalidFile, match="same name"):
        Schema([TensorSpec("a", "F32", ()), TensorSpec("a", "F64", ())])


MODEL = schema(weight=("F32", (10, 4)), bias=("F32", (10,)))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (schema(weight=("F32", (10, 4)), bias=("F32", (11,))), r"bias is \(11,\), expected \(10,\)"),
        (schema(weight=("F32", (10, 4)), bias=("F32", (1, 10))), r"bias is \(1, 10\), expected \(10,\)"),
        (schema(weight=("F32", (10, 4)), bias=("F64", (10,))), "bias is F64, expected F32"),
        (schema(weight=("F32", (10, 4))), "bias is missing"),
        (schema(weight=("F32", (10, 4)), bias=("F32", (10,)), more=("F32", ())), "more is not in the model"),
        (schema(), "bias is missing; weight is missing"),
    ],
)
def test_a_difference_is_said_with_the_name_of_the_tensor(update, message):
    with pytest.raises(SchemaMismatch, match=f"^update does not fit the model: {message}$"):
        check_fits(MODEL, update)


def test_the_same_schema_fits():
    check_fits(MODEL, schema(bias=("F32", (10,)), weight=("F32", (10, 4))))


def test_many_differences_are_counted():
    with pytest.raises(SchemaMismatch, match=r"t05 is missing; and 94 more$"):
        check_fits(schema(**{f"t{number:02}": ("F32", ()) for number in range(100)}), schema(t00=("F32", ())))
