"""Encoded updates: the documented bounds, for whatever finite numbers; and files that mean no good."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from folkmoot.errors import Conflict, FolkmootError, InvalidFile, InvalidValue, NonFinite, SchemaMismatch, TooLarge
from folkmoot.tensors import Limits, Schema, TensorFile, check_finite, write_tensors
from folkmoot.tensors.encodings import Base, Encoding, decode, encode, is_encoded
from folkmoot.tensors.encodings.frame import MAGIC
from folkmoot.tensors.encodings.layout import CHUNK_ELEMENTS
from folkmoot.tensors.schema import BFLOAT16, is_float

RANDOM = np.random.default_rng(0)
FLOATS = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
SAMPLE = {
    "layer.weight": RANDOM.standard_normal((30, 7)).astype("f4"),
    "layer.bias": RANDOM.standard_normal(5),
    "half": RANDOM.standard_normal((2, 3)).astype("f2"),
    "brain": RANDOM.standard_normal(9).astype(BFLOAT16),
    "scalar": np.array(0.25, "f4"),
    "empty": np.zeros((0, 4), "f4"),
    "steps": np.array(2**62 + 1, "i8"),
    "mask": np.array([True, False, True]),
}
BEFORE = {
    name: array * np.array(0.5, array.dtype) if is_float(array.dtype) else array for name, array in SAMPLE.items()
}
ENCODINGS = [
    {},
    {"zstd": 3},
    {"values": "float16"},
    {"values": "bfloat16", "zstd": 1},
    {"values": "int8"},
    {"values": "int8", "block": 8, "zstd": 19},
    {"difference": True, "zstd": 3},
    {"values": "float16", "difference": True},
    {"values": "bfloat16", "difference": True},
    {"values": "int8", "difference": True},
    {"top_k": 0.1},
    {"top_k": 1.0, "values": "bfloat16"},
    {"top_k": 0.3, "values": "int8", "block": 16, "zstd": 3},
]


def name_of(options: object) -> str | None:
    if not isinstance(options, dict):
        return None
    return "-".join(f"{key}={value}" for key, value in options.items()) if options else "nothing"


every_encoding = pytest.mark.parametrize("options", ENCODINGS, ids=name_of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoded")


def base_of(folder, tensors) -> Base:
    return Base(write_tensors(folder / "base", tensors).sha256, TensorFile.open(folder / "base"))


def sent(folder, tensors, options, base=None, **more):
    """The tensors as they come out at the other end."""
    encode(tensors, Encoding.of(options), folder / "encoded", base=base, **more)
    decode(folder / "encoded", folder / "decoded", expected=Schema.of(tensors), base=base)
    return TensorFile.open(folder / "decoded")


def received(folder, content: bytes, base=None, expected=SAMPLE, **limits):
    (folder / "encoded").write_bytes(content)
    decode(folder / "encoded", folder / "decoded", expected=Schema.of(expected), base=base, limits=Limits(**limits))
    return TensorFile.open(folder / "decoded")


def encoded(folder, options, tensors=SAMPLE, base=None) -> bytes:
    encode(tensors, Encoding.of(options), folder / "encoded", base=base)
    return (folder / "encoded").read_bytes()


# options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"values": "int4"}, "encoding.values is 'int4', expected one of exact, float16, bfloat16, int8"),
        ({"values": ["int8"]}, "encoding.values is"),
        ({"block": 7}, "encoding.block is 7, expected a whole number from 8 to 65536"),
        ({"block": True}, "encoding.block is True"),
        ({"block": 256.0}, "encoding.block is 256.0"),
        ({"top_k": 0}, "encoding.top_k is 0, expected a fraction over 0 and at most 1"),
        ({"top_k": 1.01}, "encoding.top_k is 1.01"),
        ({"top_k": float("nan")}, "encoding.top_k is nan"),
        ({"top_k": "0.1"}, "encoding.top_k is '0.1'"),
        ({"top_k": True}, "encoding.top_k is True"),
        ({"top_k": 0.1, "difference": False}, "encoding.top_k needs encoding.difference"),
        ({"difference": 1}, "encoding.difference is 1, expected true or false"),
        ({"zstd": 0}, "encoding.zstd is 0, expected a level from 1 to 19"),
        ({"zstd": 20}, "encoding.zstd is 20"),
        ({"zstd": True}, "encoding.zstd is True"),
        ({"gzip": 1}, "encoding has no gzip; it has values, block, top_k, difference, zstd"),
    ],
)
def test_options_out_of_range_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(InvalidValue) as caught:
        Encoding.of(options)

    assert sentence in caught.value.message


def test_top_k_is_of_the_difference():
    assert Encoding.of({"top_k": 0.1}) == Encoding(top_k=0.1, difference=True)


def test_only_what_is_rounded_or_left_out_of_a_difference_can_be_sent_later():
    assert [Encoding.of(options).leaves_unsent for options in ENCODINGS] == 7 * [False] + 6 * [True]


# what comes out


@every_encoding
def test_tensors_come_out_with_their_names_dtypes_and_shapes(folder, options):
    received = sent(folder, SAMPLE, options, base_of(folder, BEFORE))

    assert received.is_canonical
    assert received.schema == Schema.of(SAMPLE)
    for name in ("steps", "mask", "empty"):
        np.testing.assert_array_equal(received[name], SAMPLE[name])


@every_encoding
def test_the_same_update_gives_the_same_bytes(folder, options):
    base = base_of(folder, BEFORE)
    first = encode(SAMPLE, Encoding.of(options), folder / "first", base=base)
    again = {name: SAMPLE[name].copy(order="F") for name in reversed(SAMPLE)}

    second = encode(again, Encoding.of(options), folder / "second", base=base)

    assert first == second
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()
    assert is_encoded(folder / "first")


@pytest.mark.parametrize("options", [{}, {"zstd": 3}], ids=name_of)
def test_without_rounding_every_bit_comes_out(folder, options):
    odd = SAMPLE | {"odd": np.array([-0.0, 5e-324, 1.7e308]), "tiny": np.array([-0.0, 1e-45], "f4")}
    write_tensors(folder / "plain", odd)

    sent(folder, odd, options)

    assert (folder / "decoded").read_bytes() == (folder / "plain").read_bytes()


def test_a_plain_model_is_not_an_encoded_one(folder):
    write_tensors(folder / "plain", SAMPLE)

    assert not is_encoded(folder / "plain")


def numbers(dtype, **shape):
    """Arrays of any finite numbers of `dtype`; bfloat16 by way of float32, as hypothesis knows none."""
    if dtype == BFLOAT16:
        most = float(ml_dtypes.finfo(BFLOAT16).max)
        floats = hnp.arrays("f4", elements=st.floats(-most, most, width=32), **shape)
        return floats.map(lambda array: array.astype(BFLOAT16))
    limits = {"allow_nan": False, "allow_infinity": False, "width": 8 * dtype.itemsize}
    return hnp.arrays(dtype, elements=st.floats(**limits), **shape)


SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=40)
PAIRS = st.tuples(st.sampled_from(FLOATS), SHAPES).flatmap(
    lambda pair: st.tuples(numbers(pair[0], shape=pair[1]), numbers(pair[0], shape=pair[1]))
)
UNITS = {"float16": (2**-11, 2**-25), "bfloat16": (2**-8, 2**-134)}


def rounding(dtype):
    """Half a unit in the last place: relative to a normal number, and of the smallest ones."""
    facts = ml_dtypes.finfo(dtype)
    return float(facts.eps) / 2, float(facts.smallest_subnormal) / 2


def documented_bound(options, intended, dtype):
    """The largest error of each number, from the table in docs/encodings.md."""
    values = options.get("values", "exact")
    if values == "int8":
        flat = np.abs(intended).reshape(-1)
        size = options.get("block", 256)
        blocks = [flat[start : start + size] for start in range(0, flat.size, size)]
        bounds = [np.full(block.size, max(block.max() / 254 * (1 + 2**-23), 2**-127)) for block in blocks]
        return np.concatenate([*bounds, np.zeros(0)]).reshape(intended.shape)
    narrower = values in UNITS and dtype.itemsize > 2
    relative, absolute = UNITS[values] if narrower else rounding(dtype)
    if values == "float16" and narrower and np.abs(intended).max(initial=0) > 65504:
        return np.zeros(intended.shape)
    return np.maximum(relative * np.abs(intended), absolute)


@settings(deadline=None)
@given(PAIRS, st.sampled_from(["float16", "bfloat16", "int8"]), st.sampled_from([8, 256]))
def test_rounded_values_are_within_the_documented_bound(folder, pair, values, block):
    (tensor, _), options = pair, {"values": values, "block": block}

    out = sent(folder, {"a": tensor}, options)["a"]

    exactly, came = tensor.astype("f8"), out.astype("f8")
    relative, absolute = rounding(tensor.dtype)
    bound = documented_bound(options, exactly, tensor.dtype) + relative * np.abs(came) + absolute
    assert (np.abs(came - exactly) <= bound).all()


@settings(deadline=None)
@given(PAIRS, st.sampled_from(["exact", "float16", "bfloat16", "int8"]), st.sampled_from([8, 256]))
def test_differences_are_within_the_documented_bound(folder, pair, values, block):
    (tensor, before), options = pair, {"values": values, "block": block, "difference": True}

    with np.errstate(over="ignore"):
        intended = tensor.astype("f8") - before.astype("f8")
    out = sent(folder, {"a": tensor}, options, base_of(folder, {"a": before}))["a"]

    exactly, came = tensor.astype("f8"), out.astype("f8")
    if not np.isfinite(intended).all():
        np.testing.assert_array_equal(came, exactly)
        return
    relative, absolute = rounding(tensor.dtype)
    bound = documented_bound(options, intended, tensor.dtype) + relative * np.abs(came) + absolute
    with np.errstate(over="ignore"):
        bound += 2**-52 * (np.abs(intended) + np.abs(came))  # of float64, in which all this is computed
        assert (np.abs(came - exactly) <= bound).all()


@settings(deadline=None)
@given(
    PAIRS,
    st.sampled_from([options for options in ENCODINGS if Encoding.of(options).leaves_unsent]),
    st.integers(0, 2**32),
)
def test_what_is_sent_and_what_is_left_are_together_what_was_intended(folder, pair, options, seed):
    tensor, before = (np.clip(array.astype("f8"), -1e4, 1e4).astype(array.dtype) for array in pair)
    unsent = np.random.default_rng(seed).standard_normal(tensor.shape).astype(tensor.dtype)

    with np.errstate(over="ignore"):
        base = base_of(folder, {"a": before})
        out = sent(folder, {"a": tensor}, options, base, unsent={"a": unsent}, left=folder / "left")["a"]
    left = TensorFile.open(folder / "left")["a"]

    arrived = out.astype("f8") - before.astype("f8")
    intended = tensor.astype("f8") - before.astype("f8") + unsent.astype("f8")
    relative, absolute = rounding(tensor.dtype)
    slack = relative * np.abs(left.astype("f8")) + absolute + 2**-51 * (np.abs(intended) + 1e4)
    assert (np.abs(arrived + left.astype("f8") - intended) <= slack).all()


@pytest.mark.parametrize("size", [1, 10, CHUNK_ELEMENTS - 1, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1, 3 * CHUNK_ELEMENTS])
@pytest.mark.parametrize("top_k", [0.00001, 0.1, 1])
def test_top_k_sends_the_largest_of_each_chunk_and_no_other(folder, size, top_k):
    difference = np.random.default_rng(size).permutation(size).astype("f8") + 1
    base = base_of(folder, {"a": np.zeros(size)})

    out = sent(folder, {"a": difference}, {"top_k": top_k}, base)["a"]

    for start in range(0, size, CHUNK_ELEMENTS):
        chunk, came = difference[start : start + CHUNK_ELEMENTS], out[start : start + CHUNK_ELEMENTS]
        count = int(np.ceil(top_k * chunk.size))
        least = sorted(chunk, reverse=True)[count - 1]
        np.testing.assert_array_equal(came, np.where(chunk >= least, chunk, 0))


def test_of_equal_differences_the_first_are_sent(folder):
    base = base_of(folder, {"a": np.zeros(6)})

    out = sent(folder, {"a": np.array([1.0, -2, 2, -2, 2, 1])}, {"top_k": 0.5}, base)["a"]

    assert out.tolist() == [0, -2, 2, -2, 0, 0]


@every_encoding
def test_a_tensor_of_many_chunks_comes_out_in_its_place(folder, options):
    before = np.random.default_rng(1).standard_normal((3, 70_001)).astype("f4")
    tensors = {"a": (before + 0.01).T, "b": before[:, ::2] * 2}
    base = base_of(folder, {"a": before.T, "b": before[:, ::2]})

    out = sent(folder, tensors, {**options, "top_k": 1} if "top_k" in options else options, base)

    for name, tensor in tensors.items():
        np.testing.assert_allclose(out[name], tensor, atol=0.04)


@pytest.mark.parametrize("value", [70_000.0, 1e30])
def test_a_tensor_beyond_half_precision_travels_as_it_is(folder, value):
    tensors = {"variance": np.array([value, 1 / 3], "f4"), "mean": np.array([1 / 3], "f4")}

    out = sent(folder, tensors, {"values": "float16"})

    np.testing.assert_array_equal(out["variance"], tensors["variance"])
    assert out["mean"] != tensors["mean"]


def test_what_was_left_of_a_tensor_that_travels_as_it_is_stays_left(folder):
    base, unsent = base_of(folder, {"a": np.zeros(2, "f4")}), {"a": np.array([1, -1], "f4")}

    sent(
        folder,
        {"a": np.array([1e6, 0], "f4")},
        {"values": "float16", "top_k": 1},
        base,
        unsent=unsent,
        left=folder / "l",
    )

    np.testing.assert_array_equal(TensorFile.open(folder / "l")["a"], unsent["a"])


def test_changes_too_small_for_the_models_dtype_are_left_and_not_lost(folder):
    base = base_of(folder, {"a": np.array([1.0], BFLOAT16)})
    unsent = {"a": np.array([0.003], BFLOAT16)}  # half a unit in the last place of 1 is 0.0039

    out = sent(folder, {"a": np.array([1.0], BFLOAT16)}, {"top_k": 1}, base, unsent=unsent, left=folder / "left")

    assert out["a"] == 1
    assert TensorFile.open(folder / "left")["a"] == unsent["a"]


def test_a_sum_that_is_too_large_becomes_the_largest_number(folder):
    most = np.finfo("f4").max
    base = base_of(folder, {"a": np.array([0.9875, 0.95], "f4") * most})

    # 0.0125 becomes two steps of 0.9 / 127, which is more than there is room for
    out = sent(folder, {"a": np.array([1, 0.05], "f4") * most}, {"values": "int8", "difference": True}, base)

    assert out["a"][0] == most
    assert out["a"][1] == pytest.approx(0.05 * most)


@pytest.mark.parametrize("number", [1e-45, 2.5e-43, 2e-38])
def test_the_smallest_numbers_keep_their_sign(folder, number):
    numbers = np.array([number, -number, number / 2], "f4")

    out = sent(folder, {"a": numbers}, {"values": "int8"})

    assert (out["a"] * np.sign(numbers) >= 0).all()


@every_encoding
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_what_is_not_finite_is_never_hidden(folder, options, value, dtype):
    tensors = {"a": np.zeros(3, dtype), "layer.bias": np.array([0, value], dtype)}
    base = base_of(folder, {"a": np.zeros(3, dtype), "layer.bias": np.zeros(2, dtype)})

    with pytest.raises(NonFinite, match=f"layer.bias holds {value}"):
        sent(folder, tensors, options, base)


@every_encoding
def test_what_is_not_finite_is_found_in_any_chunk(folder, options):
    tensors = {"a": np.ones(CHUNK_ELEMENTS + 2, "f4")}
    base = base_of(folder, tensors)
    tensors["a"][-1] = np.nan

    with pytest.raises(NonFinite, match="a holds nan"):
        sent(folder, tensors, options, base)


def test_an_update_of_some_tensors_is_sent_as_any_other(folder):
    some = {name: SAMPLE[name] for name in ("layer.bias", "steps")}

    out = sent(folder, some, {"values": "int8", "difference": True}, base_of(folder, BEFORE))

    np.testing.assert_allclose(out["layer.bias"], some["layer.bias"], atol=0.02)


def test_differences_need_a_model_of_the_same_shapes(folder):
    with pytest.raises(SchemaMismatch, match=r"layer\.bias"):
        encoded(folder, {"top_k": 0.1}, base=base_of(folder, BEFORE | {"layer.bias": np.zeros(6)}))
    with pytest.raises(InvalidValue, match="needs the model"):
        encoded(folder, {"top_k": 0.1})


# sizes


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"values": "float16"}, 0.5),
        ({"values": "bfloat16"}, 0.5),
        ({"values": "int8"}, 0.254),
        ({"values": "int8", "difference": True}, 0.254),
        ({"top_k": 0.1}, 0.15),
        ({"top_k": 0.1, "values": "float16"}, 0.1),
        ({"top_k": 0.01, "values": "int8"}, 0.0077),
    ],
    ids=name_of,
)
def test_files_are_as_small_as_documented(folder, options, share):
    tensors = {"a": np.random.default_rng(0).standard_normal((1000, 1000)).astype("f4")}

    content = encoded(folder, options, tensors, base_of(folder, {"a": np.zeros((1000, 1000), "f4")}))

    assert len(content) <= share * 4_000_000 + 500


def test_what_has_not_changed_takes_no_room(folder):
    frozen = {"a": np.random.default_rng(0).standard_normal((1000, 1000)).astype("f4")}

    assert len(encoded(folder, {"difference": True, "zstd": 3}, frozen, base_of(folder, frozen))) < 1_000


# files that mean no good


@every_encoding
def test_differences_to_another_model_are_refused(folder, options):
    content = encoded(folder, options, base=base_of(folder, BEFORE))
    if not Encoding.of(options).difference:
        received(folder, content, base_of(folder, SAMPLE))
        return

    for other in (base_of(folder, SAMPLE), None):
        with pytest.raises(Conflict, match=r"differences to the model .* not the one that this round began with"):
            received(folder, content, other)


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        (SAMPLE | {"scalar": np.zeros(1, "f4")}, r"scalar is \(\), expected \(1,\)"),
        (SAMPLE | {"scalar": np.zeros((), "f8")}, "scalar is F32, expected F64"),
        (SAMPLE | {"more": np.zeros(1, "f4")}, "more is missing"),
        ({"scalar": SAMPLE["scalar"]}, "brain is not in the model"),
        (SAMPLE | {"steps": np.zeros((), "i4")}, "steps is I64, expected I32"),
    ],
)
@pytest.mark.parametrize("options", [{"values": "int8"}, {"top_k": 0.1}], ids=name_of)
def test_an_update_that_does_not_fit_is_refused_with_the_difference(folder, options, expected, sentence):
    base = base_of(folder, BEFORE)

    with pytest.raises(SchemaMismatch, match=sentence):
        received(folder, encoded(folder, options, base=base), base, expected=expected)


def taken_apart(content: bytes):
    size = int.from_bytes(content[:8], "little")
    entries, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = entries.pop("__metadata__")
    parts = {}
    for name, entry in entries.items():
        start, stop = entry["data_offsets"]
        parts[name] = [entry["dtype"], entry["shape"], data[start:stop]]
    return metadata, parts


def put_together(metadata, parts) -> bytes:
    entries, data = {"__metadata__": metadata}, b""
    for name, (dtype, shape, part) in parts.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(entries, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def lies(metadata, parts):
    """Ways to change an update with top-k and int8 for the worse, each with a word of the answer."""

    def part(name, dtype=None, shape=None, data=None):
        old = parts[name]
        new = [dtype or old[0], old[1] if shape is None else shape, old[2] if data is None else data]
        return metadata, parts | {name: new}

    def without(name):
        return metadata, {key: value for key, value in parts.items() if key != name}

    def says(**facts):
        merged = metadata | {key.replace("__", "/"): value for key, value in facts.items()}
        return {key: value for key, value in merged.items() if value is not None}, parts

    indices = np.frombuffer(parts["indices/a"][2], "u2")
    floats = "values/a"
    return {
        "no values": (without("values/a"), "no part values/a"),
        "no scales": (without("scales/a"), "no part scales/a"),
        "no indices": (without("indices/a"), "no part indices/a"),
        "no integers": (without("exact/steps"), "steps is missing"),
        "a part for nothing": ((metadata, parts | {"scales/b": parts["scales/a"]}), "belongs to nothing"),
        "a part of no kind": ((metadata, parts | {"x/a": parts["scales/a"]}), "belongs to nothing"),
        "a part without a kind": ((metadata, parts | {"a": parts["scales/a"]}), "belongs to nothing"),
        "a tensor twice": ((metadata, parts | {"exact/a": ["F32", [100], bytes(400)]}), "twice"),
        "fewer values": (part(floats, shape=[9], data=parts[floats][2][:9]), r"I8 \(9,\), expected I8 \(10,\)"),
        "more values": (part(floats, shape=[11], data=parts[floats][2] + b"x"), r"I8 \(11,\), expected"),
        "values of another shape": (part(floats, shape=[2, 5]), r"\(2, 5\), expected"),
        "values of another dtype": (part(floats, dtype="U8"), r"U8 \(10,\), expected I8"),
        "wide scales": (part("scales/a", dtype="F16", shape=[4]), "expected F32"),
        "signed indices": (part("indices/a", dtype="I16"), "expected U16"),
        "an index beyond the end": (part("indices/a", data=np.array([*indices[:-1], 100], "u2").tobytes()), "beyond"),
        "an index at the far end": (part("indices/a", data=np.array([*indices[:-1], 65535], "u2").tobytes()), "beyond"),
        "indices that fall": (part("indices/a", data=indices[::-1].tobytes()), "do not grow"),
        "an index twice": (part("indices/a", data=np.array([0, 0, *range(2, 10)], "u2").tobytes()), "do not grow"),
        "a scale of NaN": (part("scales/a", data=np.array([1, np.nan], "f4").tobytes()), "scale"),
        "an infinite scale": (part("scales/a", data=np.array([1, np.inf], "f4").tobytes()), "scale"),
        "a negative scale": (part("scales/a", data=np.array([1, -1], "f4").tobytes()), "scale"),
        "a newer version": (says(**{"folkmoot.encoding": "2"}), "version '2'; taken is 1"),
        "unknown values": (says(values="int4"), "none that can be read"),
        "no values said": (says(values=None), "none that can be read"),
        "no block": (says(block=None), "none that can be read"),
        "a block of nothing": (says(block="0"), "none that can be read"),
        "a block of very many digits": (says(block="9" * 5000), "none that can be read"),
        "a block in other letters": (says(block="٨"), "means nothing"),
        "a block with a space": (says(block=" 8"), "means nothing"),
        "a larger block": (says(block="16"), "expected F32"),
        "top-k of NaN": (says(top_k="nan"), "none that can be read"),
        "top-k of everything": (says(top_k="1.0"), r"expected U16 \(100,\)"),
        "top-k of more": (says(top_k="1e300"), "none that can be read"),
        "top-k in other words": (says(top_k="0.10"), "means nothing"),
        "no top-k": (says(top_k=None), "belongs to nothing"),
        "no base": (says(base=None), "none that can be read"),
        "a base that is no digest": (says(base="00"), "SHA-256"),
        "something unknown": (says(more="x"), "means nothing"),
        "a tensor without a shape": (says(tensor__a=""), "no dtype and shape"),
        "a tensor of text": (says(tensor__a="F32 x"), "no dtype and shape"),
        "a tensor of a negative size": (says(tensor__a="F32 -1"), "no dtype and shape"),
        "a tensor of a huge size": (says(tensor__a="F32 " + " ".join(["9999999999"] * 3)), "impossible shape"),
        "a tensor of very many dimensions": (says(tensor__a="F32" + " 1" * 1000), "impossible shape"),
        "a tensor of another size": (says(tensor__a="F32 99999999"), "expected"),
        "a tensor of an unknown dtype": (says(tensor__a="F8 100"), "dtype F8"),
        "encoded integers": (says(tensor__a="I64 100"), "not to be encoded"),
        "a tensor more": (says(tensor__b="F32 100"), "no part"),
        "a tensor with a bad name": (says(**{"tensor/a\n": "F32 100"}), "cannot be the name"),
    }


SMALL = {"a": np.linspace(-1, 1, 100).astype("f4"), "steps": np.array(3)}
SMALL_BEFORE = SMALL | {"a": np.zeros(100, "f4")}
SMALL_OPTIONS = {"top_k": 0.1, "values": "int8", "block": 8}


@pytest.fixture(scope="module")
def small(folder):
    base = base_of(folder, SMALL_BEFORE)
    return encoded(folder, SMALL_OPTIONS, SMALL, base), base


def test_a_file_taken_apart_and_put_together_is_still_read(folder, small):
    content, base = small

    assert received(folder, put_together(*taken_apart(content)), base, SMALL)["steps"] == 3


LIES = {
    "metadata": {"folkmoot.encoding": "1"},
    "parts": {
        "indices/a": ["U16", [10], bytes(20)],
        "values/a": ["I8", [10], bytes(10)],
        "scales/a": ["F32", [2], bytes(8)],
    },
}


@pytest.mark.parametrize("lie", lies(LIES["metadata"], LIES["parts"]))
def test_a_file_that_lies_is_refused_in_a_sentence(folder, small, lie):
    content, base = small
    told, sentence = lies(*taken_apart(content))[lie]

    with pytest.raises((InvalidFile, SchemaMismatch), match=sentence):
        received(folder, put_together(*told), base, SMALL)


@pytest.mark.filterwarnings("error::RuntimeWarning")  # of NumPy; not of what other tests have left unclosed
@pytest.mark.parametrize(("bits", "shown"), [(0x7C00, "inf"), (0xFC00, "-inf"), (0x7E00, "nan"), (0x7C01, "nan")])
def test_half_precision_that_is_not_finite_is_refused(folder, bits, shown):
    metadata, parts = taken_apart(encoded(folder, {"values": "float16"}, SMALL))
    parts["values/a"][2] = np.array([*[0] * 99, bits], "u2").tobytes()

    with pytest.raises(NonFinite, match=f"^a holds {shown}$"):
        received(folder, put_together(metadata, parts), expected=SMALL)


@pytest.mark.parametrize("zstd", [{}, {"zstd": 3}], ids=name_of)
@pytest.mark.parametrize("options", [{}, {"values": "float16"}, SMALL_OPTIONS], ids=name_of)
def test_a_truncated_file_is_refused_wherever_it_ends(folder, options, zstd):
    base = base_of(folder, SMALL_BEFORE)
    content = encoded(folder, options | zstd, SMALL, base)

    for size in range(len(content)):
        with pytest.raises((InvalidFile, SchemaMismatch)):
            received(folder, content[:size], base, SMALL)


@pytest.mark.parametrize("zstd", [{}, {"zstd": 3}], ids=name_of)
def test_a_file_with_one_other_byte_is_refused_or_read(folder, zstd):
    base = base_of(folder, SMALL_BEFORE)
    content = encoded(folder, SMALL_OPTIONS | zstd, SMALL, base)
    unchanged = received(folder, content, base, SMALL).path.read_bytes()

    for place in range(len(content)):
        for byte in {0, content[place] ^ 1, content[place] ^ 0x80, ord("9"), ord('"'), 0xFF} - {content[place]}:
            try:
                tensors = received(folder, content[:place] + bytes([byte]) + content[place + 1 :], base, SMALL)
            except FolkmootError:
                continue
            # a frame has bits that mean nothing, and a checksum
            assert not zstd or (folder / "decoded").read_bytes() == unchanged
            assert tensors.schema == Schema.of(SMALL)
            check_finite(tensors)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([b"", MAGIC]))
def test_noise_is_refused(folder, noise, magic):
    with pytest.raises((InvalidFile, SchemaMismatch)):
        received(folder, magic + noise, expected=SMALL)


# compression


def frames(*contents: bytes, **parameters) -> bytes:
    return b"".join(zstandard.ZstdCompressor(**parameters).compress(content) for content in contents)


def test_anything_behind_the_frame_is_refused(folder, small):
    content, base = small
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"1234"

    for behind in (b"x", bytes(5000), frames(b""), frames(b"x"), skippable):
        with pytest.raises(InvalidFile, match="follows the frame"):
            received(folder, frames(content) + behind, base, SMALL)


def test_a_file_compressed_twice_is_refused(folder, small):
    content, base = small

    with pytest.raises(InvalidFile):
        received(folder, frames(frames(content)), base, SMALL)


def test_a_frame_that_does_not_say_its_size_is_read(folder, small):
    content, base = small
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()

    assert received(folder, stream.compress(content) + stream.flush(), base, SMALL)["steps"] == 3


def test_a_frame_that_wants_a_large_window_is_refused(folder):
    window = zstandard.ZstdCompressionParameters(window_log=24, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=window).compressobj()
    content = stream.compress(RANDOM.bytes(1 << 25)) + stream.flush()

    with pytest.raises(InvalidFile, match="a window of more than 8 MiB"):
        received(folder, content)


def bombs():
    zeros = zstandard.ZstdCompressor(level=19).compressobj()
    yield b"".join(zeros.compress(bytes(1 << 24)) for _ in range(64)) + zeros.flush()
    yield frames(bytes(1 << 28))
    head = put_together({"folkmoot.encoding": "1"}, {"exact/a": ["U8", [1 << 28], bytes(1 << 28)]})
    yield frames(head)


def test_a_bomb_is_refused_before_it_has_expanded(tmp_path):
    for content in bombs():
        assert len(content) < 100_000
        (tmp_path / "bomb").write_bytes(content)
        limits = Limits(max_header_bytes=1 << 20)
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="more than the model needs"):
                decode(tmp_path / "bomb", tmp_path / "never", expected=Schema.of(SMALL), limits=limits)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 80_000_000
        assert list(tmp_path.iterdir()) == [tmp_path / "bomb"]


def test_files_over_the_limits_are_too_large(folder, small):
    content, base = small

    for limits in ({"max_bytes": 300}, {"max_header_bytes": 100}):
        with pytest.raises(TooLarge):
            received(folder, content, base, SMALL, **limits)
    with pytest.raises(TooLarge):
        received(folder, frames(content), base, SMALL, max_bytes=300)


@pytest.mark.parametrize(
    "options", [{"values": "float16"}, {"values": "int8", "difference": True, "zstd": 3}, {"top_k": 0.1}], ids=name_of
)
def test_memory_is_some_chunks_and_not_the_model(folder, options):
    model = {"a": np.random.default_rng(0).standard_normal((2000, 5000)).astype("f4")}  # 40 MB
    base = base_of(folder, {"a": model["a"] * 0.9})

    tracemalloc.start()
    try:
        sent(folder, model, options, base)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


# documentation


def test_every_encoding_in_the_documentation_is_one():
    page = (Path(__file__).parents[2] / "docs" / "encodings.md").read_text()
    shown = [json.loads(text) for text in re.findall(r"`(\{[^`]*\})`", page)]

    assert len(shown) > 10
    for options in shown:
        Encoding.of(options)
