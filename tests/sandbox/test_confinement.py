"""What a process gives up, and that it is much the same for a server that is not root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap

import pytest

from folkmoot.sandbox import Protection, protections

_PR_CAPBSET_DROP = 24


def run_without_capabilities(program):
    """As root has no more rights than anybody else. (Nobody's own account may be unable to read this Python.)"""
    libc = ctypes.CDLL(None)

    def drop():
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=drop,
    )
    return done.stdout


def test_limits_and_no_new_privileges_apply_everywhere():
    assert protections() >= {Protection.RESOURCE_LIMITS, Protection.NO_NEW_PRIVILEGES}


def test_an_ordinary_user_lacks_the_other_user_and_at_most_the_namespace():
    program = "from folkmoot.sandbox import protections; print(*(each.name for each in protections()))"

    granted = {Protection[name] for name in run_without_capabilities(program).split()}

    assert Protection.OTHER_USER not in granted
    assert protections() - granted <= {Protection.OTHER_USER, Protection.NETWORK_NAMESPACE}


def test_an_ordinary_users_models_cannot_kill_the_servers_processes(granted, tmp_path):
    """They run as the same user, who may."""
    torch = pytest.importorskip("torch")
    if Protection.SECCOMP not in granted:
        pytest.skip("this machine has no seccomp")
    from hostile_layers import Hostile

    torch.save(Hostile("kill_parent"), tmp_path / "model")
    program = f"""
        import numpy as np
        from pathlib import Path
        from folkmoot.errors import ModelFailed
        from folkmoot.sandbox import *
        with Sandbox(torch_classes=["hostile_layers.Hostile"]) as sandbox:
            path = Path({str(tmp_path / "model")!r})
            try:
                sandbox.predict(SandboxModel("ada", ModelPart("1", path)), np.ones((1, 2)))
            except ModelFailed as error:
                print(error.message)
    """

    assert "PermissionError" in run_without_capabilities(program)
