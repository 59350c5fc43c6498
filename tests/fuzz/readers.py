"""What is fuzzed: each reader, the files to begin with, ways of spoiling them, and what holds of what it takes."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "end_to_end"))

import mutations
from harness import initial_model, trained
from hostile_files import archives, arrays, damage, encoded_files, onnx_files, safetensors_files, torch_files
from hostile_files.row import Row
from mutations import Mutation

from folkmoot.tensors import FORMATS, Limits, Schema, open_tensors, write_tensors
from folkmoot.tensors.encodings import Base, Encoding, decode, encode
from folkmoot.tensors.formats import protobuf
from folkmoot.tensors.formats.npy import MAX_PREFIX_BYTES, parse_npy_header
from folkmoot.tensors.formats.pickle_reader import read_pickle
from folkmoot.tensors.formats.torch.vocabulary import SavedVocabulary, ScriptVocabulary
from folkmoot.tensors.formats.zip_archive import Member, ZipArchive
from folkmoot.tensors.schema import Tensors, blocks_of

MIB = 1 << 20
LIMITS = Limits(max_bytes=32 * MIB, max_tensors=2000, max_members=500, max_pickle_ops=100_000)
LARGEST_SEED = 20_000


@dataclass(frozen=True)
class Reader:
    """`read` gets a file of its own and a folder to write to; it raises FolkmootError, or nothing."""

    sound: Callable[[], Iterable[bytes]]
    hostile: Callable[[], Iterable[bytes]]
    mutations: tuple[Mutation, ...]
    read: Callable[[Path, Path], None]


def small(*tables: dict[str, Row]) -> list[bytes]:
    """The hostile files themselves, where they are quick to make and not hostile by their size."""
    made = (row.content for table in tables for row in table.values())
    return [content for content in made if isinstance(content, bytes) and len(content) < LARGEST_SEED]


def model_file(path: Path, folder: Path) -> None:
    """What is taken is read, becomes a canonical file, and is written into its own template again."""
    tensors = open_tensors(path, limits=LIMITS)
    canonical = folder / "canonical"
    write_tensors(canonical, tensors)
    assert Schema.of(FORMATS["safetensors"].read(canonical, LIMITS)) == Schema.of(tensors)
    check_template(path, FORMATS["safetensors"].read(canonical, LIMITS), folder / "output")


def check_template(path: Path, tensors: Tensors, output: Path) -> None:
    kind = next(kind for kind in FORMATS.values() if kind.recognise(path.read_bytes()[:1024]))
    kind.write(path, tensors, output)
    again = kind.read(output, LIMITS)
    for name in tensors:
        assert digest(again, name) == digest(tensors, name), f"{name} was not written as it was"


def digest(tensors: Tensors, name: str) -> bytes:
    return b"".join(block.tobytes() for block in blocks_of(tensors, name))


def npy_header(path: Path, folder: Path) -> None:
    parse_npy_header("a", path.read_bytes()[:MAX_PREFIX_BYTES])


def archive(path: Path, folder: Path) -> None:
    found = ZipArchive(path, LIMITS)
    for member in found.members:
        assert sum(map(len, found.chunks(member))) == member.num_bytes


def pickle(path: Path, folder: Path) -> None:
    content = path.read_bytes()
    storages = {"0": Member("data/0", 0, 0, 0, 24, 24, 0)}
    vocabulary = SavedVocabulary(storages, frozenset()) if len(content) % 2 else ScriptVocabulary(storages)
    read_pickle(content, vocabulary, LIMITS)


def wire_format(path: Path, folder: Path) -> None:
    content = memoryview(path.read_bytes())
    for field in protobuf.Message(content, 0, len(content)):
        if field.wire_type == protobuf.BYTES:
            for _ in protobuf.decode_varints(content[field.start : field.stop]):
                pass


def encoded(path: Path, folder: Path) -> None:
    output = folder / "decoded"
    decode(path, output, expected=EXPECTED, base=BASE, limits=LIMITS)
    tensors = FORMATS["safetensors"].read(output, LIMITS)
    assert Schema.of(tensors) == EXPECTED
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def encoded_seeds() -> Iterable[bytes]:
    for options in ENCODINGS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "update")
            base = BASE if options.get("difference") else None
            encode(trained(initial_model(), "seed", 0), Encoding(**options), path, base=base)
            yield path.read_bytes()


BASE = Base.of(initial_model())
EXPECTED = Schema.of(initial_model())
ENCODINGS = [
    {"values": values, "block": 8, "zstd": zstd, **more}
    for values in ("exact", "float16", "bfloat16", "int8")
    for zstd in (None, 3)
    for more in ({}, {"difference": True}, {"difference": True, "top_k": 0.4})
]
IN_LENGTH = mutations.after_length(8)
SEVERAL = safetensors_files.file_with(
    {
        "__metadata__": {"format": "pt", "a": "b"},
        "b": safetensors_files.entry([2, 1], 0, 8, "F32"),
        "a": safetensors_files.entry([], 8, 10, "BF16"),
        "none": safetensors_files.entry([0, 3], 10, 10, "I64"),
    },
    bytes(10),
)
ONNX = [
    onnx_files.model(onnx_files.message((1, 2), (2, kind), (8, b"w"), (field, values)))
    for kind, field, values in ((1, 4, bytes(8)), (6, 5, b"\x01\x02"), (7, 7, b"\xac\x02\x07"), (10, 5, b"\x80\x78\0"))
]


def soundly(*tables: dict[str, Row]) -> list[bytes]:
    return [row.build() for table in tables for row in table.values() if row.codes == (None,)]


def pickles(*names: str) -> Iterable[bytes]:
    """The data.pkl of the torch files of these names."""
    for name in names:
        content = torch_files.FILES[name].content
        with contextlib.suppress(zipfile.BadZipFile, KeyError, TypeError, NotImplementedError):
            yield zipfile.ZipFile(io.BytesIO(content)).read("m/data.pkl")


def inside(name: str) -> Mutation:
    return mutations.opcodes if name.endswith(".pkl") else mutations.npy if name.endswith(".npy") else mutations.blind


READERS = {
    "safetensors": Reader(
        lambda: [damage.GOOD["safetensors"], SEVERAL],
        lambda: small(safetensors_files.FILES),
        (IN_LENGTH, mutations.blind),
        model_file,
    ),
    "zip": Reader(
        lambda: [archives.SINGLE, archives.DEFLATED, archives.PAIR, damage.GOOD["torch"]],
        lambda: small(archives.FILES, arrays.FILES),
        (mutations.blind, mutations.members(inside)),
        archive,
    ),
    "npy header": Reader(
        lambda: [archives.npy(), archives.npy(np.zeros((2, 3), ">i2", order="F"))],
        lambda: [content[35:] for content in small(arrays.FILES)],
        (mutations.npy, mutations.blind),
        npy_header,
    ),
    "npz": Reader(
        lambda: [damage.GOOD["npz"], damage.GOOD["compressed npz"]],
        lambda: small(archives.FILES, arrays.FILES),
        (mutations.members(inside), mutations.members(inside), mutations.blind),
        model_file,
    ),
    "pickle": Reader(
        lambda: [torch_files.GOOD_DICT, *pickles("U5 a class of torch.nn is taken")],
        lambda: pickles(*torch_files.FILES),
        (mutations.opcodes, mutations.opcodes, mutations.blind),
        pickle,
    ),
    "torch": Reader(
        lambda: [damage.GOOD["torch"], damage.GOOD["TorchScript"], *soundly(torch_files.FILES)],
        lambda: small(torch_files.FILES),
        (mutations.members(inside), mutations.members(inside), mutations.blind),
        model_file,
    ),
    "protobuf": Reader(
        lambda: [damage.GOOD["ONNX"], *ONNX],
        lambda: small(onnx_files.FILES),
        (mutations.message, mutations.blind),
        wire_format,
    ),
    "ONNX": Reader(
        lambda: [damage.GOOD["ONNX"], *ONNX],
        lambda: small(onnx_files.FILES),
        (mutations.message, mutations.message, mutations.blind),
        model_file,
    ),
    "encoded": Reader(
        encoded_seeds,
        lambda: [encoded_files.plain()],
        (mutations.in_frame(IN_LENGTH), mutations.in_frame(mutations.blind), mutations.blind),
        encoded,
    ),
}
