"""The few variables that a process of the sandbox is started with; nothing of the server's own."""

from __future__ import annotations

import os
import sys


def environment() -> dict[str, str]:
    """Where Python finds its modules, and that libraries start no threads: a process with threads cannot be forked."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8", **threads}
