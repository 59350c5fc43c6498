"""A list of the system calls that a model at work needs: memory, time, the line to the server. All others fail.

No file is opened, no socket made, no process or thread started, no signal sent, no memory shared.
Source: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Iterator
from typing import NamedTuple

from folkmoot.sandbox.system import filter_calls


class _Machine(NamedTuple):
    """`audit` is what the kernel calls it; the calls are numbers, by what they are for."""

    audit: int
    allowed: tuple[int, ...]
    fcntl: int
    clone3: int


_X86_64 = _Machine(
    audit=0xC000003E,
    allowed=(
        *(202, 228, 0, 1, 47, 46, 45, 44),  # futex clock_gettime read write recvmsg sendmsg recvfrom sendto
        *(9, 10, 11, 25, 28, 12, 27),  # mmap mprotect munmap mremap madvise brk mincore
        *(19, 20, 17, 3, 5, 262, 8, 32),  # readv writev pread64 close fstat newfstatat lseek dup
        *(13, 14, 15, 131, 219),  # rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
        *(7, 271, 23, 270, 55, 51, 48),  # poll ppoll select pselect6 getsockopt getsockname shutdown
        *(24, 204, 309, 239, 324),  # sched_yield sched_getaffinity getcpu get_mempolicy membarrier
        *(39, 186, 110, 102, 107, 104, 108),  # getpid gettid getppid getuid geteuid getgid getegid
        *(229, 230, 35, 96, 201, 98, 100),  # clock_getres clock_nanosleep nanosleep gettimeofday time getrusage times
        *(318, 99, 63, 273, 218, 334),  # getrandom sysinfo uname set_robust_list set_tid_address rseq
        *(60, 231),  # exit exit_group
    ),
    fcntl=72,
    clone3=435,
)
_AARCH64 = _Machine(
    audit=0xC00000B7,
    allowed=(
        *(98, 113, 63, 64, 212, 211, 207, 206),
        *(222, 226, 215, 216, 233, 214, 232),
        *(65, 66, 67, 57, 80, 79, 62, 23),
        *(134, 135, 139, 132, 128),
        *(73, 72, 209, 204, 210),
        *(124, 123, 168, 236, 283),
        *(172, 178, 173, 174, 175, 176, 177),
        *(114, 115, 101, 169, 165, 153),
        *(278, 179, 160, 99, 96, 293),
        *(93, 94),
    ),
    fcntl=25,
    clone3=435,
)
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}

# fcntl could make the kernel send signals; these only tell of descriptors and copy them.
_F_GETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 1, 3, 1030

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24  # offsets in struct seccomp_data
_KILL, _FAIL, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_OTHER_NUMBERING = 0x4000_0000  # x32, which has numbers of its own


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def allow_only_computing() -> bool:
    """Install the filter for good; False on a machine or a kernel that it is not for."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    instructions = [_Instruction(*each) for each in _filter(machine)]
    array = (_Instruction * len(instructions))(*instructions)
    return filter_calls(_Program(len(instructions), array))


def _filter(machine: _Machine) -> Iterator[tuple[int, int, int, int]]:
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _JUMP_IF_EQUAL, 1, 0, machine.audit
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER
    yield _JUMP_IF_AT_LEAST, 0, 1, _OTHER_NUMBERING
    yield _RETURN, 0, 0, _KILL
    for number in machine.allowed:
        yield from _when(number, _ALLOW)
    yield from _when(machine.clone3, _FAIL | errno.ENOSYS)  # then the C library tries the older call, and fails too
    yield _JUMP_IF_EQUAL, 1, 0, machine.fcntl
    yield _RETURN, 0, 0, _FAIL | errno.EPERM
    yield _LOAD, 0, 0, _SECOND_ARGUMENT
    for command in (_F_DUPFD_CLOEXEC, _F_GETFL, _F_GETFD):
        yield from _when(command, _ALLOW)
    yield _RETURN, 0, 0, _FAIL | errno.EPERM


def _when(value: int, action: int) -> Iterator[tuple[int, int, int, int]]:
    yield _JUMP_IF_EQUAL, 0, 1, value
    yield _RETURN, 0, 0, action
