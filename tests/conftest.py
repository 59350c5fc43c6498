"""`make test` runs twice: everything with hubs on SQLite, then the server's tests on PostgreSQL (see services.py).

Those marked `sqlite` are left out of the second.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # --import-mode=importlib does not

import services  # noqa: E402

SERVER = TESTS / "server"

# Else each of the many processes that tests start, and of those that run tests, compiles everything anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Until all tests are collected: what is there by then is never garbage, and half of the time would go into looking.
gc.disable()


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in whatever is run in the background; the programs of the tests would inherit that, and go on.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if services.ON_POSTGRES and (missing := services.missing()):
        outcome = "failed" if services.CI else "skipped"
        pytest.exit(f"the tests on PostgreSQL are {outcome}: {'; '.join(missing)}", returncode=int(services.CI))


def pytest_ignore_collect(collection_path):
    """On PostgreSQL, whatever the command names: the server's tests."""
    wanted = collection_path == SERVER or SERVER in collection_path.parents or collection_path in SERVER.parents
    return True if services.ON_POSTGRES and not wanted else None


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config, items):
    about_the_other = "sqlite" if services.ON_POSTGRES else "postgres"
    elsewhere = [item for item in items if item.get_closest_marker(about_the_other)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def pytest_terminal_summary(terminalreporter):
    """Print the seeds of what was random, whichever process ran it."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    told = {(report.nodeid, *fact) for report in reports for fact in getattr(report, "user_properties", ())}
    for test, name, value in sorted(told):
        if name == "FOLKMOOT_TEST_SEED":
            terminalreporter.write_line(f"{name}={value}  {test}")
