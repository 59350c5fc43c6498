"""A file is one thing: what other programs would take for an archive is not taken for a model."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from folkmoot.errors import InvalidFile
from folkmoot.tensors import open_tensors, write_tensors
from folkmoot.tensors.formats.protobuf import field_header

TWO_THINGS = "zip archive"


class Noted(torch.nn.Module):
    def forward(self, x):
        return x + 1


@pytest.fixture(scope="module")
def members():
    """Those of a file of torch.jit.save."""
    saved = io.BytesIO()
    torch.jit.save(torch.jit.script(Noted()), saved)
    with zipfile.ZipFile(saved) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_at(offset, members, comment=b""):
    """A zip archive whose directory tells where the members are in a file that has it at `offset`."""
    file = io.BytesIO(bytes(offset))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    return file.getvalue()[offset:]


def archive_64_at(offset, members):
    """The same with its end told in 64 bits; in 32 there is nothing."""
    content = archive_at(offset, members)
    directory, end = content.index(b"PK\1\2"), len(content) - 22
    numbers = [len(members).to_bytes(8, "little")] * 2
    numbers += [(end - directory).to_bytes(8, "little"), (offset + directory).to_bytes(8, "little")]
    end64 = b"PK\6\6" + (44).to_bytes(8, "little") + bytes([45, 0, 45, 0]) + bytes(8) + b"".join(numbers)
    locator = b"PK\6\7" + bytes(4) + (offset + end).to_bytes(8, "little") + (1).to_bytes(4, "little")
    return content[:end] + end64 + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def safetensors_with(hidden):
    return safetensors.numpy.save({"w": np.ones(3, "f4"), "x": np.frombuffer(hidden, "u1")})


def onnx_with(hidden):
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(np.ones(3, "f4"), "w")])
    model = onnx.helper.make_model(graph).SerializeToString()
    doc_string = 6
    return model + field_header(doc_string, len(hidden)) + hidden


def with_archive(outer, make):
    """What `outer` makes of an archive that is at the right place in it."""
    size = len(make(0))
    offset = outer(bytes(size)).index(bytes(size))
    return outer(make(offset))


HIDDEN = {
    "at its end": archive_at,
    "with a comment": lambda offset, members: archive_at(offset, members, b"a comment"),
    "with a long comment": lambda offset, members: archive_at(offset, members, b"long" * 16_000),
    "with something behind it": lambda offset, members: archive_at(offset, members) + bytes(1000),
    "in 64 bits": archive_64_at,
}


@pytest.mark.parametrize("outer", [safetensors_with, onnx_with])
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_a_model_file_that_torch_loads_as_torchscript_is_refused(outer, hidden, members, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(with_archive(outer, lambda offset: hidden(offset, members)))
    assert torch.jit.load(path)(torch.zeros(1)) == 1  # without this, the test would test nothing

    with pytest.raises(InvalidFile, match=TWO_THINGS):
        open_tensors(path)


@pytest.mark.parametrize("comment", [b"", bytes(65_535)])
@pytest.mark.parametrize("outer", [safetensors_with, onnx_with])
def test_a_model_file_that_python_opens_as_a_zip_archive_is_refused(outer, comment, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(outer(archive_at(0, {"run.py": b"print()" * 20}, comment)))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["run.py"]

    with pytest.raises(InvalidFile, match=TWO_THINGS):
        open_tensors(path)


def test_the_marks_of_an_archive_by_chance_are_numbers_like_any_others(tmp_path):
    by_chance = [b"PK\5\6" + bytes(range(18)), b"PK\5\6" * 20, b"PK\5\6", b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18)]
    for number, content in enumerate(by_chance):
        path = tmp_path / str(number)
        write_tensors(path, {"x": np.frombuffer(content, "u1")})

        assert bytes(open_tensors(path)["x"]) == content
