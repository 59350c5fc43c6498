"""What the system says of files that cannot be had for the moment."""

from __future__ import annotations

import errno
import os

import pytest

from folkmoot.errors import StorageFull, Unavailable
from folkmoot.server.storage.failing import as_unavailable


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_used_is_to_be_tried_again(number):
    found = as_unavailable(OSError(number, os.strerror(number)))

    assert type(found) is Unavailable
    assert os.strerror(number) in found.message


def test_a_full_disk_is_said_to_be_one():
    assert type(as_unavailable(OSError(errno.ENOSPC, "x"))) is StorageFull


def test_a_file_that_is_not_there_is_a_fault_of_ours():
    assert as_unavailable(FileNotFoundError(errno.ENOENT, "x")) is None
