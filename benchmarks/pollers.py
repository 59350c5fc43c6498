"""How a hub answers very many who ask again and again whether there is work, and what uploads take meanwhile.

`folkmoot serve` in a process of its own, on SQLite with synchronous=FULL; the pollers are connections of another
process, each of which asks every few seconds with the ETag of the answer that it has. Prints the polls a second; the
99th percentile of the seconds from when a poll is due until it is answered; how many were answered otherwise than by
304; the hub's processor time for a poll, and by how much its memory still grew; the median time of an update that a
participant sends, without pollers and with them; and how many of those who come beyond FOLKMOOT_MAX_POLLS, while so
many polls are held, are told by 429 when to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import numpy as np
from common.figures import show
from common.hub import Account, Hub, populate, served
from common.plain_http import Answer, head, read_answer
from common.processes import in_a_process, processor_seconds, rss_anon
from common.training import create_training, ending, until_told, write_model

from folkmoot.client import Hub as Client

BEYOND = 100
CONNECTING = 100
"""So many connect at a time."""
WAIT_SECONDS = 60
MOST_SECONDS = 300
"""For any one step."""


@dataclass(frozen=True)
class Plan:
    """So many ask every so many seconds, for so many seconds; so many updates of so many MB are sent meanwhile."""

    pollers: int
    every: float
    seconds: float
    updates: int
    megabytes: int


FULL, QUICK = Plan(10_000, 10, 30, 20, 10), Plan(500, 2, 4, 5, 1)


def main() -> None:
    plan = parse_arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * [resource.getrlimit(resource.RLIMIT_NOFILE)[1]])
    with tempfile.TemporaryDirectory() as folder:
        # One participant's update never comes: the round stays open.
        senders = 1 + 2 * plan.updates + 1
        accounts = in_a_process(populate, Path(folder, "hub"), senders + plan.pollers + BEYOND)
        with served(Path(folder, "hub"), accounts, FOLKMOOT_MAX_POLLS=str(plan.pollers)) as hub:
            uploads = prepare_uploads(hub, accounts[:senders], Path(folder, "model"), plan.megabytes)
            measure(hub, uploads, accounts[senders:], plan)


def parse_arguments() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.pollers:,} pollers instead of {FULL.pollers:,}")
    parser.add_argument("--pollers", type=int)
    parser.add_argument("--every", type=float, metavar="SECONDS", help="how often each asks")
    options = parser.parse_args()
    usual = QUICK if options.quick else FULL
    pollers, every = options.pollers or usual.pollers, options.every or usual.every
    return Plan(pollers, every, max(usual.seconds, 2 * every), usual.updates, usual.megabytes)


@dataclass(frozen=True)
class Upload:
    """An update that is still to be sent."""

    hub: Hub
    account: Account
    model_id: str
    path: Path

    def seconds(self, number: int) -> float:
        """Send it, and say how long that took."""
        with self.path.open("r+b") as file:
            file.seek(-len(ending(number)), 2)
            file.write(ending(number))
        with Client(self.hub.url, self.account.token) as client:
            began = time.perf_counter()
            client.upload_update(self.model_id, 0, 1, self.path, {})
            return time.perf_counter() - began


def prepare_uploads(hub: Hub, accounts: Sequence[Account], model: Path, megabytes: int) -> list[Upload]:
    """One for each participant of a training whose round is open, but the last."""
    actor, *participants = accounts
    write_model(model, megabytes)
    with Client(hub.url, actor.token) as client:
        training = create_training(client, model, 1, participants)
        client.start(training)
        model_id = client.training(training)["model"]
    with Client(hub.url, participants[0].token) as client:
        until_told(client, "UPDATE_ROUND_START")
    return [Upload(hub, account, model_id, model) for account in participants[:-1]]


def measure(hub: Hub, uploads: Sequence[Upload], accounts: Sequence[Account], plan: Plan) -> None:
    alone = statistics.median(upload.seconds(number) for number, upload in enumerate(uploads[: plan.updates]))
    with polling(hub, accounts[: plan.pollers], plan) as pipe:
        received(pipe)
        used = processor_seconds(hub.process.pid)
        pipe.send("go")
        taken, memory = zip(*spread(uploads[plan.updates :], plan), strict=True)
        among, halfway = statistics.median(taken), memory[len(memory) // 2]
        latencies = np.array(received(pipe))
        used = processor_seconds(hub.process.pid) - used
        answered = latencies[np.isfinite(latencies)]
        show(
            f"{plan.pollers:,} pollers, each every {plan.every:g} s: polls a second", len(latencies) / plan.seconds, ""
        )
        show("  99 % of them are answered within", float(np.percentile(answered, 99)), "s", target=2)
        show("  half of them within", float(np.percentile(answered, 50)), "s")
        show("  answered otherwise than by 304", len(latencies) - len(answered), "", target=1)
        show("  processor time of the hub for each, with the updates", used / len(latencies) * 1000, "ms")
        show("  memory (RssAnon) of the hub", max(memory), "MB")
        show("  by how much that grew in the second half", max(memory) - halfway, "MB", target=20)
        show(f"an update of {plan.megabytes} MB, with nobody polling", alone, "s")
        show("  with all of them polling", among, "s")
        show("  in times of that", among / alone, "", target=2)
        hub.until_held(plan.pollers)
        refused = asyncio.run(refusals(hub, accounts[plan.pollers :]))
        name = f"of {BEYOND} beyond {plan.pollers:,} that are held, told 429"
        show(name, refused, "", target=BEYOND, at_least=True)


def spread(uploads: Sequence[Upload], plan: Plan) -> Iterator[tuple[float, float]]:
    """Send them one after the other while the pollers ask, but in their last moments; seconds, and the hub's memory."""
    pause = 0.8 * plan.seconds / len(uploads)
    for number, upload in enumerate(uploads):
        taken = upload.seconds(len(uploads) + number)
        yield taken, rss_anon(upload.hub.process.pid)
        time.sleep(max(pause - taken, 0))


@contextmanager
def polling(hub: Hub, accounts: Sequence[Account], plan: Plan) -> Iterator[Pipe]:
    """A process that asks as all of them: says that it can begin, and waits; says how it went, and asks to be held."""
    spawn = get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=poll, args=(hub.address, [each.token for each in accounts], plan, its), daemon=True)
    process.start()
    its.close()
    try:
        yield mine
    finally:
        process.terminate()
        process.join()


def received(pipe: Pipe) -> list[float]:
    if not pipe.poll(MOST_SECONDS):
        raise TimeoutError("the pollers have not come as far as they should")
    return list(pipe.recv())


def poll(address: tuple[str, int], tokens: Sequence[str], plan: Plan, pipe: Pipe) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * [resource.getrlimit(resource.RLIMIT_NOFILE)[1]])
    asyncio.run(poll_all([Poller(address, token) for token in tokens], plan, pipe))


async def poll_all(pollers: Sequence[Poller], plan: Plan, pipe: Pipe) -> None:
    gate = asyncio.Semaphore(CONNECTING)
    await asyncio.gather(*(poller.connect(gate) for poller in pollers))
    pipe.send([])
    pipe.recv()
    begins = asyncio.get_running_loop().time()
    asked = [
        poller.keep_asking(begins + plan.every * number / len(pollers), begins + plan.seconds, plan.every)
        for number, poller in enumerate(pollers)
    ]
    pipe.send([latency for latencies in await asyncio.gather(*asked) for latency in latencies])
    await asyncio.gather(*(poller.keep_waiting() for poller in pollers))


class Poller:
    """A participant's program: a connection that it keeps, and the ETag of the answer that it has."""

    def __init__(self, address: tuple[str, int], token: str) -> None:
        self._address = address
        self._token = token
        self._etag = ""

    async def connect(self, gate: asyncio.Semaphore) -> Answer:
        """Connect, and ask for the first time."""
        async with gate:
            await self._connect()
            return await self.ask()

    async def ask(self, *, wait: int = 0) -> Answer:
        known = {"If_None_Match": self._etag} if self._etag else {}
        path = f"/api/notifications/?after=0&wait={wait}"
        self._writer.write(head(f"GET {path}", Authorization=f"Token {self._token}", **known))
        answer = await read_answer(self._reader)
        self._etag = answer.headers.get("etag", self._etag)
        return answer

    async def keep_asking(self, first: float, ends: float, every: float) -> list[float]:
        """How long each answer took from when its question was due, infinity for one that is not 304."""
        now, latencies, due = asyncio.get_running_loop().time, [], first
        while due < ends:
            await asyncio.sleep(due - now())
            is_unchanged = await self._is_unchanged()
            latencies.append(now() - due if is_unchanged else math.inf)
            due += every
        return latencies

    async def keep_waiting(self) -> None:
        while True:
            await self.ask(wait=WAIT_SECONDS)

    async def _is_unchanged(self) -> bool:
        try:
            return (await self.ask()).status == 304
        except (OSError, EOFError):
            await self._connect()
            return False

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)


async def refusals(hub: Hub, accounts: Sequence[Account]) -> int:
    """How many of these are told when to come again."""
    pollers = [Poller(hub.address, account.token) for account in accounts]
    gate = asyncio.Semaphore(CONNECTING)
    async with asyncio.timeout(MOST_SECONDS):
        answers = await asyncio.gather(*(poller.connect(gate) for poller in pollers))
    return sum(answer.status == 429 and answer.headers["retry-after"].isdecimal() for answer in answers)


if __name__ == "__main__":
    main()
