"""Real servers for tests to kill, real participants to work for them, and the one way of waiting for either."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from brokers import Broker

import warm
from folkmoot.client import Hub, Participant
from folkmoot.tensors import Tensors, open_tensors, write_tensors

QUICK = {
    "FOLKMOOT_LEASE_SECONDS": "1",
    "FOLKMOOT_SWEEP_SECONDS": "0.4",
    "FOLKMOOT_RETRY_SECONDS": "0.1",
}
PASSWORD = "canary-7f1e94-password"
# A connection for each request: none is left over from a server that was killed.
HTTP = httpx2.Client(
    timeout=30, trust_env=False, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0)
)
PARTICIPANT = Path(__file__).parent / "participant.py"
NAMES = ("ann", "ben", "cat", "dan", "eva", "fay", "gus", "hal")


def wait_until(condition: Callable[[], Any], what: str, *, seconds: float = 30) -> Any:
    """Return what `condition` returns once that is true; fail, naming what was awaited, after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.15)  # or the asking slows down what is asked about
    return found


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make all calls at the same moment, each in a thread of its own; return their results in order."""
    barrier = threading.Barrier(len(calls))

    def together(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(together, calls))


@dataclass
class Place:
    """What outlives a server: its data folder, its database if that is not in there, and everything it has logged."""

    folder: Path
    database_url: str = ""
    broker: Broker | None = None
    secrets: list[str] = field(default_factory=list)
    """Tokens and passwords that must not be found anywhere in it."""
    accepted: list[dict[str, Any]] = field(default_factory=list)
    """The updates that the server has answered with 2xx."""
    expected_in_log: list[str] = field(default_factory=list)
    """Patterns of what may be in the log although it has a traceback."""

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def blobs(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def sqlite(self) -> Path:
        return self.data_dir / "folkmoot.sqlite3"

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def incoming(self) -> list[str]:
        return [path.name for path in (self.blobs / "incoming").glob("*")]

    def environment(self, **settings: str) -> dict[str, str]:
        """For a process that is to work on this place."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
        here = {"FOLKMOOT_DATA_DIR": str(self.data_dir), "FOLKMOOT_DATABASE_URL": self.database_url}
        return {**ours, **QUICK, **here, **(self.broker.environment if self.broker else {}), **settings}


class Process:
    """A command of folkmoot at work on a place, with all processes that it starts."""

    _numbers = itertools.count()

    def __init__(self, place: Place, command: str, *arguments: str, first_line: str, **settings: str) -> None:
        self.place = place
        self._command = (command, "--data-dir", str(place.data_dir), *arguments)
        self._first_line = first_line
        self._settings = settings
        self.process: subprocess.Popen[bytes] | warm.Process | None = None

    def start(self, *, fault: str = "", **settings: str) -> None:
        """Return once it works; `fault` is the point at which it is to die, as by `kill -9`."""
        self.launch(fault=fault, **settings)
        self.wait_until_ready()

    def launch(self, *more: str, fault: str = "", **settings: str) -> None:
        """Start it and do not wait."""
        self.place.data_dir.mkdir(parents=True, exist_ok=True)
        self._log = self.place.folder / f"{next(self._numbers):03d}.log"
        environment = self.place.environment(FOLKMOOT_TEST_FAULT=fault, **self._settings, **settings)
        with self._log.open("wb") as log:
            self.process = _started([*self._command, *more], environment, log.fileno())

    def wait_until_ready(self) -> str:
        """Return what it has logged by then."""
        wait_until(lambda: self._first_line in self.log or self.has_died(), "the first line", seconds=60)
        started = self.log
        assert self._first_line in started, f"it did not start:\n{started}"
        return started

    @property
    def log(self) -> str:
        """What it has logged since it was started last."""
        return self._log.read_text()

    def has_died(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def wait_for_death(self) -> None:
        """It was to die at a fault point; see that it did, and of that."""
        wait_until(self.has_died, "the process to die at its fault point", seconds=60)
        assert self.process is not None
        assert self.process.returncode == -signal.SIGKILL, self.place.log

    def kill(self) -> None:
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def kill_and_start(self, *, fault: str = "") -> None:
        self.kill()
        self.start(fault=fault)

    def terminate(self, *, seconds: float = 30) -> int:
        """Ask it to stop, as a service manager does; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=seconds)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep it from doing anything: what is on the disk is what a power cut at this moment would leave."""
        self._signal(signal.SIGSTOP)
        try:
            wait_until(self._is_stopped, "the process to freeze")
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _is_stopped(self) -> bool:
        assert self.process is not None
        return ") T " in Path(f"/proc/{self.process.pid}/stat").read_text()


READ_AT_START = ("LD_PRELOAD", "PYTHONPATH")
"""What a fork of a process that has begun would not notice."""


def _started(command: list[str], environment: dict[str, str], log: int) -> subprocess.Popen[bytes] | warm.Process:
    if all(environment.get(name) == os.environ.get(name) for name in READ_AT_START):
        return warm.start(command, env=environment, prints=log)
    cold = [sys.executable, "-c", "from folkmoot.cli import main; main()", *command]
    return subprocess.Popen(cold, stdout=log, stderr=log, env=environment, start_new_session=True)


class Server(Process):
    """`folkmoot serve`. Started again it has the same port, so that whoever speaks to it finds it again."""

    def __init__(self, place: Place, **settings: str) -> None:
        super().__init__(place, "serve", first_line=" is serving at ", **settings)
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def launch(self, *more: str, fault: str = "", **settings: str) -> None:
        super().launch(*more, "--port", str(self._port), fault=fault, **settings)

    def wait_until_ready(self) -> str:
        started = super().wait_until_ready()
        self._port = int(started.split(self._first_line)[1].split()[0].rpartition(":")[2])
        return started


class Crew(Process):
    """A command that ends with any of its processes."""

    def wait_for_death(self) -> None:
        wait_until(self.has_died, "one of the processes to die at its fault point", seconds=60)
        assert "ended (SIGKILL)" in self.log, self.place.log


class Worker(Crew):
    """`folkmoot worker`, of all lanes unless `arguments` name some."""

    def __init__(self, place: Place, *arguments: str, **settings: str) -> None:
        super().__init__(place, "worker", *arguments, first_line="Folkmoot is working for ", **settings)


class Beat(Crew):
    """`folkmoot beat`."""

    def __init__(self, place: Place, **settings: str) -> None:
        super().__init__(place, "beat", first_line="Folkmoot is keeping time for ", **settings)


@dataclass(frozen=True)
class Account:
    name: str
    id: str
    token: str

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Token {self.token}"}


@dataclass(frozen=True)
class Template:
    """A place where everybody has registered, to be copied: the same users, with the same ids, for every test."""

    place: Place
    accounts: Mapping[str, Account]
    model_id: str


@dataclass
class World:
    """A server with its users, spoken to by plain HTTP."""

    server: Server
    accounts: Mapping[str, Account]
    model_id: str

    @property
    def place(self) -> Place:
        return self.server.place

    @property
    def actor(self) -> Account:
        return self.accounts["actor"]

    def participants(self, count: int) -> list[Account]:
        return [self.accounts[name] for name in NAMES[:count]]

    def call(self, who: Account | None, method: str, path: str, **request: Any) -> httpx2.Response:
        headers = (who.header if who else {}) | request.pop("headers", {})
        return HTTP.request(method, self.server.url + path, headers=headers, **request)

    def create_training(
        self,
        participants: Sequence[Account],
        *,
        rounds: int,
        model_id: str = "",
        uncertainty_method: str = "NONE",
        aggregation_method: str = "FedAvg",
        **options: Any,
    ) -> str:
        body = {
            "model_id": model_id or self.model_id,
            "target_num_updates": rounds,
            "aggregation_method": aggregation_method,
            "clients": [each.id for each in participants],
            "uncertainty_method": uncertainty_method,
            "options": options,
        }
        answer = self.call(self.actor, "POST", "/api/trainings/", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["training_id"])

    def let_all_begin_alike(self) -> None:
        """A model belongs to its first training; all further ones have copies, which begin where it never leaves."""
        self.create_training([], rounds=1)

    def start(self, training_id: str) -> None:
        answer = self.call(self.actor, "POST", f"/api/trainings/{training_id}/start/")
        assert answer.status_code == 202, answer.text

    def start_on_a_dying_server(self, training_id: str) -> None:
        """The start counts; the answer may be lost."""
        with contextlib.suppress(httpx2.TransportError):
            self.start(training_id)

    def started(self, participants: Sequence[Account], *, rounds: int, **options: Any) -> str:
        training_id = self.create_training(participants, rounds=rounds, **options)
        self.start(training_id)
        return training_id

    def training(self, training_id: str) -> dict[str, Any]:
        answer = self.call(self.actor, "GET", f"/api/trainings/{training_id}/")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def round_state(self, training_id: str, number: int) -> str:
        rounds = {each["number"]: each["state"] for each in self.training(training_id)["rounds"]}
        return str(rounds.get(number, ""))

    def wait_for_round(self, training_id: str, number: int, state: str = "OPEN") -> None:
        wait_until(lambda: self.round_state(training_id, number) == state, f"round {number} to be {state}")

    def wait_for_end(self, training_id: str, *, seconds: float = 30) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            training = self.training(training_id)
            return training if training["state"] not in "IOS" else None

        ended: dict[str, Any] = wait_until(over, "the training to end", seconds=seconds)
        assert ended["state"] == "C", ended["reason"]
        return ended

    def weights(self, training_id: str, round: int | None = None) -> tuple[dict[str, np.ndarray], bytes]:
        """The global model's tensors, and the file as it came."""
        model = self.training(training_id)["model"]
        query = {} if round is None else {"round": round}
        answer = self.call(self.actor, "GET", f"/api/models/{model}/", params=query)
        assert answer.status_code == 200, answer.text
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model")
            path.write_bytes(answer.content)
            return {name: np.array(tensor) for name, tensor in open_tensors(path).items()}, answer.content

    def update_of(self, who: Account, training_id: str, round: int) -> Outgoing:
        """What `who` makes of the model in this round."""
        return self.updates_of([who], training_id, round)[0]

    def updates_of(self, participants: Sequence[Account], training_id: str, round: int) -> list[Outgoing]:
        model = str(self.training(training_id)["model"])
        weights, _ = self.weights(training_id, round)
        files = {who.name: as_file(trained(weights, who.name, round)) for who in participants}
        return [
            Outgoing(who, model, training_id, round, files[who.name], num_examples(who.name)) for who in participants
        ]

    def send(self, update: Outgoing, **changes: Any) -> httpx2.Response:
        """Send an update; what is answered with 2xx is remembered, to be looked for afterwards."""
        answer = self.call(update.sender, "POST", f"/api/models/{update.model_id}/", **update.request(**changes))
        if answer.is_success:
            facts = {"training": update.training_id, "round": update.round, "participant": update.sender.id}
            self.place.accepted.append({**facts, "update_id": answer.json()["update_id"]})
        return answer

    def answer_test(self, who: Account, training_id: str) -> httpx2.Response:
        model = self.training(training_id)["model"]
        form = {"metric_names": ["accuracy"], "metric_values": ["0.5"]}
        return self.call(who, "POST", f"/api/models/{model}/metrics/", data=form)


@dataclass
class Production(World):
    """A world on PostgreSQL with a broker: `server` is a web process that handles no events; `worker` and `beat` do.

    Further processes of the same hub are `Server(place)`, `Worker(place)`, `Beat(place)`, which the test ends. What is
    killed is killed with all its processes; `worker.start(fault=...)` dies at that fault point wherever a handler comes
    to it, `server.start(fault=...)` where a request does. `place.broker` can be flushed.
    """

    worker: Worker
    beat: Beat

    def start_all(self) -> None:
        """Return once everything works."""
        for process in self.processes:
            process.launch()
        for process in self.processes:
            process.wait_until_ready()

    @property
    def processes(self) -> tuple[Process, ...]:
        return self.server, self.worker, self.beat

    def kill(self) -> None:
        for process in self.processes:
            process.kill()


@dataclass(frozen=True)
class Outgoing:
    """An update on its way to the server."""

    sender: Account
    model_id: str
    training_id: str
    round: int
    file: bytes
    num_examples: int | str = 10

    def request(self, **changes: Any) -> dict[str, Any]:
        fields = {"round": str(self.round), "sample_size": str(self.num_examples)}
        file = changes.pop("file", self.file)
        headers = changes.pop("headers", {})
        return {"data": fields | changes, "files": {"model_file": ("update", file)}, "headers": headers}


def initial_model() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1)
    return {"bias": np.float32(noise.normal(size=3)), "weight": np.float32(noise.normal(size=(4, 3)))}


def trained(weights: Tensors, name: str, round: int) -> dict[str, np.ndarray]:
    """Another model, of full float32 precision, that follows from the weights, the name and the round alone.

    The participants' ids are those of the template, and so the order in which updates are summed is the same in
    every run: two runs end with the same bytes, or something was lost, doubled or mixed up.
    """
    noise = np.random.default_rng([*name.encode(), round])
    return {key: np.float32(value * 0.9 + noise.normal(size=value.shape)) for key, value in weights.items()}


def moments(weights: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What a participant finds near the weights, as far as the tests are concerned."""
    flat = np.concatenate([np.ravel(weights[key]) for key in sorted(weights)]) + len(name)
    return np.float32(flat), np.float32(flat**2)


def num_examples(name: str) -> int:
    return 10 + 7 * NAMES.index(name)


def as_file(tensors: Tensors) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tensors")
        write_tensors(path, tensors)
        return path.read_bytes()


@contextlib.contextmanager
def at_work(world: World, accounts: Sequence[Account], programs: Sequence[Any]) -> Iterator[None]:
    """A participant for each account, in threads, with that program's `train` and, where it has one, `evaluate`."""
    apps = [Participant(Hub(world.server.url, each.token), draw=lambda: 0.1) for each in accounts]
    for app, program in zip(apps, programs, strict=True):
        app.train(program.train)
        if hasattr(program, "evaluate"):
            app.evaluate(program.evaluate)
    with ThreadPoolExecutor(len(apps)) as threads:
        running = [threads.submit(app.run) for app in apps]
        try:
            yield
        finally:
            for app in apps:
                app.stop()
    for each in running:
        each.result(timeout=30)


class Participants:
    """`folkmoot.client` at work, each in a thread of its own; what each was asked to train is kept."""

    def __init__(self, world: World, accounts: Sequence[Account]) -> None:
        self.trained: dict[str, list[int]] = {account.name: [] for account in accounts}
        # Little jitter: a test that restarts a server wants its participants back soon.
        self._apps = [self._participant(world, account) for account in accounts]
        self._threads = ThreadPoolExecutor(len(accounts))
        self._running = [self._threads.submit(app.run) for app in self._apps]

    def _participant(self, world: World, account: Account) -> Participant:
        app = Participant(Hub(world.server.url, account.token), draw=lambda: 0.1)

        @app.train
        def train(weights, task):
            self.trained[account.name].append(task.round)
            return trained(weights, account.name, task.round), num_examples(account.name), {"loss": 1.0}

        @app.evaluate
        def evaluate(weights, task):
            return num_examples(account.name), {"accuracy": 0.5}

        @app.swag
        def swag(weights, task):
            return *moments(weights, account.name), num_examples(account.name)

        return app

    def __enter__(self) -> Participants:
        return self

    def __exit__(self, *_: object) -> None:
        for app in self._apps:
            app.stop()
        for running in self._running:
            running.result(timeout=30)
        self._threads.shutdown()


@contextlib.contextmanager
def participant_process(world: World, account: Account, *, waits: bool) -> Iterator[subprocess.Popen[str]]:
    """A participant in a process of its own, which has loaded everything; with `waits` it never ends its training."""
    process = subprocess.Popen(
        [sys.executable, str(PARTICIPANT), account.name, "waits" if waits else "works"],
        env={**os.environ, "FOLKMOOT_URL": world.server.url, "FOLKMOOT_TOKEN": account.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


class Observer:
    """Someone who looks at a training all the time; what is seen never goes backwards (I6). A 503 shows nothing."""

    def __init__(self, world: World, training_id: str) -> None:
        self._world = world
        self._training_id = training_id
        self._over = threading.Event()
        self.seen: list[tuple[str, int, int, str]] = []
        self._refused: set[int] = set()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert self.seen == sorted(self.seen, key=_progress), self.seen
        assert self._refused <= {503}

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            with contextlib.suppress(httpx2.TransportError):
                self._look()

    def _look(self) -> None:
        answer = self._world.call(self._world.actor, "GET", f"/api/trainings/{self._training_id}/")
        if answer.is_success:
            self.seen.append(_what_is_in(answer.json()))
        else:
            self._refused.add(answer.status_code)


def _what_is_in(training: dict[str, Any]) -> tuple[str, int, int, str]:
    rounds = training["rounds"]
    last = rounds[-1] if rounds else {"state": "OPEN", "arrived": []}
    return training["state"], len(rounds), len(last["arrived"]), last["state"]


def _progress(seen: tuple[str, int, int, str]) -> tuple[int, int, int, int]:
    state, rounds, arrived, round_state = seen
    order = ("OPEN", "AGGREGATING", "SWAG", "MERGING", "TESTING", "CLOSED")
    # S is a part of O: a training goes from one to the other and back.
    return {"I": 0, "O": 1, "S": 1, "C": 2}[state], rounds, order.index(round_state), arrived


def play_round(world: World, accounts: Sequence[Account], training_id: str, number: int) -> None:
    """Let everybody send the update of a round, one after another."""
    for update in world.updates_of(accounts, training_id, number):
        assert world.send(update).is_success


def finish(world: World, accounts: Sequence[Account], training_id: str) -> dict[str, Any]:
    """Let `folkmoot.client` participants do what is left of the training."""
    with Participants(world, accounts):
        return world.wait_for_end(training_id)


def copy(template: Template, folder: Path, *, database_url: str = "", broker: Broker | None = None) -> Place:
    shutil.copytree(template.place.data_dir, folder / "data")
    return Place(folder, database_url, broker, list(template.place.secrets))


def make_template(place: Place) -> Template:
    """Let everybody register, and the actor upload a model."""
    world = World(Server(place), {}, "")
    world.server.start()

    def register(name: str) -> Account:
        answer = world.call(None, "POST", "/api/users/", json={"username": name, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return Account(name, answer.json()["id"], answer.json()["token"])

    names = ("actor", "stranger", *NAMES)
    accounts = {name: register(name) for name in names}
    place.secrets += [PASSWORD, *(account.token for account in accounts.values())]
    form = {"name": "toy", "description": "for tests"}
    files = {"model_file": ("toy.safetensors", as_file(initial_model()))}
    answer = world.call(accounts["actor"], "POST", "/api/models/", data=form, files=files)
    assert answer.status_code == 201, answer.text
    world.server.terminate()
    return Template(place, accounts, answer.json()["model_id"])
