"""How many participants one server process can have waiting, and how fast it tells them.

`folkmoot serve` in a process of its own, on SQLite with synchronous=FULL; the participants are connections of this
process. Prints authenticated polls per second that find nothing new; the memory and the open database files of a server
that holds a long poll of each participant; how long it takes from the start of a training until all of them have read
that they are asked; and how long 10,000 notifications take to be written in one transaction.
"""

# ruff: noqa: S101 (it looks at what it gets)

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from common.figures import show
from common.hub import Account, Hub, populate, served
from common.processes import rss_anon

RECIPIENTS = 10_000
FULL, QUICK = 5_000, 500
CONNECTIONS = 32
SECONDS = 10
WRITTEN_BEFORE = 1
"""The number of the notification that everybody has already."""


def open_databases(hub: Hub) -> int:
    """How often the database's file is open: once for each connection to it."""
    links = (entry.readlink() for entry in Path(f"/proc/{hub.process.pid}/fd").iterdir() if entry.is_symlink())
    return sum(link.name == "folkmoot.sqlite3" for link in links)


def main() -> None:
    options = parse_arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * [resource.getrlimit(resource.RLIMIT_NOFILE)[1]])
    with tempfile.TemporaryDirectory() as folder:
        accounts = populate(Path(folder), max(RECIPIENTS, options.participants))
        wrote = writing(RECIPIENTS)
        with served(Path(folder), accounts) as hub:
            training = create_training(hub, options.participants)
            asyncio.run(measure(hub, training, options))
    show(f"{RECIPIENTS:,} notifications written", wrote, "s", target=3)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} participants instead of {FULL:,}")
    parser.add_argument("--participants", type=int)
    parser.add_argument("--seconds", type=float, help="for how long polls are counted")
    options = parser.parse_args()
    options.participants = options.participants or (QUICK if options.quick else FULL)
    options.seconds = options.seconds or (SECONDS / 5 if options.quick else SECONDS)
    return options


def writing(count: int) -> float:
    """Seconds to tell so many users something, in one transaction; its commit included."""
    from django.db import transaction

    from folkmoot.protocol.notifications import NotificationType
    from folkmoot.server.accounts.models import User
    from folkmoot.server.notifications.delivery import Message, deliver

    recipients = list(User.objects.order_by("pk").values_list("pk", flat=True)[:count])
    message = Message(NotificationType.CLIENT_REMOVED, recipients[0], {"text": "measured"})
    began = time.perf_counter()
    with transaction.atomic():
        deliver(message, recipients)
    return time.perf_counter() - began


def create_training(hub: Hub, participants: int) -> str:
    from safetensors.numpy import save

    clients = [account.id for account in hub.accounts[:participants]]
    with httpx2.Client(base_url=hub.url, headers=authorization(hub.accounts[0]), timeout=120) as http:
        file = {"model_file": save({"w": np.zeros(2, "f4")})}
        model = http.post("/api/models/", data={"name": "m", "description": "d"}, files=file).raise_for_status().json()
        plan = {"target_num_updates": 1, "aggregation_method": "FedAvg", "clients": clients}
        training = http.post("/api/trainings/", json={"model_id": model["model_id"], **plan}).raise_for_status()
    return str(training.json()["training_id"])


async def measure(hub: Hub, training: str, options: argparse.Namespace) -> None:
    count = await polls_per_second(hub, options.seconds)
    show("polls a second that find nothing new", count, "", target=1000, at_least=True)
    polls = [asyncio.create_task(told(hub, each.token)) for each in hub.accounts[: options.participants]]
    await asyncio.to_thread(hub.until_held, len(polls))
    show(f"memory (RssAnon) with {len(polls):,} long polls held", rss_anon(hub.process.pid), "MB", target=500)
    show("connections to the database meanwhile", open_databases(hub), "")
    began = time.perf_counter()
    await asyncio.to_thread(start, hub, training)
    await asyncio.gather(*polls)
    show(f"until the last of {len(polls):,} has read that it is asked", time.perf_counter() - began, "s", target=5)
    show("memory (RssAnon) afterwards", rss_anon(hub.process.pid), "MB")


async def polls_per_second(hub: Hub, seconds: float) -> float:
    """By connections that are kept, each asking again as soon as it has its answer."""
    ends = time.perf_counter() + seconds
    counts = await asyncio.gather(*(ask_until(hub, each.token, ends) for each in hub.accounts[:CONNECTIONS]))
    return sum(counts) / seconds


async def ask_until(hub: Hub, token: str, ends: float) -> int:
    reader, writer = await asyncio.open_connection(*hub.address)
    count = 0
    while time.perf_counter() < ends:
        assert not (await poll(reader, writer, token, wait=0))["notifications"]
        count += 1
    writer.close()
    return count


async def told(hub: Hub, token: str) -> None:
    """Wait in long polls until there is something."""
    reader, writer = await asyncio.open_connection(*hub.address)
    while not (await poll(reader, writer, token, wait=60))["notifications"]:
        pass
    writer.close()


async def poll(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, *, wait: int) -> dict[str, Any]:
    path = f"/api/notifications/?after={WRITTEN_BEFORE}&wait={wait}"
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Token {token}\r\n\r\n"
    writer.write(head.encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answer.startswith(b"http/1.1 200"), answer
    length = int(answer.split(b"content-length:")[1].split()[0])
    return dict(json.loads(await reader.readexactly(length)))


def start(hub: Hub, training: str) -> None:
    headers = authorization(hub.accounts[0])
    httpx2.post(f"{hub.url}/api/trainings/{training}/start/", headers=headers, timeout=60).raise_for_status()


def authorization(account: Account) -> dict[str, str]:
    return {"Authorization": f"Token {account.token}"}


if __name__ == "__main__":
    main()
