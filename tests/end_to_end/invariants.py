"""What PROMISES.md says always holds, read off the database and the blobs themselves (I1 to I5 and I7)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from harness import Place

from folkmoot.aggregation import Update, aggregate_files, find_strategy
from folkmoot.tensors import Schema, TensorFile, open_tensors, write_tensors
from folkmoot.tensors.checksums import block_checksums
from folkmoot.tensors.layers import Layers, Selected

Row = dict[str, Any]

GRACE = timedelta(seconds=60)
"""How long after its deadline a round may still be open, however slow the machine."""
FINAL_ROUND_STATES = ("CLOSED", "FAILED")
AGGREGATED_ROUND_STATES = ("SWAG", "MERGING", "TESTING", "CLOSED")
REFERENCES = (
    ("registry_model", "template_sha256"),
    ("registry_checkpoint", "sha256"),
    ("registry_moments", "sha256"),
    ("trainings_update", "sha256"),
    ("trainings_swagstatistic", "sha256"),
)


def check_history(place: Place, *, failed: bool = False) -> None:
    """Assert the invariants; the server may be running. `failed`: trainings that ended in an error are expected."""
    with _snapshot(place) as database:
        tables = Tables(database)
    _check_accepted(tables, place)
    for training in tables.trainings:
        _check_rounds(tables, training, failed=failed)
        _check_aggregates(tables, training, place)
        _check_moments(tables, training, place)
    _check_checkpoints(tables, place)
    _check_blobs(tables, place)
    _check_secrets(place)


class Tables:
    """The rows that matter, all of one moment, with every id as a UUID in text."""

    def __init__(self, rows: Any) -> None:
        self.trainings = rows("SELECT * FROM trainings_training")
        self.rounds = rows("SELECT * FROM trainings_round ORDER BY training_id, number")
        self.cohorts = rows("SELECT * FROM trainings_round_cohort")
        self.updates = rows("SELECT * FROM trainings_update")
        self.handovers = rows("SELECT * FROM trainings_handover")
        self.statistics = rows("SELECT * FROM trainings_swagstatistic")
        self.moments = rows("SELECT * FROM registry_moments")
        self.models = rows("SELECT * FROM registry_model")
        self.checkpoints = rows("SELECT * FROM registry_checkpoint ORDER BY model_id, round")
        self.events = rows("SELECT * FROM outbox_event ORDER BY id")
        self.notifications = rows("SELECT * FROM notifications_notification ORDER BY recipient_id, number")

    def rounds_of(self, training: Row) -> list[Row]:
        return [each for each in self.rounds if each["training_id"] == training["id"]]

    def updates_in(self, current: Row) -> list[Row]:
        return [update for update in self.updates if update["round_id"] == current["id"]]

    def counted_in(self, current: Row) -> list[Row]:
        """With the number of the round that each began in."""
        numbers = {each["id"]: each["number"] for each in self.rounds}
        counted = (each for each in self.updates if each["counted_in_id"] == current["id"])
        return [{**each, "number": numbers[each["round_id"]]} for each in counted if each["status"] != "rejected"]

    def events_of(self, training: Row, kind: str) -> list[Row]:
        return [event for event in self.events if event["subject"] == training["id"] and event["kind"] == kind]


def read(place: Place, query: str) -> list[Row]:
    """The rows that a query finds, with every id as a UUID in text."""
    with _snapshot(place) as rows:
        return rows(query)


def _check_accepted(tables: Tables, place: Place) -> None:
    """I1: what was answered with 2xx is there, once, in the round it was sent for."""
    numbers = {each["id"]: (each["training_id"], each["number"]) for each in tables.rounds}
    stored = {(*numbers[each["round_id"]], each["participant_id"]): each["id"] for each in tables.updates}
    assert len(stored) == len(tables.updates), "a participant has two updates in one round"
    for answer in place.accepted:
        key = answer["training"], answer["round"], answer["participant"]
        assert stored.get(key) == answer["update_id"], f"answered with 2xx, and lost: {answer}"


def _check_rounds(tables: Tables, training: Row, *, failed: bool) -> None:
    """I3: numbers grow by one, one round at most is under way, none outlives its deadline, no event came twice."""
    rounds = tables.rounds_of(training)
    numbers = [each["number"] for each in rounds]
    first = numbers[0] if numbers else 0
    assert numbers == list(range(first, first + len(numbers))), numbers
    open_ones = [each for each in rounds if each["state"] not in FINAL_ROUND_STATES]
    assert open_ones in ([], rounds[-1:]), rounds
    assert training["state"] in ("IOSPCXE" if failed else "IOSPCX"), training["reason"]
    assert len(open_ones) == (training["state"] in "OSP"), (training["state"], rounds)
    collects = [each["state"] for each in open_ones].count("SWAG")
    assert training["state"] == "P" or collects == (training["state"] == "S"), training["state"]
    if training["state"] == "C":
        assert len(rounds) == training["target_num_updates"]
    now = datetime.now(UTC)
    overdue = [
        each
        for each in open_ones
        if each["state"] not in ("AGGREGATING", "MERGING") and _utc(each["closes_at"]) + GRACE < now
    ]
    assert not overdue, overdue
    told = {
        kind: [event["payload"]["round"] for event in tables.events_of(training, kind)]
        for kind in ("round_full", "round_closed")
    }
    assert told["round_closed"] == [each["number"] for each in rounds if each["state"] == "CLOSED"], told
    full = [each for each in rounds if each["state"] in ("AGGREGATING", *AGGREGATED_ROUND_STATES)]
    assert told["round_full"] == [each["number"] for each in full if not _is_passed_on(each)], told
    received = len(tables.events_of(training, "update_received"))
    assert received == sum(len(tables.updates_in(each)) for each in rounds), received
    assert len(tables.events_of(training, "training_finished")) == (training["state"] == "C")


def _check_aggregates(tables: Tables, training: Row, place: Place) -> None:
    """I1 and I2: each round's checkpoint is, byte for byte, what its updates make of the checkpoint before."""
    checkpoints = {each["round"]: each for each in tables.checkpoints if each["model_id"] == training["model_id"]}
    if not checkpoints:
        return  # the model was removed, with its files
    strategy = find_strategy(training["aggregation_method"], training["options"].get("aggregation", {}))
    done = [each for each in tables.rounds_of(training) if each["state"] in AGGREGATED_ROUND_STATES]
    _check_chain(tables, training)
    aggregated = [each for each in done if not _is_passed_on(each)]
    for current in aggregated:
        updates = tables.counted_in(current)
        cohort = {
            each["user_id"]
            for each in tables.cohorts
            if each["round_id"] == current["id"] and each["doing"] not in ("failed", "declined")
        }
        answered = {update["participant_id"] for update in updates}
        waits_for_all = not strategy.buffer and "min_updates" not in training["options"]
        assert cohort <= answered or not waits_for_all, "aggregated without all of the cohort"
        begun_with = checkpoints[max(number for number in checkpoints if number <= current["number"])]
        state = _blob(place, begun_with["state_sha256"]) if begun_with["state_sha256"] else None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            base = _travelling(begun_with, updates[0], folder / "base", place)
            output = folder / "state" if strategy.keeps_state else None
            inputs = [
                _as_stale_input(update, current, checkpoints, folder, place)
                if update["round_id"] != current["id"]
                else _as_input(update, place)
                for update in updates
            ]
            report = aggregate_files(strategy, base, inputs, folder / "expected", state=state, state_output=output)
        made = checkpoints[current["number"] + 1]
        assert made["sha256"] == report.sha256, f"round {current['number']}"
        assert made["state_sha256"] == (report.state.sha256 if report.state else ""), f"round {current['number']}"
    model = next(each for each in tables.models if each["id"] == training["model_id"])
    assert model["round"] == max(checkpoints), "the model's round is not its last checkpoint's"
    if aggregated:
        assert model["round"] == aggregated[-1]["number"] + 1


def _is_passed_on(current: Row) -> bool:
    """In daisy chaining: the round's updates were handed to others, and not aggregated."""
    return current["state"] == "CLOSED" and current["aggregated_at"] is None


def _period_of(tables: Tables, model_id: str) -> int:
    """How many rounds make a checkpoint."""
    training = next((each for each in tables.trainings if each["model_id"] == model_id), None)
    return max(training["options"].get("daisy_chain_period", 1), 1) if training else 1


def _check_chain(tables: Tables, training: Row) -> None:
    """I1 for daisy chaining: what is passed on is handed over in the next round, once to each, none its own."""
    period = _period_of(tables, training["model_id"])
    rounds = tables.rounds_of(training)
    for place, (current, following) in enumerate(pairwise(rounds), start=1):
        dealt = [each for each in tables.handovers if each["round_id"] == following["id"]]
        assert bool(dealt) == _is_passed_on(current) == (place % period > 0), current
        owners = {update["id"]: update["participant_id"] for update in tables.updates_in(current)}
        cohort = {each["user_id"] for each in tables.cohorts if each["round_id"] == following["id"]}
        assert not dealt or cohort <= {each["participant_id"] for each in dealt}
        assert all(owners[each["update_id"]] != each["participant_id"] for each in dealt) or len(owners) == 1
        if dealt and cohort == set(owners.values()):
            assert len({each["update_id"] for each in dealt}) == len(owners), "a local model was lost on its way"


def _check_moments(tables: Tables, training: Row, place: Place) -> None:
    """I1 and I2 for SWAG: a checkpoint's moments are, byte for byte, what its statistics make."""
    checkpoints = {each["id"]: each["round"] for each in tables.checkpoints if each["model_id"] == training["model_id"]}
    merged = {
        checkpoints[each["checkpoint_id"]]: each for each in tables.moments if each["checkpoint_id"] in checkpoints
    }
    for current in tables.rounds_of(training):
        statistics = [each for each in tables.statistics if each["round_id"] == current["id"] and each["sha256"]]
        done = bool(statistics) and current["state"] in ("TESTING", "CLOSED")
        assert (current["number"] + 1 in merged) == done, (current, len(statistics))
        if done:
            inputs = [_as_input(each, place) for each in statistics]
            with tempfile.TemporaryDirectory() as folder:
                expected = aggregate_files(find_strategy("FedAvg", {}), inputs[0].path, inputs, Path(folder, "moments"))
            assert merged[current["number"] + 1]["sha256"] == expected.sha256


def _check_checkpoints(tables: Tables, place: Place) -> None:
    """I2 and I5: one a round, finite, with the tensors of the first."""
    for model, group in groupby(tables.checkpoints, key=lambda each: each["model_id"]):
        checkpoints = list(group)
        rounds = [each["round"] for each in checkpoints]
        period = _period_of(tables, model)
        assert rounds == [rounds[0] + period * number for number in range(len(rounds))], (model, rounds)
        opened = [_tensors_of(each, place) for each in checkpoints]
        assert all(np.isfinite(tensor).all() for tensors in opened for tensor in tensors.values())
        assert all(Schema.of(tensors) == Schema.of(opened[0]) for tensors in opened)


def _check_blobs(tables: Tables, place: Place) -> None:
    """I4: no row points to nothing, and every blob has the name of its bytes."""
    rows = {"registry_model": tables.models, "registry_checkpoint": tables.checkpoints}
    rows |= {"trainings_update": tables.updates, "registry_moments": tables.moments}
    rows["trainings_swagstatistic"] = [each for each in tables.statistics if each["sha256"]]
    for table, column in REFERENCES:
        for row in rows[table]:
            path = _blob(place, row[column])
            assert path.exists(), f"{table} {row} points to a blob that is not there"
            assert path.stat().st_size == row.get("num_bytes", path.stat().st_size)
    for row in tables.checkpoints:
        if row["state_sha256"]:
            assert _blob(place, row["state_sha256"]).stat().st_size == row["state_num_bytes"]
    for row in (*tables.checkpoints, *tables.updates, *tables.moments, *rows["trainings_swagstatistic"]):
        data = TensorFile.open(_blob(place, row["sha256"])).data
        assert bytes(row["checksums"]) == block_checksums(data), f"{row} has other checksums than its blob"
    for path in place.blobs.glob("??/*"):
        with contextlib.suppress(FileNotFoundError):  # the sweep of a running server
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def orphans(place: Place) -> set[str]:
    """The blobs that no row points to."""
    with _snapshot(place) as rows:
        wanted = {row[column] for table, column in REFERENCES for row in rows(f"SELECT {column} FROM {table}")}
        for row in rows("SELECT beneath, state_sha256 FROM registry_checkpoint"):
            wanted.update([*row["beneath"], row["state_sha256"]])
    return {path.name for path in place.blobs.glob("??/*")} - wanted


def _check_secrets(place: Place) -> None:
    """I7: no token, password or key in the log or the database."""
    key = (place.data_dir / "secret_key").read_text().strip()
    written = place.log + _dump(place)
    assert not [secret for secret in (*place.secrets, key) if secret in written]


def _tensors_of(checkpoint: Row, place: Place) -> Layers:
    return Layers([open_tensors(_blob(place, sha256)) for sha256 in (checkpoint["sha256"], *checkpoint["beneath"])])


def _blob(place: Place, sha256: str) -> Path:
    return place.blobs / sha256[:2] / sha256


def _travelling(checkpoint: Row, update: Row, path: Path, place: Place) -> Path:
    """Write those of the checkpoint's tensors that the update has: not all need travel, and a strategy's own may."""
    model = _tensors_of(checkpoint, place)
    schema = Schema(spec for spec in TensorFile.open(_blob(place, update["sha256"])).schema if spec.name in model)
    write_tensors(path, Selected(model, schema))
    return path


def _as_stale_input(update: Row, current: Row, checkpoints: dict[int, Row], folder: Path, place: Place) -> Update:
    """One of asynchronous training, that began some rounds before the one in which it counts."""
    began = update["number"]
    base = _travelling(checkpoints[began], update, folder / f"base {began}", place)
    plain = _as_input(update, place)
    return replace(plain, id=f"{plain.id}@{began}", base=base, staleness=current["number"] - began)


def _as_input(update: Row, place: Place) -> Update:
    return Update(id=update["participant_id"], path=_blob(place, update["sha256"]), num_examples=update["num_examples"])


@contextlib.contextmanager
def _snapshot(place: Place) -> Iterator[Any]:
    """A function from a query to its rows; all that it is asked has the answers of one moment."""
    if place.database_url:
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(place.database_url, row_factory=dict_row) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield lambda query: [_plain(row) for row in connection.execute(query)]
        return
    with contextlib.closing(sqlite3.connect(place.sqlite, timeout=30, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield lambda query: [_plain(dict(row)) for row in connection.execute(query)]


def _plain(row: Row) -> Row:
    return {name: _plain_value(name, value) for name, value in row.items()}


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str) and name in ("payload", "options", "body", "beneath"):
        return json.loads(value)
    if isinstance(value, str) and len(value) == 32 and (name == "subject" or name.endswith("id")):
        return str(UUID(value))
    return value


def _utc(moment: Any) -> datetime:
    found = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _dump(place: Place) -> str:
    with _snapshot(place) as rows:
        if place.database_url:
            names = [row["tablename"] for row in rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        else:
            names = [row["name"] for row in rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return "".join(str(rows(f'SELECT * FROM "{name}"')) for name in names)
