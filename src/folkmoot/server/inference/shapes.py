"""Whether an input fits what is said of a model's inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from folkmoot.errors import InvalidValue

Shape = Sequence[int | None]


def check_shape(shape: tuple[int, ...], expected: Shape | None, *, is_preprocessed: bool) -> None:
    """Raise InvalidValue unless the shape is the expected one, which may be free in places, or altogether."""
    if expected is None:
        return
    if len(shape) != len(expected) or any(want not in (None, size) for size, want in zip(shape, expected, strict=True)):
        after = " after preprocessing" if is_preprocessed else ""
        wanted = json.dumps(list(expected))
        raise InvalidValue(f"model_input has the shape {list(shape)}{after}; the model takes {wanted}")


def channels_of(expected: Shape | None) -> int | None:
    """How many channels an image is to have: the second number of four."""
    return expected[1] if expected is not None and len(expected) == 4 else None
