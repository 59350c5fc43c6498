from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from folkmoot.errors import InvalidFile, InvalidInput, TooLarge
from folkmoot.tensors import Limits, check_finite, open_tensors
from folkmoot.tensors.schema import blocks_of

SAMPLE = {"weight": np.arange(12, dtype="f4").reshape(3, 4), "bias": np.zeros(200), "steps": np.array(3, ">i4")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "upload"


def npy(array: np.ndarray = SAMPLE["weight"], version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_with(header: bytes, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<L", len(header)) + header + data


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in members:
            target.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def saved(save=np.savez, **tensors: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **tensors)
    return file.getvalue()


def read(path, content: bytes, limits: Limits = Limits()) -> dict[str, np.ndarray]:  # noqa: B008 (frozen)
    path.write_bytes(content)
    return dict(open_tensors(path, limits=limits))


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.asfortranarray(np.arange(24, dtype="<f2").reshape(2, 3, 4)),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array(True),
        np.zeros((3, 0), "u8"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_of_every_version_layout_and_byte_order_are_read_as_native(path, version, method, array):
    tensor = read(path, archive(("a.npy", npy(array, version)), method=method))["a"]

    np.testing.assert_array_equal(tensor, array)
    assert tensor.dtype == array.dtype.newbyteorder("<")


def test_a_stored_array_is_a_view_of_the_file(path):
    path.write_bytes(saved(weight=np.zeros(1_000_000)))

    tracemalloc.start()
    try:
        assert open_tensors(path)["weight"].nbytes == 8_000_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_an_archive_that_was_streamed_out_is_read(path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target, target.open("a.npy", "w") as member:
        member.write(npy())

    np.testing.assert_array_equal(read(path, file.getvalue())["a"], SAMPLE["weight"])


def test_names_may_have_folders_and_any_letters(path):
    assert set(read(path, archive(("block/Größe.npy", npy())))) == {"block/Größe"}


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
DATA = b"\0" * 8
MALFORMED_ARRAYS = {
    "empty": b"",
    "text": b"hello",
    "cut in the magic": npy()[:5],
    "cut behind the magic": npy()[:6],
    "cut in the version": npy()[:7],
    "cut in the length": npy()[:9],
    "cut in the header": npy()[:40],
    "another magic": b"\x92" + npy()[1:],
    "cut in the data": npy()[:-1],
    "trailing bytes": npy() + b"\0",
    "version 4": npy_with(HEADER, DATA, b"\x04\x00"),
    "version 1.1": npy_with(HEADER, DATA, b"\x01\x01"),
    "objects": npy_with(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", DATA),
    "structured": npy_with(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", DATA),
    "text values": npy_with(b"{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }", DATA),
    "dates": npy_with(b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", DATA),
    "complex": npy_with(b"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", DATA),
    "raw bytes": npy_with(b"{'descr': '|V4', 'fortran_order': False, 'shape': (2,), }", DATA),
    "no such dtype": npy_with(b"{'descr': '<f3', 'fortran_order': False, 'shape': (2,), }", DATA),
    "a list of dtypes": npy_with(b"{'descr': 'f4,f4', 'fortran_order': False, 'shape': (1,), }", DATA),
    "no dtype": npy_with(b"{'fortran_order': False, 'shape': (2,), }", DATA),
    "no shape": npy_with(b"{'descr': '<f4', 'fortran_order': False, }", DATA),
    "shape that is a number": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2), }", DATA),
    "shape with text": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': ('2',), }", DATA),
    "negative shape": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", DATA),
    "huge shape": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9" + b"0" * 5000 + b",), }", DATA),
    "shape that overflows": npy_with(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }"
    ),
    "order that is a number": npy_with(b"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", DATA),
    "one key more": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'a': 1, }", DATA),
    "a call": npy_with(b"{'descr': exit(3), 'fortran_order': False, 'shape': (2,), }", DATA),
    "a comprehension": npy_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2 for a in b), }", DATA),
    "deep nesting": npy_with(b"(" * 60_000),
    "deep operators": npy_with(b"{'descr': " + b"-" * 60_000 + b"1, 'fortran_order': False, 'shape': (2,), }"),
    "a very long header": npy_with(HEADER + b" " * 70_000, DATA, b"\x02\x00"),
    "a header that claims 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + HEADER,
    "a pickle": b"\x80\x04]\x94.",
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("content", MALFORMED_ARRAYS.values(), ids=MALFORMED_ARRAYS.keys())
def test_a_malformed_array_is_refused(path, content, method):
    with pytest.raises(InvalidFile):
        read(path, archive(("a.npy", content), method=method), Limits(max_ratio=100_000))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("objects", InvalidFile, "a holds Python objects; only plain numbers are taken"),
        ("structured", InvalidFile, "a has a structured dtype; only plain numbers are taken"),
        ("text values", InvalidFile, "tensor a has the dtype str32: taken are BOOL"),
        ("a very long header", TooLarge, "the header of a has more than 65536 bytes"),
        ("cut in the header", InvalidFile, "a ends within its header"),
        ("cut in the data", InvalidFile, "a should have 176 bytes and has 175"),
    ],
)
def test_what_is_wrong_with_an_array_is_said(path, content, error, message):
    with pytest.raises(error, match=message):
        read(path, archive(("a.npy", MALFORMED_ARRAYS[content])))


def test_the_header_of_the_examples_is_right_but_for_what_is_wrong(path):
    assert read(path, archive(("a.npy", npy_with(HEADER, DATA))))["a"].tolist() == [0, 0]


def test_the_keys_of_an_array_may_come_in_any_order_and_style(path):
    header = b'{"shape":(2,),"descr":"<f4","fortran_order":False}\n'

    assert read(path, archive(("a.npy", npy_with(header, DATA))))["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../a.npy", "no name for a member"),
        ("a/../../b.npy", "no name for a member"),
        ("/etc/a.npy", "no name for a member"),
        ("a\\b.npy", "no name for a member"),
        ("a\nb.npy", "cannot be the name"),
        ("__metadata__.npy", "cannot be the name"),
        ("data.pkl", "not an array"),
        ("folder/", "not an array"),
        ("a" * 600 + ".npy", "longer than 512"),
    ],
)
def test_a_member_with_such_a_name_is_refused(path, name, message):
    with pytest.raises(InvalidFile, match=message):
        read(path, archive(("first.npy", npy()), (name, npy())))


def test_two_members_of_one_name_are_refused(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive(("a.npy", npy()), ("a.npy", npy(np.zeros(2))))

    with pytest.raises(InvalidFile, match="same name"):
        read(path, content)


CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
SIZE = len(npy())


def with_field(content: bytes, mark: bytes, offset: int, layout: str, value: int) -> bytes:
    """Overwrite a field of the only header that begins with `mark`."""
    place = content.rindex(mark) + offset
    return content[:place] + struct.pack(layout, value) + content[place + struct.calcsize(layout) :]


def as_deflated(data: bytes) -> bytes:
    """An archive that holds `data` and says that it inflates to `npy()`."""
    content = archive(("a.npy", data))
    for mark, method, crc, size in ((LOCAL, 8, 14, 22), (CENTRAL, 10, 16, 24)):
        content = with_field(content, mark, method, "<H", zipfile.ZIP_DEFLATED)
        content = with_field(content, mark, crc, "<L", zlib.crc32(npy()))
        content = with_field(content, mark, size, "<L", SIZE)
    return content


SINGLE = archive(("a.npy", npy()))
DEFLATED = archive(("a.npy", npy()), method=zipfile.ZIP_DEFLATED)

START, STOP = SINGLE.index(CENTRAL), SINGLE.index(END)


def in_64_bits(**lies: bytes | int) -> bytes:
    """`SINGLE` with the end record that archives beyond 4 GB have."""
    fields = {"mark": b"PK\x06\x06", "disk": 0, "first_disk": 0, "count_here": 1, "count": 1}
    fields |= {"size": STOP - START, "start": START, "offset": STOP} | lies
    offset = fields.pop("offset")
    mark, *rest = fields.values()
    record = struct.pack("<4sQ2H2L4Q", mark, 44, 45, 45, *rest)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset, 1)
    return (
        SINGLE[:STOP] + record + locator + struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    )


LIES = {
    "another mark in the directory": SINGLE.replace(CENTRAL, b"PK\x01\x03"),
    "a member on another disk": with_field(SINGLE, CENTRAL, 34, "<H", 1),
    "another end mark": SINGLE.replace(END, b"PK\x05\x07"),
    "another disk of the directory": with_field(SINGLE, END, 6, "<H", 1),
    "something behind the last entry": with_field(
        changed(SINGLE, END, b"hidden" + END), END, 12, "<L", STOP - START + 6
    ),
    "no directory": SINGLE[:START] + struct.pack("<4s4H2LH", END, 0, 0, 0, 0, 0, START, 0),
    "64 bits, another mark": in_64_bits(mark=b"PK\x06\x05"),
    "64 bits, another disk": in_64_bits(disk=1),
    "64 bits, another disk of the directory": in_64_bits(first_disk=1),
    "64 bits, two counts": in_64_bits(count_here=2),
    "64 bits, more members than there are": in_64_bits(count_here=2, count=2),
    "64 bits, another size": in_64_bits(size=2**63),
    "64 bits, another start": in_64_bits(start=0),
    "64 bits, a record elsewhere": in_64_bits(offset=STOP - 1),
    "64 bits, a record at the end of the world": in_64_bits(offset=2**64 - 1),
    "encrypted in the directory": with_field(SINGLE, CENTRAL, 8, "<H", 1),
    "encrypted throughout": with_field(with_field(SINGLE, CENTRAL, 8, "<H", 1), LOCAL, 6, "<H", 1),
    "another flag in the member": with_field(SINGLE, LOCAL, 6, "<H", 0x800),
    "another method in the member": with_field(SINGLE, LOCAL, 8, "<H", 8),
    "lzma": archive(("a.npy", npy()), method=zipfile.ZIP_LZMA),
    "bzip2": archive(("a.npy", npy()), method=zipfile.ZIP_BZIP2),
    "another name in the member": SINGLE.replace(b"a.npy", b"b.npy", 1),
    "another checksum in the member": with_field(SINGLE, LOCAL, 14, "<L", 1),
    "another size in the member": with_field(SINGLE, LOCAL, 22, "<L", SIZE + 1),
    "two sizes": with_field(SINGLE, CENTRAL, 24, "<L", SIZE + 1),
    "a larger size in the directory": with_field(with_field(DEFLATED, CENTRAL, 24, "<L", 999), LOCAL, 22, "<L", 999),
    "a smaller size in the directory": with_field(with_field(DEFLATED, CENTRAL, 24, "<L", 99), LOCAL, 22, "<L", 99),
    "a wrong checksum": with_field(with_field(SINGLE, CENTRAL, 16, "<L", 1), LOCAL, 14, "<L", 1),
    "a wrong checksum, compressed": with_field(with_field(DEFLATED, CENTRAL, 16, "<L", 1), LOCAL, 14, "<L", 1),
    "other data": SINGLE[: 35 + 130] + b"\xff" + SINGLE[35 + 131 :],
    "a member that begins elsewhere": with_field(SINGLE, CENTRAL, 42, "<L", 1),
    "a member beyond the end": with_field(SINGLE, CENTRAL, 42, "<L", 0xFFFFFFF0),
    "a 64-bit size that is not there": with_field(SINGLE, CENTRAL, 24, "<L", 0xFFFFFFFF),
    "a long name": with_field(SINGLE, CENTRAL, 28, "<H", 0xFFFF),
    "a comment": SINGLE[:-2] + b"\x02\x00hi",
    "a comment that is not there": SINGLE[:-2] + b"\x02\x00",
    "another disk": with_field(SINGLE, END, 4, "<H", 1),
    "more members than there are": with_field(with_field(SINGLE, END, 8, "<H", 2), END, 10, "<H", 2),
    "fewer members than there are": with_field(with_field(SINGLE, END, 8, "<H", 0), END, 10, "<H", 0),
    "two counts": with_field(SINGLE, END, 8, "<H", 2),
    "a directory elsewhere": with_field(SINGLE, END, 16, "<L", 0),
    "a smaller directory": with_field(SINGLE, END, 12, "<L", 10),
    "a huge directory": with_field(SINGLE, END, 12, "<L", 0xFFFFFFF0),
    "no end": SINGLE[:-22],
    "two archives": SINGLE + SINGLE,
    "two ends": SINGLE + SINGLE[-22:],
    "something in front of the directory": changed(SINGLE, CENTRAL, b"hidden" + CENTRAL),
    "a name that is not UTF-8": SINGLE.replace(b"a.npy", b"\xff.npy"),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_an_archive_whose_parts_disagree_is_refused(path, content):
    with pytest.raises(InvalidFile):
        read(path, content)


def test_something_hidden_between_two_members_is_refused(path):
    pair = archive(("a.npy", npy()), ("b.npy", npy()))
    second = pair.rindex(LOCAL)
    parted = pair[:second] + b"hidden" + pair[second:]
    parted = with_field(parted, CENTRAL, 42, "<L", second + 6)
    parted = with_field(parted, END, 16, "<L", pair.index(CENTRAL) + 6)

    with pytest.raises(InvalidFile, match="overlap or leave a gap"):
        read(path, parted)


def test_a_member_that_reaches_into_the_directory_is_refused(path):
    longer = SINGLE
    for mark, offset in ((LOCAL, 18), (LOCAL, 22), (CENTRAL, 20), (CENTRAL, 24)):
        longer = with_field(longer, mark, offset, "<L", SIZE + 10)

    with pytest.raises(InvalidFile, match="overlap or leave a gap"):
        read(path, longer)


def test_an_archive_with_64_bit_fields_is_read(path, monkeypatch):
    assert read(path, in_64_bits())["a"].tolist() == SAMPLE["weight"].tolist()

    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # so that the standard library writes them without 4 GB
    content = archive(("a.npy", npy()), ("b.npy", npy()))
    assert b"PK\x06\x06" in content
    assert read(path, content)["b"].tolist() == SAMPLE["weight"].tolist()


def test_compressed_data_without_an_end_is_refused(path):
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    endless = compressor.compress(npy()) + compressor.flush(zlib.Z_SYNC_FLUSH)

    with pytest.raises(InvalidFile, match="compressed size"):
        read(path, as_deflated(endless))


def test_overlapping_members_are_refused(path):
    # two names for one member, as the bombs without nesting have them
    entry = SINGLE[SINGLE.index(CENTRAL) : SINGLE.index(END)]
    twice = changed(SINGLE, entry, entry + entry.replace(b"a.npy", b"b.npy"))
    twice = with_field(with_field(twice, END, 8, "<H", 2), END, 10, "<H", 2)

    with pytest.raises(InvalidFile, match="overlap"):
        read(path, with_field(twice, END, 12, "<L", 2 * len(entry)))


@pytest.mark.parametrize("num_bytes", [1, 1 << 20, 3 << 20])
def test_something_hidden_behind_compressed_data_is_refused(path, num_bytes):
    with pytest.raises(InvalidFile, match="compressed size"):
        read(path, as_deflated(zlib.compress(npy(), wbits=-zlib.MAX_WBITS) + bytes(num_bytes)))


def test_too_many_members_are_refused(path):
    with pytest.raises(TooLarge, match="5000 members"):
        read(path, archive(*((f"{number}.npy", b"") for number in range(5_000))))


def test_a_bomb_is_refused_before_it_is_expanded(path):
    content = saved(np.savez_compressed, bomb=np.zeros(20_000_000, "u1"))

    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="more than 200 times"):
            read(path, content)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_compressed_array_is_read_in_blocks_that_take_little_memory(path):
    values = np.random.default_rng(0).integers(0, 2, 30_000_000, "u1")
    path.write_bytes(saved(np.savez_compressed, a=values))
    tensors, position = open_tensors(path), 0

    tracemalloc.start()
    try:
        for block in blocks_of(tensors, "a"):
            np.testing.assert_array_equal(block, values[position : position + block.size])
            position += block.size
        assert position == values.size
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("header", [HEADER, HEADER + b" ", HEADER + b"  ", HEADER + b"   "])
def test_blocks_are_whole_values_wherever_the_pieces_of_the_archive_end(path, header, method):
    values = np.arange(600_000, dtype="f4")
    path.write_bytes(
        archive(("a.npy", npy_with(header.replace(b"(2,)", b"(600000,)"), values.tobytes())), method=method)
    )

    blocks = list(blocks_of(open_tensors(path), "a"))

    np.testing.assert_array_equal(np.concatenate(blocks), values)


def test_damage_is_found_by_who_reads_in_blocks(path):
    path.write_bytes(LIES["a wrong checksum"])

    with pytest.raises(InvalidFile, match="damaged"):
        list(blocks_of(open_tensors(path), "a"))


def test_a_large_array_is_not_taken_compressed_and_in_fortran_order(path):
    path.write_bytes(saved(np.savez_compressed, a=np.zeros((40_000, 1000), "u1", order="F")))

    with pytest.raises(TooLarge, match="a is compressed and in Fortran's order"):
        open_tensors(path, limits=Limits(max_ratio=2000))


def test_an_archive_that_expands_beyond_the_limit_is_refused(path):
    random = np.random.default_rng(0)
    content = saved(np.savez_compressed, a=random.integers(0, 2, 40_000), b=random.integers(0, 2, 40_000))
    assert len(content) < 100_000

    with pytest.raises(TooLarge, match="expands to more than 500000 bytes"):
        read(path, content, Limits(max_bytes=500_000))


def test_expanding_stops_where_the_claimed_size_is_reached(path):
    bomb = archive(("a.npy", npy_with(HEADER, DATA) + bytes(100_000_000)), method=zipfile.ZIP_DEFLATED)
    claim = len(npy_with(HEADER, DATA))
    lying = with_field(with_field(bomb, CENTRAL, 24, "<L", claim), LOCAL, 22, "<L", claim)

    tracemalloc.start()
    try:
        with pytest.raises(InvalidFile, match="damaged"):
            read(path, lying)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_archive_is_refused_wherever_it_ends(path, save):
    content = saved(save, **SAMPLE)

    for size in range(len(content)):
        with pytest.raises(InvalidFile):
            read(path, content[:size])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_one_other_byte_is_refused_or_read(path, save):
    content = saved(save, weight=np.arange(6, dtype="f4"), steps=np.array(3))

    for place in range(len(content)):
        for byte in {0, content[place] ^ 1, content[place] ^ 0x80, 0xFF}:
            try:
                tensors = read(path, content[:place] + bytes([byte]) + content[place + 1 :])
                check_finite(tensors)
            except InvalidInput:
                continue
            assert sum(tensor.nbytes for tensor in tensors.values()) == 6 * 4 + 8
