"""A checksum for each block of a file's data."""

from __future__ import annotations

from itertools import pairwise

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.tensors.checksums import BLOCK_BYTES, CHECKSUM_BYTES, BlockChecksums, block_checksums

DATA = bytes(range(256)) * (BLOCK_BYTES // 128) + b"the end"


def test_each_block_has_the_checksum_that_others_compute():
    blocks = [DATA[start : start + BLOCK_BYTES] for start in range(0, len(DATA), BLOCK_BYTES)]

    assert block_checksums(DATA) == b"".join(xxhash.xxh3_64_digest(block) for block in blocks)
    assert len(blocks) == 3


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2)])
def test_there_are_as_many_as_there_are_blocks(size, count):
    assert len(block_checksums(bytes(size))) == count * CHECKSUM_BYTES


@given(st.lists(st.integers(0, 2 * BLOCK_BYTES), max_size=4))
def test_it_does_not_matter_in_what_pieces_the_data_comes(cuts):
    checksums = BlockChecksums()
    places = [0, *sorted(cuts), len(DATA)]
    for start, stop in pairwise(places):
        checksums.update(DATA[start:stop])

    assert checksums.digest() == block_checksums(DATA)


def test_a_changed_bit_is_found_in_its_own_block():
    rotten = bytearray(DATA)
    rotten[BLOCK_BYTES + 5] ^= 1

    differing = [
        place
        for place in range(3)
        if block_checksums(DATA)[8 * place : 8 * place + 8] != block_checksums(rotten)[8 * place : 8 * place + 8]
    ]
    assert differing == [1]
