"""What a hub does when all participants send their updates at the same moment.

`folkmoot serve` in a process of its own, on SQLite with synchronous=FULL; the participants are connections of another
process, which all begin to send at once. Whoever is told 503 or 429 comes again after what `Retry-After` says. Prints
how long it took until all were accepted; how many were turned away how often, and without `Retry-After`; the answers
that were neither; how much more memory the hub took than after a first update, while they came and until the round
was closed; and of how many updates the round's model was made, by the training's manifest.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from common.figures import show
from common.hub import Account, Hub, populate, served
from common.plain_http import Answer, head, read_answer
from common.processes import MB, Watch, in_a_process, rss_anon
from common.training import create_training, ending, until_told, write_model

from folkmoot.client import Hub as Client

BLOCK_BYTES = 2**18
TURNED_AWAY = (429, 503)
BROKEN = 0
"""Stands for the status where the line breaks."""
PATIENCE = 2.0
"""The most seconds that a participant waits of its own accord, beyond what it is told: as ours does at first."""
MOST_SECONDS = 900


@dataclass(frozen=True)
class Case:
    """So many updates of so many MB."""

    updates: int
    megabytes: int

    def __str__(self) -> str:
        return f"{self.updates:,} updates of {self.megabytes} MB at once"

    @property
    def bytes(self) -> int:
        """What is on the disk in the end, and some more."""
        return (self.updates + 10) * self.megabytes * MB


FULL, QUICK = Case(1_000, 10), Case(60, 2)


def main() -> None:
    options = parse_arguments()
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * [resource.getrlimit(resource.RLIMIT_NOFILE)[1]])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if shutil.disk_usage(folder).free < options.case.bytes:
            sys.exit(f"{options.case} take {options.case.bytes / MB:,.0f} MB of the disk: see --folder and --case")
        measure(options.case, Path(folder))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} instead of {FULL}")
    parser.add_argument("--case", type=as_case, metavar="UPDATES,MB")
    parser.add_argument("--folder", type=Path, help="where the hub's data are, by default the system's temporary one")
    options = parser.parse_args()
    options.case = options.case or (QUICK if options.quick else FULL)
    return options


def as_case(text: str) -> Case:
    updates, megabytes = map(int, text.split(","))
    return Case(updates, megabytes)


def measure(case: Case, folder: Path) -> None:
    model = folder / "model.safetensors"
    write_model(model, case.megabytes)
    actor, first, *others = accounts = in_a_process(populate, folder / "hub", 1 + 1 + case.updates)
    with served(folder / "hub", accounts) as hub, Client(hub.url, actor.token) as client:
        training = create_training(client, model, 1, [first, *others])
        client.start(training)
        path = f"/api/models/{client.training(training)['model']}/update/?round=0&sample_size=1"
        alone = in_a_process(send_all, hub.address, path, model, [first.token])
        memory = rss_anon(hub.process.pid)
        with Watch([hub.process.pid]) as watch:
            together = in_a_process(send_all, hub.address, path, model, [each.token for each in others])
            grown = watch.most_memory([hub.process.pid]) - memory
            until_told(client, "TRAINING_FINISHED")
        tell(case, alone, together)
        show("  by how much the hub's memory (RssAnon) grew", grown, "MB", target=300)
        show("  until the round was closed", watch.most_memory([hub.process.pid]) - memory, "MB")
        show(
            "  updates in the round's model", in_round(hub, actor, training) - 1, "", target=case.updates, at_least=True
        )


@dataclass
class Outcome:
    """Seconds, and how often each status was answered; how many were turned away and not told for how long."""

    seconds: float
    statuses: Counter[int]
    untold: int = 0


def tell(case: Case, alone: Outcome, together: Outcome) -> None:
    statuses = together.statuses
    turned_away = sum(statuses[status] for status in TURNED_AWAY)
    show(f"{case.megabytes} MB alone", alone.seconds, "s")
    show(str(case), together.seconds, "s")
    show("  a second", case.updates * case.megabytes / together.seconds, "MB")
    show("  accepted", statuses[201], "", target=case.updates, at_least=True)
    show("  turned away for a while, for each that was accepted", turned_away / case.updates, "")
    show("  turned away without being told for how long", together.untold, "", target=1)
    show("  answered otherwise", statuses.total() - turned_away - statuses[201], "", target=1)


def in_round(hub: Hub, actor: Account, training: str) -> int:
    headers = {"Authorization": f"Token {actor.token}"}
    manifest = httpx2.get(f"{hub.url}/api/trainings/{training}/manifest/", headers=headers, timeout=60)
    return len(manifest.raise_for_status().json()["rounds"][0]["recipe"]["inputs"])


def send_all(address: tuple[str, int], path: str, model: Path, tokens: Sequence[str]) -> Outcome:
    resource.setrlimit(resource.RLIMIT_NOFILE, 2 * [resource.getrlimit(resource.RLIMIT_NOFILE)[1]])
    return asyncio.run(_send_all(address, path, model.read_bytes(), tokens))


async def _send_all(address: tuple[str, int], path: str, model: bytes, tokens: Sequence[str]) -> Outcome:
    outcome, began = Outcome(0, Counter()), time.perf_counter()
    async with asyncio.timeout(MOST_SECONDS):
        updates = (Update(path, token, model, number) for number, token in enumerate(tokens))
        await asyncio.gather(*(until_settled(address, update, outcome) for update in updates))
    outcome.seconds = time.perf_counter() - began
    return outcome


@dataclass(frozen=True)
class Update:
    """A participant's request; the bytes of the model are everybody's."""

    path: str
    token: str
    model: bytes
    number: int

    @property
    def head(self) -> bytes:
        about = {"Content_Type": "application/octet-stream", "Content_Length": len(self.model)}
        return head(f"PUT {self.path}", Authorization=f"Token {self.token}", **about)

    def blocks(self) -> Iterator[bytes | memoryview]:
        own = ending(self.number)
        shared = memoryview(self.model)[: -len(own)]
        yield from (shared[start : start + BLOCK_BYTES] for start in range(0, len(shared), BLOCK_BYTES))
        yield own


async def until_settled(address: tuple[str, int], update: Update, outcome: Outcome) -> None:
    while True:
        answer = await send(address, update)
        outcome.statuses[answer.status] += 1
        if answer.status not in (*TURNED_AWAY, BROKEN):
            return
        outcome.untold += answer.status != BROKEN and "retry-after" not in answer.headers
        await asyncio.sleep(float(answer.headers.get("retry-after", 0)) + PATIENCE * random.random())  # noqa: S311


async def send(address: tuple[str, int], update: Update) -> Answer:
    """Send it over a connection of its own, and stop when there is an answer: one that refuses comes before the end."""
    reader, writer = await asyncio.open_connection(*address)
    sending = asyncio.create_task(write(writer, update))
    try:
        return await read_answer(reader)
    except (OSError, EOFError):
        return Answer(BROKEN, {}, b"")
    finally:
        sending.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await sending
        writer.transport.abort()


async def write(writer: asyncio.StreamWriter, update: Update) -> None:
    writer.write(update.head)
    for block in update.blocks():
        writer.write(block)
        await writer.drain()


if __name__ == "__main__":
    main()
