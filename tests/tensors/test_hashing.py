from __future__ import annotations

import hashlib
import multiprocessing

import pytest

from folkmoot.tensors.hashing import Sha256

LARGE = bytes(range(256)) * 5000


def hashed(*pieces: bytes) -> str:
    digest = Sha256()
    for piece in pieces:
        digest.update_during(lambda: None, piece)
    return digest.hexdigest()


@pytest.mark.parametrize("pieces", [(), (b"",), (b"a", LARGE, b"b"), (LARGE, LARGE), (memoryview(LARGE)[1:], b"c")])
def test_pieces_of_any_size_have_the_sha256_of_the_whole(pieces):
    assert hashed(*pieces) == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_work_that_fails_says_so_once_the_piece_is_hashed():
    digest = Sha256()

    with pytest.raises(ZeroDivisionError):
        digest.update_during(lambda: 1 // 0, LARGE)

    assert digest.hexdigest() == hashlib.sha256(LARGE).hexdigest()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_hashes_with_threads_of_its_own():
    expected = hashed(LARGE)

    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(hashed, (LARGE,)).get(timeout=20) == expected
