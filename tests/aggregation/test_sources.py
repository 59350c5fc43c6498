from __future__ import annotations

import pytest

from folkmoot.aggregation.sources import FileSource


@pytest.mark.parametrize("keep_open", [True, False])
def test_a_stretch_is_read_from_anywhere_in_the_file(tmp_path, keep_open):
    (tmp_path / "file").write_bytes(b"0123456789")
    source, buffer = FileSource(tmp_path / "file", keep_open=keep_open), bytearray(4)

    source.read_into(6, memoryview(buffer))
    source.close()

    assert (bytes(buffer), source.size) == (b"6789", 10)


@pytest.mark.parametrize("keep_open", [True, False])
@pytest.mark.parametrize("offset", [7, 10, 99])
def test_a_file_that_ends_before_the_stretch_does_is_an_error(tmp_path, keep_open, offset):
    (tmp_path / "file").write_bytes(b"0123456789")
    source = FileSource(tmp_path / "file", keep_open=keep_open)

    with pytest.raises(EOFError):
        source.read_into(offset, memoryview(bytearray(4)))

    source.close()
