from __future__ import annotations

import pytest

from folkmoot.aggregation.sources import FileSource, MappedFile


@pytest.mark.parametrize("kind", [FileSource, MappedFile])
def test_a_stretch_is_read_from_anywhere_in_the_file(tmp_path, kind):
    (tmp_path / "file").write_bytes(b"0123456789")
    source, buffer = kind(tmp_path / "file"), bytearray(4)

    source.read_into(6, memoryview(buffer))

    assert (bytes(buffer), source.size) == (b"6789", 10)


@pytest.mark.parametrize("kind", [FileSource, MappedFile])
@pytest.mark.parametrize("offset", [7, 10, 99])
def test_a_file_that_ends_before_the_stretch_does_is_an_error(tmp_path, kind, offset):
    (tmp_path / "file").write_bytes(b"0123456789")
    source = kind(tmp_path / "file")

    with pytest.raises(EOFError):
        source.read_into(offset, memoryview(bytearray(4)))
