"""Celery, the alarm clock of the workers: a task says which lane to look at, and the database says what is to be done.

A lane is a queue, so that each has workers of its own. A message that is lost costs a sweep's time, one that comes
twice costs a query.
"""

from __future__ import annotations

import logging
import threading
import time

from celery import Celery
from django.conf import settings
from django.db import connections
from kombu import Exchange, Queue

from folkmoot.server import broker
from folkmoot.server.outbox.alarm import alarms
from folkmoot.server.outbox.events import handle_next_event
from folkmoot.server.outbox.models import Lane

logger = logging.getLogger(__name__)

TASK_SECONDS = 60
"""After which a task that still finds events leaves them to another: no broker waits for an answer for ever."""

stopping = threading.Event()
"""Set as this worker is told to end: it finishes the event at hand."""

app = Celery("folkmoot", set_as_current=False)
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_use_ssl=broker.tls(settings.BROKER_URL),
    broker_transport_options=broker.transport_options(settings.BROKER_URL),
    broker_connection_timeout=broker.CONNECT_SECONDS,
    # A worker waits for its broker, however long that is away; whoever sends does not.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


def queue_of(lane: Lane) -> str:
    return f"{settings.QUEUE_PREFIX}.{lane}"


# The exchange without a name has a binding for each queue that nobody can lose, not even a broker that was flushed.
app.conf.task_queues = [Queue(queue_of(lane), Exchange(""), routing_key=queue_of(lane)) for lane in Lane]


@app.task(name="folkmoot.handle_events")
def handle_events(lane: Lane) -> None:
    """Handle the lane's events until none is due."""
    until = time.monotonic() + TASK_SECONDS
    try:
        while handle_next_event(lane):
            if stopping.is_set() or time.monotonic() > until:
                alarms[lane].ring()  # for whoever comes next
                return
    except Exception:
        # Whatever it was, mostly the database that does not answer: the sweep will ask again.
        logger.exception("no event can be handled")
        connections.close_all()


def ask(lane: Lane) -> None:
    """Have a worker look at the lane; raises what the broker's library raises where that does not answer."""
    handle_events.apply_async((lane.value,), queue=queue_of(lane))
