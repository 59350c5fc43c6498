"""Naming tensors by patterns."""

from __future__ import annotations

import pytest

from folkmoot.tensors import Schema, TensorSpec
from folkmoot.tensors.selection import select, without_match

NAMES = ["block.0.weight", "block.0.lora_a", "block.1.lora_a", "norm.running_mean", "norm.weight", "a[0]"]
SCHEMA = Schema(TensorSpec(name, "F32", (1,)) for name in NAMES)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*lora*"], {"block.0.lora_a", "block.1.lora_a"}),
        (["block.?.lora_a", "norm.weight"], {"block.0.lora_a", "block.1.lora_a", "norm.weight"}),
        (["!*.running_*"], set(NAMES) - {"norm.running_mean"}),
        (["block.*", "!*lora*"], {"block.0.weight"}),
        (["!block.*", "*.0.lora_a"], set(NAMES) - {"block.0.weight", "block.1.lora_a"}),
        (["NORM.*"], set()),
    ],
)
def test_the_last_pattern_that_matches_decides(patterns, names):
    assert {spec.name for spec in select(SCHEMA, patterns)} == names


def test_patterns_that_match_nothing_are_told():
    assert without_match(SCHEMA, ["*lora*", "!*.bias", "head.*"]) == ["!*.bias", "head.*"]
