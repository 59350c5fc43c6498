"""What is written down of an aggregation as it is made: a later version of anything may do it otherwise."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from folkmoot.aggregation import package_of
from folkmoot.server.registry.intake import StoredFile
from folkmoot.server.trainings.merging import Merging
from folkmoot.server.trainings.recipes import Recipe
from folkmoot.tensors.tensor_file import WrittenFile


def provenance_of(recipe: Recipe, output: StoredFile, state: WrittenFile | None = None) -> dict[str, Any]:
    """The recipe, the digests of what came of it, and the versions of all that took part; for JSON."""
    return {
        "recipe": recipe.as_json(),
        "output": {"sha256": output.sha256, "num_bytes": output.num_bytes},
        "new_state": {"sha256": state.sha256, "num_bytes": state.num_bytes} if state else None,
        "versions": versions(recipe.strategy),
    }


def provenance_of_moments(merging: Merging, output: StoredFile) -> dict[str, Any]:
    """The same of moments."""
    return {
        **merging.as_json(),
        "output": {"sha256": output.sha256, "num_bytes": output.num_bytes},
        "versions": versions("FedAvg"),
    }


# Of what runs here, whatever is installed meanwhile; to read them takes longer than a small aggregation.
@cache
def versions(strategy: str) -> Mapping[str, str]:
    """Of Folkmoot, NumPy, Python, and of the package that the strategy comes from."""
    package, its_version = package_of(strategy)
    plug_in = {package: its_version} if package else {}
    ours = {"folkmoot": version("folkmoot"), "numpy": np.__version__, "python": platform.python_version()}
    return {**plug_in, **ours}
