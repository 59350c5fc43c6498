"""What stands in the examples of the API's description: two hospitals that learn to tell digits apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rest_framework.serializers import BaseSerializer

Shown = TypeVar("Shown", bound=type[BaseSerializer])

ACTOR = "7b0e4f5c-2f0a-4e0c-8f39-6d1f0a2b9c11"
HOSPITALS = ["c1a7e2d4-90b3-4d5e-a6f1-3b8c7d2e5f60", "e94d3b58-17c6-4f2a-8d05-9a6b1c4e7f32"]
MODEL = "3f2c1a90-6d1e-4c58-9b7a-0e5d4c3b2a19"
OTHER_MODEL = "a58f0c3e-4b7d-4e91-8c26-5d9e1f7a3b04"
LOCAL_MODEL = "d20b6e97-8a3c-4f15-b4d8-7e1c9f5a2036"
TRAINING = "51c8d7f6-e3a2-4b90-9f4d-2c6e8a0b1d75"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
HUB = "https://hub.example"
EARLIER, LATER = "2026-03-02T08:30:00+00:00", "2026-03-02T08:41:12.500000+00:00"
FILE = "(the bytes of the file)"
OWN_PASSWORD = "correct horse battery staple"  # noqa: S105 - an example
NEW_PASSWORD = "a stapled battery of horses"  # noqa: S105 - an example
TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105 - an example


def example(**fields: Any) -> Callable[[Shown], Shown]:
    """The values that fields of a serializer have in examples, on top of those of the class that it extends."""

    def set_on(serializer_class: Shown) -> Shown:
        serializer_class.example = example_of(serializer_class) | fields  # type: ignore[attr-defined]
        return serializer_class

    return set_on


def example_of(serializer: Any) -> dict[str, Any]:
    """Empty where there is none."""
    return getattr(serializer, "example", {})
