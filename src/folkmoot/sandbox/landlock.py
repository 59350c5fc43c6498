"""Landlock: no file can be opened, no port used, no process outside signalled, as far as the kernel knows these.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes

from folkmoot.sandbox.system import call

# The same numbers on every machine.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_FOR_VERSION = 1

_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_PORTS = {4: 0b11}
_SCOPES = {6: 0b11}


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def version() -> int:
    """What the kernel knows; 0 where it has none."""
    return max(call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_FOR_VERSION)), 0)


def deny_everything() -> bool:
    """From now on this process may do nothing that Landlock could allow it; it has to have no new privileges."""
    known = version()
    if not known:
        return False
    ruleset = _Ruleset(_upto(known, _FILES), _upto(known, _PORTS), _upto(known, _SCOPES))
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    # Without a single rule; the descriptor goes with all others that the process does not need.
    descriptor = call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    return descriptor >= 0 and call(_RESTRICT_SELF, ctypes.c_int(descriptor), ctypes.c_uint32(0)) == 0


def _upto(known: int, rights: dict[int, int]) -> int:
    return sum(bits for since, bits in rights.items() if since <= known)
