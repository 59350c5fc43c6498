"""The demo from beginning to end: a server, its users, a training, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from folkmoot.client import Hub
from folkmoot.demo import digits, federation, network, server
from folkmoot.demo.children import Children
from folkmoot.demo.digits import Split
from folkmoot.demo.examples import Examples
from folkmoot.demo.federation import Federation, User
from folkmoot.demo.following import Following
from folkmoot.demo.interrupts import Interrupts
from folkmoot.demo.outcome import Outcome
from folkmoot.demo.participant import READY, train_one_round
from folkmoot.demo.screen import Screen
from folkmoot.demo.timing import said, timings
from folkmoot.errors import Misconfigured, Unavailable

RECIPE = network.Recipe()
PAUSE_SECONDS = 0.05
# More threads than one would only stand in each other's way, with matrices as small as these.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Options:
    """Without a `data_dir` everything is forgotten in the end."""

    participants: int = 3
    rounds: int = 5
    port: int = 0
    data_dir: Path | None = None


@dataclass(frozen=True)
class Finished:
    """A demo whose training is over and whose server still runs."""

    outcome: Outcome
    url: str
    actor: User
    keep_serving: Callable[[], None]


@contextmanager
def demo(options: Options, screen: Screen) -> Iterator[Finished]:
    """Run the demo; at the end of the block nothing of it is left but the data folder.

    Raises Interrupted for Ctrl-C, Misconfigured for options that are impossible here, and FolkmootError, in one
    sentence, if a process dies or the training fails.
    """
    started = time.monotonic()
    _check(options)
    with Interrupts() as interrupts, _temporary_folder(interrupts) as folder, _group(folder, interrupts) as servers:
        process = server.start(servers, options.data_dir or folder / "data", options.port)
        split = digits.split(digits.load_digits(), options.participants)
        alone = [_alone(share, number, options.rounds, split.held_out) for number, share in enumerate(split.shares, 1)]
        url = server.wait_until_ready(process, servers)
        users = federation.register(url, options.participants)
        with _group(folder, interrupts) as participants, Hub(url, users.actor.token) as hub:
            _start_participants(participants, users, split, url, folder)
            training_id = federation.create_training(
                hub, users.participants, rounds=options.rounds, recipe=RECIPE, folder=folder
            )
            hub.start(training_id)
            following = Following(hub, training_id, users, split, folder)
            with screen:
                training = following.until_final(screen, watched=(servers, participants))
        outcome = Outcome(
            state=training["state"],
            training_id=training_id,
            accuracy=following.accuracy,
            alone=alone,
            timings=timings(training["rounds"], participants.outputs),
            seconds=time.monotonic() - started,
        )
        yield Finished(outcome, url, users.actor, lambda: _keep_serving(servers))


def _check(options: Options) -> None:
    if not 2 <= options.participants <= digits.MAX_PARTICIPANTS:
        raise Misconfigured(f"--participants must be from 2 to {digits.MAX_PARTICIPANTS}, not {options.participants}")
    if options.rounds < 1:
        raise Misconfigured(f"--rounds must be at least 1, not {options.rounds}")


@contextmanager
def _temporary_folder(interrupts: Interrupts) -> Iterator[Path]:
    folder = TemporaryDirectory(prefix="folkmoot-demo-", ignore_cleanup_errors=True)
    try:
        yield Path(folder.name)
    finally:
        with interrupts.deferred():
            folder.cleanup()


@contextmanager
def _group(folder: Path, interrupts: Interrupts) -> Iterator[Children]:
    """Processes that end with the block."""
    children = Children(folder, interrupts)
    try:
        yield children
    except Unavailable:
        time.sleep(PAUSE_SECONDS)  # a server that was killed is gone a moment after its connections
        children.check()
        raise
    finally:
        with interrupts.deferred():
            children.stop()


def _alone(share: Examples, number: int, rounds: int, held_out: Examples) -> float:
    """The accuracy that a participant reaches with the same training on its own share, merged with nobody's."""
    weights = network.initial_weights(RECIPE.seed)
    for round in range(rounds):
        train_one_round(weights, share, RECIPE, round=round, number=number)
    return network.evaluate(weights, held_out)[1]


def _start_participants(children: Children, users: Federation, split: Split, url: str, folder: Path) -> None:
    """Start them, and wait until all are ready, so that no round is charged with the start of a process."""
    for number, (user, share) in enumerate(zip(users.participants, split.shares, strict=True), 1):
        path = folder / f"share-{number}.npz"
        share.save(path)
        # Their temporary files go with ours, even if they cannot remove them themselves.
        environment = {"FOLKMOOT_URL": url, "FOLKMOOT_TOKEN": user.token, "TMPDIR": str(folder), **ONE_THREAD}
        arguments = ["-m", "folkmoot.demo.participant", str(path), str(number)]
        children.start(f"participant-{number}", arguments, environment)
    while not all(any(word["event"] == READY for word in said(output)) for output in children.outputs):
        children.check()
        time.sleep(PAUSE_SECONDS)


def _keep_serving(servers: Children) -> None:
    while True:
        servers.check()
        time.sleep(PAUSE_SECONDS)
