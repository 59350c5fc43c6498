"""What every format promises; a new one joins by a line in `WRITERS`."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from folkmoot.errors import InvalidFile, InvalidValue, SchemaMismatch, TooLarge, UnsupportedContainer
from folkmoot.tensors import FORMATS, Limits, Schema, TensorFile, open_tensors, recognise, write_tensors
from folkmoot.tensors.encodings import Encoding, encode
from folkmoot.tensors.schema import BFLOAT16

NEED_A_TEMPLATE = {"onnx"}
RANDOM = np.random.default_rng(0)
SAMPLE = {
    "layer2.weight": RANDOM.standard_normal((5, 7)).astype("f4"),
    "layer1.weight": RANDOM.standard_normal((300, 1000)).astype("f2"),
    "steps": np.array(2**62 + 1, "i8"),
    "mask": np.array([True, False, True]),
    "empty": np.zeros((0, 4), "f8"),
    "bytes": np.arange(7, dtype="u1"),
}
OTHER = {name: array + array.dtype.type(1) for name, array in SAMPLE.items()} | {"mask": np.array([False, True, True])}


def onnx_writer(*, raw):
    """A function that saves tensors as the initializers of an ONNX model, in `raw_data` or in typed fields."""

    def tensor(name, array):
        dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        values = array.tobytes() if raw else array.ravel().tolist()
        return onnx.helper.make_tensor(name, dtype, array.shape, values, raw=raw)

    def save(path, **tensors):
        graph = onnx.helper.make_graph([], "graph", [], [], [tensor(*item) for item in tensors.items()])
        onnx.save(onnx.helper.make_model(graph), path)

    return save


WRITERS = {
    "safetensors": lambda path, **tensors: path.write_bytes(safetensors.numpy.save(tensors, metadata={"format": "np"})),
    "npz, stored": np.savez,
    "npz, compressed": np.savez_compressed,
    "torch": lambda path, **tensors: torch.save({name: torch.from_numpy(tensors[name]) for name in tensors}, path),
    "onnx, raw": onnx_writer(raw=True),
    "onnx, typed": onnx_writer(raw=False),
}


@pytest.fixture(params=WRITERS)
def written(request, tmp_path):
    """A file of every format, under a name that says nothing about it."""
    path = tmp_path / "upload.npz"
    WRITERS[request.param](path, **SAMPLE)
    return path.rename(tmp_path / "upload")


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(actual[name], array)


def test_every_format_is_tested():
    assert {name.split(",")[0] for name in WRITERS} == set(FORMATS)


def test_tensors_are_read(written):
    assert_same(open_tensors(written), SAMPLE)


def test_tensors_are_read_only(written):
    tensors = open_tensors(written)

    assert not any(tensor.flags.writeable for tensor in tensors.values() if tensor.size)


def test_the_schema_is_known_without_reading_the_values(written):
    assert Schema.of(open_tensors(written)) == Schema.of(SAMPLE)


def test_a_file_becomes_the_same_canonical_file_whatever_its_format(written, tmp_path):
    expected = write_tensors(tmp_path / "expected", SAMPLE)

    assert write_tensors(tmp_path / "canonical", open_tensors(written)) == expected
    assert (tmp_path / "canonical").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_download_is_the_template_with_other_values(written, tmp_path):
    write_tensors(tmp_path / "checkpoint", OTHER)
    output = tmp_path / "output"

    result = recognise(written).write(written, TensorFile.open(tmp_path / "checkpoint"), output)

    assert recognise(output) is recognise(written)
    assert_same(open_tensors(output), OTHER)
    assert (result.sha256, result.num_bytes) == (
        hashlib.sha256(output.read_bytes()).hexdigest(),
        output.stat().st_size,
    )


def test_equal_tensors_give_equal_bytes(written, tmp_path):
    outputs = [tmp_path / "one", tmp_path / "two"]

    for output in outputs:
        recognise(written).write(written, OTHER, output)

    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_other_tensors_than_the_template_has_are_refused(written, tmp_path):
    misshapen = OTHER | {"bytes": np.zeros(8, "u1")}

    with pytest.raises(SchemaMismatch, match=r"bytes is \(8,\), expected \(7,\)"):
        recognise(written).write(written, misshapen, tmp_path / "output")

    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("limits", [Limits(max_bytes=1000), Limits(max_name_length=8)])
def test_a_file_over_a_limit_is_too_large(written, limits):
    with pytest.raises(TooLarge):
        open_tensors(written, limits=limits)


def test_a_file_with_something_before_or_behind_it_is_refused(written):
    content = written.read_bytes()

    for polyglot in (b"#!/bin/sh\n" + content, content + b"\0", content + content):
        written.write_bytes(polyglot)
        with pytest.raises(InvalidFile):
            open_tensors(written)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P",
        b"PK\x03\x04",
        b"\x80\x02}q\x00.",
        b"\x93NUMPY\x01\x00",
        b"ustar" * 200,
        b"\x1f\x8b\x08",
        b"PK\x05\x06",
    ],
)
def test_another_kind_of_file_is_not_taken(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(UnsupportedContainer, match="taken are safetensors, npz"):
        open_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("encoding", [Encoding("int8"), Encoding(zstd=3)])
def test_an_encoded_update_is_no_model(tmp_path, encoding):
    encode({"w": np.ones(8, "f4")}, encoding, tmp_path / "update")

    with pytest.raises(UnsupportedContainer, match="encoded update"):
        open_tensors(tmp_path / "update")


def test_the_template_keeps_its_metadata_and_order(tmp_path):
    template = tmp_path / "template"
    text = b'{"__metadata__":{"a":"b"}, "y":{"shape":[1],"dtype":"U8","data_offsets":[0,1]},'
    text += b'"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
    template.write_bytes(len(text).to_bytes(8, "little") + text + b"YX")

    FORMATS["safetensors"].write(template, {"x": np.array([1], "u1"), "y": np.array([2], "u1")}, tmp_path / "output")

    assert (tmp_path / "output").read_bytes() == template.read_bytes()[:-2] + b"\2\1"


@pytest.mark.parametrize("name", FORMATS)
def test_tensors_become_a_file_of_a_format_that_needs_no_template(name, tmp_path):
    if name in NEED_A_TEMPLATE:
        with pytest.raises(InvalidValue, match="template"):
            FORMATS[name].export(SAMPLE, tmp_path / "model")
        return

    written = FORMATS[name].export(SAMPLE, tmp_path / "model")
    again = FORMATS[name].export(SAMPLE, tmp_path / "again")

    found = recognise(tmp_path / "model")
    assert found is FORMATS[name]
    assert_same(open_tensors(tmp_path / "model"), SAMPLE)
    assert written == again
    assert written.sha256 == hashlib.sha256((tmp_path / "model").read_bytes()).hexdigest()
    assert written.num_bytes == (tmp_path / "model").stat().st_size


LIKE_PATHS = ["/fc/w", "../w", "a/../b", "a\\b"]
ODD_NAMES = [
    *LIKE_PATHS,
    *("a/..", "..", ".", "a//b", "a/", "C:w", "a.npy", "__class__", "onnx::Conv_1", "two words", " ", "größe", "重み"),
    *("w" * 512, "😀" * 512),
]


def odd_names(name):
    return [odd for odd in ODD_NAMES if name != "npz" or odd not in LIKE_PATHS]


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - NEED_A_TEMPLATE))
def test_what_is_exported_can_be_read_again_under_the_same_names(name, tmp_path):
    for odd in odd_names(name):
        tensors = {odd: np.ones(2, "f4"), "plain": np.zeros(1, "f4")}

        FORMATS[name].export(tensors, tmp_path / "model")

        assert recognise(tmp_path / "model") is FORMATS[name]
        assert_same(open_tensors(tmp_path / "model"), tensors)


@pytest.mark.parametrize("odd", LIKE_PATHS)
def test_names_that_would_be_refused_in_an_npz_are_not_written_to_one(odd, tmp_path):
    with pytest.raises(InvalidValue) as refusal:
        FORMATS["npz"].export({"plain": np.zeros(1, "f4"), odd: np.ones(2, "f4")}, tmp_path / "model")

    assert f"a tensor named {odd!r}" in refusal.value.message
    assert "safetensors and torch files can" in refusal.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_template_keeps_its_names(name, tmp_path):
    template = tmp_path / ("model.npz" if name.startswith("npz") else "model")
    tensors = dict.fromkeys(odd_names(name.split(",")[0]), np.ones(2, "f4"))
    WRITERS[name](template, **tensors)

    recognise(template).write(template, {odd: array + 1 for odd, array in tensors.items()}, tmp_path / "output")

    assert_same(open_tensors(tmp_path / "output"), {odd: array + 1 for odd, array in tensors.items()})


def test_numpy_reads_an_npz_that_was_made_without_a_template(tmp_path):
    values = np.array([[1, -2.5]])
    FORMATS["npz"].export({"a.b/c": values, "half": values.astype(BFLOAT16)}, tmp_path / "model.npz")

    loaded = np.load(tmp_path / "model.npz")

    assert_same(loaded, {"a.b/c": values, "half": values.astype("f4")})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_keeps_its_order_byte_orders_and_layouts(tmp_path, save):
    template, output = tmp_path / "template.npz", tmp_path / "output.npz"
    arrays = {"z": np.arange(6, dtype=">f8").reshape(2, 3), "a": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    save(template, **arrays)

    FORMATS["npz"].write(template, {name: array.astype("<f8") * 2 for name, array in arrays.items()}, output)

    with np.load(output) as loaded:
        assert loaded.files == ["z", "a"]
        assert loaded["z"].dtype == ">f8"
        assert loaded["a"].flags.f_contiguous
        np.testing.assert_array_equal(loaded["z"], arrays["z"] * 2)
        np.testing.assert_array_equal(loaded["a"], arrays["a"] * 2)
