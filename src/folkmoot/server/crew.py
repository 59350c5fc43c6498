"""The processes of `folkmoot worker`: a Celery worker for each lane, so that none waits for another, and the beat.

They are forks of one process that has everything loaded, and end together: when that is told to, or when one of them
ends by itself; whoever started it starts it again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

from folkmoot.errors import FolkmootError, Misconfigured
from folkmoot.sandbox.system import end_with
from folkmoot.server.process import GRACE_SECONDS, prepare

FORK = multiprocessing.get_context("fork")
BEAT = "beat"

Ready = Callable[[], None]
Job = Callable[[Ready], None]
"""What a process does until SIGTERM; it calls the function that it is given once it does it."""


class MemberEnded(FolkmootError):
    """One of the processes has ended although nobody had asked it to."""


@dataclass(frozen=True)
class Member:
    """One of the processes; from `ready` comes a message once it works."""

    name: str
    process: ForkProcess
    ready: Connection


def work(
    data_dir: Path,
    lanes: Sequence[str],
    *,
    concurrency: int | None = None,
    with_beat: bool = False,
    on_ready: Callable[[str], None],
) -> None:
    """Handle the events of these lanes (of all, if none is named) until SIGTERM or SIGINT.

    `concurrency` is how many of each lane at once; `on_ready` gets the broker's URL. Raises Misconfigured for what is
    wrong with the settings, MemberEnded if one of the processes ends by itself.
    """
    broker_url = _set_up(data_dir, "folkmoot worker")
    jobs = _jobs_of(lanes, concurrency)
    if with_beat:
        jobs[BEAT] = _beat
    _supervise(jobs, lambda: on_ready(broker_url))


def beat(data_dir: Path, *, on_ready: Callable[[str], None]) -> None:
    """Look for what is overdue, and have workers handle it, until SIGTERM or SIGINT."""
    broker_url = _set_up(data_dir, "folkmoot beat")
    _supervise({BEAT: _beat}, lambda: on_ready(broker_url))


def _set_up(data_dir: Path, command: str) -> str:
    prepare(data_dir)
    from django.conf import settings
    from django.db import connections

    from folkmoot.server.broker import name_of
    from folkmoot.server.storage import get_storage

    if not settings.BROKER_URL:
        raise Misconfigured(
            f"{command} needs a FOLKMOOT_BROKER_URL, such as redis://host:6379/0; without one folkmoot serve does all"
        )
    get_storage().prepare()
    connections.close_all()  # none is shared between processes
    return name_of(settings.BROKER_URL)


def _jobs_of(lanes: Sequence[str], concurrency: int | None) -> dict[str, Job]:
    from folkmoot.server import lane_worker
    from folkmoot.server.outbox.models import Lane
    from folkmoot.server.outbox.worker import THREADS

    for name in lanes:
        if name not in Lane.values:
            raise Misconfigured(f"there is no lane {name!r}; there are {', '.join(Lane.values)}")
    chosen = [lane for lane in Lane if lane in lanes or not lanes]
    return {lane.value: lane_worker.job(lane, concurrency or THREADS[lane]) for lane in chosen}


def _beat(ready: Ready) -> None:
    from folkmoot.server.outbox.messenger import Messengers
    from folkmoot.server.outbox.worker import Sweeper

    told_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_stop.set())
    parts = (Messengers(), Sweeper())
    for part in parts:
        part.start()
    ready()
    told_to_stop.wait()
    for part in parts:
        part.stop(grace=GRACE_SECONDS)


class _ToldToStop(BaseException):
    """By SIGTERM or SIGINT."""


def _supervise(jobs: Mapping[str, Job], on_ready: Callable[[], None]) -> None:
    members = [_start(name, job) for name, job in jobs.items()]
    try:
        with _signals_raise():
            _watch(members, on_ready)
    except _ToldToStop:
        pass
    finally:
        _end(members)


def _start(name: str, job: Job) -> Member:
    reading, writing = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_run, args=(job, os.getpid(), writing), name=name)
    process.start()
    writing.close()
    return Member(name, process, reading)


def _run(job: Job, parent: int, ready: Connection) -> None:
    end_with(parent)
    job(lambda: ready.send(True))


def _watch(members: Sequence[Member], on_ready: Callable[[], None]) -> None:
    """Return never: what ends this is a signal, or the end of a member."""
    awaited = {member.ready for member in members}
    while True:
        happened = wait([*awaited, *(member.process.sentinel for member in members)])
        for member in members:
            if member.process.sentinel in happened:
                raise MemberEnded(f"the process of {member.name} ended ({_how(member.process)})")
        if awaited:
            awaited.difference_update(happened)
            if not awaited:
                on_ready()


def _how(process: ForkProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(members: Sequence[Member]) -> None:
    for member in members:
        member.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for member in members:
        member.process.join(max(0.0, deadline - time.monotonic()))
        member.process.kill()
        member.process.join()


@contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # the members are told already
        raise _ToldToStop

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    yield
