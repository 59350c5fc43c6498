from __future__ import annotations

import gc
import hashlib
import json
import os
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from folkmoot.errors import Internal, InvalidFile, InvalidInput, NonFinite, TooLarge
from folkmoot.tensors import Limits, Schema, TensorFile, TensorFileWriter, TensorSpec, check_finite, write_tensors
from folkmoot.tensors.array_blocks import BLOCK_ELEMENTS
from folkmoot.tensors.schema import BFLOAT16, DTYPES

SAMPLE = {
    "layer.weight": np.arange(6, dtype="f4").reshape(2, 3),
    "layer.bias": np.array([0.5, -0.0], "f8"),
    "steps": np.array(7, "i8"),
    "mask": np.array([True, False, True]),
    "empty": np.zeros((0, 4), "f2"),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model"


def opened(path, content: bytes, **limits: int) -> TensorFile:
    path.write_bytes(content)
    return TensorFile.open(path, limits=Limits(**limits))


def file_with(entries: object, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[object], start: object, stop: object, dtype: object = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].shape == array.shape


# writing

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
BFLOAT16S = hnp.arrays("u2", SHAPES).map(lambda array: array.view(BFLOAT16))
ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: BFLOAT16S if name == "BF16" else hnp.arrays(DTYPES[name], SHAPES)
)


@given(st.dictionaries(st.text("abcä.", max_size=4), ARRAYS, max_size=5))
def test_files_are_byte_for_byte_those_of_the_reference_implementation(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("files") / "model"

    written = write_tensors(path, tensors)

    assert path.read_bytes() == save(tensors)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert written.num_bytes == path.stat().st_size
    assert TensorFile.open(path).is_canonical


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.arange(24, dtype=">i8"),
        np.arange(24.0).reshape(2, 3, 4).T,
        np.arange(24.0).reshape(4, 6)[::-1, ::2],
        np.asfortranarray(np.arange(6, dtype=">f2").reshape(2, 3)),
        np.broadcast_to(np.float32(2), (3, 4)),
        np.arange(3 * BLOCK_ELEMENTS + 5, dtype="f4").reshape(-1, 1).T,
        np.arange(2 * (BLOCK_ELEMENTS + 5), dtype="f8")[::2],
        np.array(3, ">u2"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_any_memory_layout_are_written_with_their_values(path, array):
    array.flags.writeable = False

    write_tensors(path, {"a": array})

    assert_same(load(path.read_bytes()), {"a": array})


def test_an_array_that_is_not_contiguous_is_copied_block_by_block(path):
    array = np.zeros((2000, 5000), "f4").T  # 40 MB

    tracemalloc.start()
    try:
        write_tensors(path, {"a": array})
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def interrupt_after(_: None) -> NoReturn:
    raise KeyboardInterrupt


def test_an_error_inside_leaves_what_was_there_and_nothing_else(path):
    path.write_bytes(b"before")

    with pytest.raises(KeyboardInterrupt), TensorFileWriter(path, Schema.of(SAMPLE)) as writer:
        interrupt_after(writer.write(b"1234"))

    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def test_the_file_appears_only_when_it_is_complete(path):
    with TensorFileWriter(path, Schema([TensorSpec("a", "U8", (4,))])) as writer:
        writer.write(b"1234")
        assert not path.exists()

    assert bytes(TensorFile.open(path)["a"]) == b"1234"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_takes_the_place_of_another_whole_and_waits_for_the_disk_if_it_is_to_last(path, monkeypatch, durable):
    fsync, synced = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    path.write_bytes(b"before")

    written = write_tensors(path, SAMPLE, durable=durable)

    assert hashlib.sha256(path.read_bytes()).hexdigest() == written.sha256
    assert list(path.parent.iterdir()) == [path]
    assert bool(synced) == durable


@pytest.mark.parametrize("data", [b"123", b"12345"])
def test_a_file_with_too_few_or_too_many_bytes_never_appears(path, data):
    refused = pytest.raises(Internal, match="bytes of a model that has")

    with refused, TensorFileWriter(path, Schema([TensorSpec("a", "U8", (4,))])) as writer:
        writer.write(data)

    assert not list(path.parent.iterdir())


def test_the_file_has_the_permissions_that_the_umask_leaves(path):
    before = os.umask(0o027)
    try:
        write_tensors(path, SAMPLE)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, size):
    # a limit on the size of files stands for a full disk; in a process of its own, since it cannot be undone
    program = textwrap.dedent(f"""
        import resource, sys
        from pathlib import Path
        import numpy as np
        from folkmoot.errors import StorageFull
        from folkmoot.tensors import write_tensors

        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
        try:
            write_tensors(Path(sys.argv[1]), {{"a": np.zeros(10_000)}})
        except StorageFull as error:
            print(error)
    """)

    output = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "model"], capture_output=True, text=True, check=True
    )

    assert output.stdout == "no space left to write model\n"
    assert not list(tmp_path.iterdir())


def test_only_a_full_disk_is_called_one(path):
    with pytest.raises(FileNotFoundError):
        write_tensors(path / "no such folder" / "model", SAMPLE)


# reading


def test_tensors_come_back_as_read_only_views(path):
    write_tensors(path, SAMPLE)

    file = TensorFile.open(path)

    assert_same(file, SAMPLE)
    assert file.num_bytes == path.stat().st_size == file.data_offset + file.schema.num_bytes
    with pytest.raises(ValueError, match="read-only"):
        file["layer.weight"][0] = 1


def test_a_view_outlives_its_file_object(path):
    write_tensors(path, SAMPLE)

    view = TensorFile.open(path)["layer.weight"]
    gc.collect()

    np.testing.assert_array_equal(view, SAMPLE["layer.weight"])


def test_a_tensor_is_not_copied(path):
    write_tensors(path, {"a": np.zeros(1_000_000)})

    view = TensorFile.open(path)["a"]

    assert not view.flags.owndata


def test_metadata_is_kept_and_makes_a_file_not_canonical(path):
    file = opened(path, save(SAMPLE, metadata={"format": "pt"}))

    assert file.metadata == {"format": "pt"}
    assert not file.is_canonical
    assert_same(file, SAMPLE)


def test_another_order_of_the_tensors_is_read_and_is_not_canonical(path):
    file = opened(path, file_with({"b": entry([1], 0, 1), "a": entry([2], 1, 3), "e": entry([0], 1, 1)}, b"xyz"))

    assert {name: bytes(tensor) for name, tensor in file.items()} == {"b": b"x", "a": b"yz", "e": b""}
    assert list(file) == ["a", "b", "e"]
    assert not file.is_canonical


def test_unaligned_tensors_are_read(path):
    file = opened(path, file_with({"b": entry([1], 0, 1), "a": entry([1], 1, 5, "I32")}, b"x\1\0\0\0"))

    assert file["a"].tolist() == [1]


MALFORMED = {
    "nothing": b"",
    "no header": b"\0" * 8,
    "a header of one byte": file_with(b"{"),
    "a header that is longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "a length that overflows": b"\xff" * 8 + b"{}",
    "a list": file_with([]),
    "text after the object": file_with(b"{}x"),
    "two objects": file_with(b"{}{}"),
    "space before the object": file_with(b" {}"),
    "not UTF-8": file_with(b'{"\xff": 1}'),
    "a byte order mark": file_with(b"\xef\xbb\xbf{}"),
    "a raw control character": file_with(b'{"a\n": 1}'),
    "deep nesting": file_with(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "deep lists": file_with(b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
    "very many lists": file_with(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
    "a huge number": file_with(b'{"a":{"dtype":"U8","shape":[' + b"9" * 10_000 + b'],"data_offsets":[0,1]}}', b"x"),
    "duplicate tensors": file_with(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "duplicate keys": file_with(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "duplicate metadata": file_with(b'{"__metadata__":{"a":"b","a":"c"}}'),
    "metadata that is no text": file_with({"__metadata__": {"a": 1}}),
    "metadata that is no object": file_with({"__metadata__": "a"}),
    "metadata with half a character": file_with(b'{"__metadata__":{"a":"\\ud800"}}'),
    "an entry that is no object": file_with({"a": 1}),
    "no dtype": file_with({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "no shape": file_with({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"x"),
    "no offsets": file_with({"a": {"dtype": "U8", "shape": [1]}}, b"x"),
    "one key more": file_with({"a": entry([1], 0, 1) | {"more": 1}}, b"x"),
    "three offsets": file_with({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"x"),
    "unknown dtype": file_with({"a": entry([1], 0, 1, "F8")}, b"x"),
    "dtype in small letters": file_with({"a": entry([1], 0, 1, "u8")}, b"x"),
    "dtype that is a number": file_with({"a": entry([1], 0, 1, 8)}, b"x"),
    "a negative size": file_with({"a": entry([-1], 0, 1)}, b"x"),
    "two negative sizes": file_with({"a": entry([-1, -1], 0, 1)}, b"x"),
    "a size that is true": file_with({"a": entry([True], 0, 1)}, b"x"),
    "a size that is a fraction": file_with({"a": entry([1.0], 0, 1)}, b"x"),
    "a size that is text": file_with({"a": entry(["1"], 0, 1)}, b"x"),
    "a size that is null": file_with({"a": entry([None], 0, 1)}, b"x"),
    "a size that is not a number": file_with(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"x"),
    "a product that overflows": file_with({"a": entry([2**32, 2**32], 0, 0)}),
    "a huge size beside zero": file_with({"a": entry([0, 2**63], 0, 0)}),
    "too many dimensions": file_with({"a": entry([1] * 65, 0, 1)}, b"x"),
    "an offset that is false": file_with({"a": entry([1], False, 1)}, b"x"),
    "a negative offset": file_with({"a": entry([2], -1, 1)}, b"x"),
    "offsets the wrong way": file_with({"a": entry([1], 1, 0)}, b"x"),
    "fewer bytes than the shape": file_with({"a": entry([2], 0, 1)}, b"x"),
    "more bytes than the shape": file_with({"a": entry([1], 0, 2)}, b"xy"),
    "a hole at the start": file_with({"a": entry([1], 1, 2)}, b"xy"),
    "a hole in the middle": file_with({"a": entry([1], 0, 1), "b": entry([1], 2, 3)}, b"xyz"),
    "an overlap": file_with({"a": entry([2], 0, 2), "b": entry([2], 1, 3)}, b"xyz"),
    "twice the same bytes": file_with({"a": entry([1], 0, 1), "b": entry([1], 0, 1)}, b"x"),
    "an empty tensor inside another": file_with({"a": entry([2], 0, 2), "b": entry([0], 1, 1)}, b"xy"),
    "an empty tensor beyond the end": file_with({"a": entry([0], 9, 9)}),
    "trailing bytes": file_with({"a": entry([1], 0, 1)}, b"xy"),
    "missing bytes": file_with({"a": entry([2], 0, 2)}, b"x"),
    "a name with a line feed": file_with({"a\nb": entry([1], 0, 1)}, b"x"),
    "a name with NUL": file_with({"a\0b": entry([1], 0, 1)}, b"x"),
    "a name that is half a character": file_with(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "a name that is too long": file_with({"a" * 10_000: entry([1], 0, 1)}, b"x"),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_refused_in_our_words(path, content):
    with pytest.raises(InvalidFile) as caught:
        opened(path, content)

    assert "Expecting" not in caught.value.message  # the words of the standard library's JSON parser


SWELLING = {
    "lists": b'{"a":{"dtype":"U8","shape":[' + b"[]," * 1_000_000 + b'[]],"data_offsets":[0,1]}}',
    "numbers": b'{"a":{"dtype":"U8","shape":[' + b"999," * 1_000_000 + b'1],"data_offsets":[0,1]}}',
    "texts": b'{"a":{"dtype":"U8","shape":[' + b'"ab",' * 1_000_000 + b'1],"data_offsets":[0,1]}}',
    "metadata": b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(500_000)) + b"}}",
    "names": b"{" + b",".join(b'"%x":{}' % number for number in range(500_000)) + b"}",
    "a name": b'{"' + b"a" * 4_000_000 + b'":{}}',
}


@pytest.mark.parametrize("text", SWELLING.values(), ids=SWELLING.keys())
def test_a_header_that_would_take_many_times_its_size_in_memory_takes_little(path, text):
    path.write_bytes(file_with(text))

    tracemalloc.start()
    try:
        with pytest.raises(InvalidFile):
            TensorFile.open(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    content = save(SAMPLE, metadata={"format": "np"})

    for size in range(len(content)):
        with pytest.raises(InvalidFile):
            opened(path, content[:size])


def test_a_file_with_one_other_byte_is_refused_or_read(path):
    content = save(SAMPLE, metadata={"format": "np"})

    for place in range(len(content)):
        for byte in {0, content[place] ^ 1, content[place] ^ 0x80, ord(" "), ord("9"), ord('"'), 0xFF}:
            try:
                tensors = dict(opened(path, content[:place] + bytes([byte]) + content[place + 1 :]))
            except InvalidInput:
                continue
            assert sum(tensor.nbytes for tensor in tensors.values()) == 6 * 4 + 2 * 8 + 8 + 3


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 100}, {"max_header_bytes": 100}, {"max_tensors": 4}, {"max_name_length": 4}],
    ids=lambda limits: next(iter(limits)),
)
def test_a_file_over_a_limit_is_too_large(path, limits):
    with pytest.raises(TooLarge, match=str(next(iter(limits.values())))):
        opened(path, save(SAMPLE), **limits)


# finiteness


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", BFLOAT16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_and_named(dtype, value):
    array = np.zeros((2, BLOCK_ELEMENTS), dtype)
    array[1, 5] = value

    with pytest.raises(NonFinite, match=rf"^layer.bias holds {value} at \[1, 5\]$"):
        check_finite({"steps": np.array(3), "layer.bias": array})


def test_finite_tensors_pass(path):
    write_tensors(path, SAMPLE | {"extremes": np.array([np.finfo("f4").max, np.finfo("f4").tiny], "f4")})

    check_finite(TensorFile.open(path))
