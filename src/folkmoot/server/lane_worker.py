"""A process that is a Celery worker of one lane.

What Celery would load later is loaded here: before the fork, for all lanes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals
from celery.apps.worker import Worker
from celery.concurrency.thread import TaskPool
from celery.worker.consumer import Consumer

from folkmoot.server.inference.pool import close_sandbox
from folkmoot.server.outbox.celery import app, queue_of, stopping
from folkmoot.server.outbox.messenger import Messengers
from folkmoot.server.outbox.models import Lane
from folkmoot.server.outbox.worker import Sweeper
from folkmoot.server.process import GRACE_SECONDS


def job(lane: Lane, concurrency: int) -> Callable[[Callable[[], None]], None]:
    """What the process does until SIGTERM: so many events of the lane at once."""

    def run(ready: Callable[[], None]) -> None:
        def say_ready(**_: Any) -> None:
            ready()

        signals.setup_logging.connect(_leave_logging_alone)
        signals.worker_ready.connect(say_ready)
        signals.worker_shutting_down.connect(_stop)
        messengers, sweeper = Messengers(), Sweeper(of_machine=True)
        messengers.start()
        sweeper.start()
        # Threads: what takes long releases the interpreter, and the leases are renewed beside it.
        worker = Worker(
            app=app,
            pool_cls=TaskPool,
            consumer_cls=Consumer,
            queues=[queue_of(lane)],
            concurrency=concurrency,
            hostname=f"{lane}@%h",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        messengers.stop(grace=GRACE_SECONDS)
        sweeper.stop(grace=0)

    return run


def _stop(**_: Any) -> None:
    stopping.set()
    # So that nobody goes on waiting for a model.
    close_sandbox()


def _leave_logging_alone(**_: Any) -> None:
    """Whoever listens to this signal keeps Celery from setting up logging of its own."""
