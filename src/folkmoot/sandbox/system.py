"""Calls of the kernel that Python has no name for; each says whether it was granted."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9

CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x0800_0000, 0x1000_0000, 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: Any) -> int:
    """Return what the system call returns; -1 where it failed."""
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def unshare(flags: int) -> bool:
    return bool(_libc.unshare(flags) == 0)


def end_with(parent: int) -> None:
    """Let the kernel end this process once `parent` has ended, and end at once if it has."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def forbid_inspection() -> None:
    """Other processes of the same user may neither trace this one nor read its memory."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forbid_new_privileges() -> bool:
    return bool(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def filter_calls(program: ctypes.Structure) -> bool:
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
