"""What a process gives up, for good, before it is handed a model."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from folkmoot.sandbox import landlock, seccomp, system
from folkmoot.sandbox.environment import environment
from folkmoot.sandbox.limits import SandboxLimits

_NOBODY = 65534
_NICENESS = 10


class Protection(StrEnum):
    """What a kernel may grant, or not."""

    OTHER_USER = "other user"
    """Runs as nobody; where the server is not root, as the server's own user."""
    NETWORK_NAMESPACE = "network namespace"
    """Sees no network and no memory shared by others."""
    RESOURCE_LIMITS = "resource limits"
    """Memory and processor time are bounded; no process is started, no file grows, no core is dumped."""
    NO_NEW_PRIVILEGES = "no new privileges"
    LANDLOCK = "landlock"
    """Opens no file and no port."""
    SECCOMP = "seccomp"
    """Makes only the system calls that computing needs."""


def confine(*, memory_bytes: int, cpu_seconds: int, parent: int) -> frozenset[Protection]:
    """Give up whatever the kernel lets a process give up, and say which of it that was."""
    _be_ended_first()
    os.chdir("/")
    os.nice(_NICENESS)
    taken_already = _address_space()
    # In this order: each step needs what a later one gives up.
    granted = {
        Protection.NETWORK_NAMESPACE: _leave_network(),
        Protection.OTHER_USER: _become_nobody(),
        Protection.RESOURCE_LIMITS: _limit(taken_already + memory_bytes, cpu_seconds),
        Protection.NO_NEW_PRIVILEGES: system.forbid_new_privileges(),
    }
    system.forbid_inspection()
    system.end_with(parent)
    granted[Protection.LANDLOCK] = landlock.deny_everything()
    granted[Protection.SECCOMP] = seccomp.allow_only_computing()
    return frozenset(protection for protection, is_granted in granted.items() if is_granted)


def protections() -> frozenset[Protection]:
    """What applies on this machine to this user; found out by a process that confines itself."""
    command = [sys.executable, "-P", "-m", "folkmoot.sandbox.confinement"]
    done = subprocess.run(  # noqa: S603 (our own module)
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), cwd="/"
    )
    return frozenset(map(Protection, json.loads(done.stdout)))


def _be_ended_first() -> None:
    """Where the host's memory runs out, the kernel is to end this process rather than the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _leave_network() -> bool:
    namespaces = system.CLONE_NEWNET | system.CLONE_NEWIPC
    return system.unshare(namespaces) or system.unshare(namespaces | system.CLONE_NEWUSER)


def _become_nobody() -> bool:
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return False
    return True


def _limit(address_space: int, cpu_seconds: int) -> bool:
    bounds = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    granted = [_bound(kind, most) for kind, most in bounds.items()]  # all of them, also after one that is refused
    return all(granted)


def _bound(kind: int, most: int) -> bool:
    hard = resource.getrlimit(kind)[1]
    lowest = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (lowest, lowest))
    except (OSError, ValueError):
        return False
    return True


def _address_space() -> int:
    """Torch maps a lot that it never touches, so the limit counts from there."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    defaults = SandboxLimits()
    applied = confine(memory_bytes=defaults.memory_bytes, cpu_seconds=defaults.cpu_seconds, parent=os.getppid())
    sys.stdout.write(json.dumps(sorted(applied)))
