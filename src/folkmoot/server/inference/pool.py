"""The one sandbox of this server process, and how many may be asking it at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from folkmoot.errors import Unavailable
from folkmoot.sandbox import Sandbox, SandboxLimits

MOST_QUESTIONS = 10
"""Of the threads that answer requests (see asgi.py), so many may be waiting for models: the others answer the rest."""
MOST_QUESTIONS_OF_OWNER = 5
"""To models of one owner: those that hang keep nobody from asking those of others."""

_lock = threading.Lock()
_sandbox: Sandbox | None = None
_asking: Counter[str] = Counter()


def get_sandbox() -> Sandbox:
    """Its processes start with the first question: torch takes seconds, and many hubs are never asked."""
    global _sandbox
    with _lock:
        if _sandbox is None:
            limits = SandboxLimits(
                seconds=settings.SANDBOX_SECONDS,
                memory_bytes=settings.SANDBOX_MEMORY_BYTES,
                output_bytes=settings.SANDBOX_OUTPUT_BYTES,
                max_children=settings.SANDBOX_PROCESSES,
                max_children_per_owner=max(1, settings.SANDBOX_PROCESSES // 4),
                cache_bytes=settings.SANDBOX_CACHE_BYTES,
            )
            _sandbox = Sandbox(limits, torch_classes=settings.TORCH_CLASSES)
        return _sandbox


def close_sandbox() -> None:
    """End its processes; the next question would start others."""
    global _sandbox
    with _lock:
        closed, _sandbox = _sandbox, None
    if closed is not None:
        closed.close()


@contextmanager
def question_to(owner: str) -> Iterator[Sandbox]:
    """The sandbox, for a request that asks a model of this owner; Unavailable where too many are asking."""
    with _lock:
        if _asking.total() >= MOST_QUESTIONS or _asking[owner] >= MOST_QUESTIONS_OF_OWNER:
            raise Unavailable("Too many questions are being answered by models; try again.")
        _asking[owner] += 1
    try:
        yield get_sandbox()
    finally:
        with _lock:
            _asking[owner] -= 1
