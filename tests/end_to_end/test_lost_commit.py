"""R6: the line to the database breaks after a COMMIT was sent, and before it is answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harness import Server, finish
from invariants import read
from lines import Line


def commits_an_update(piece, facts):
    """Whether these bytes to PostgreSQL end the transaction that an update was inserted in."""
    if b'INSERT INTO "trainings_update"' in piece:
        facts.add("inserted")
    return b"COMMIT" in piece and "inserted" in facts


@pytest.mark.parametrize("backend", ["postgres"])
def test_an_update_whose_commit_was_not_answered_counts_once_when_it_is_sent_again(world, undisturbed):
    line = Line(f"{world.place.database_url}?sslmode=disable", until=commits_an_update)
    ann, ben = world.participants(2)
    through_the_line = Server(world.place, FOLKMOOT_DATABASE_URL=line.url)
    world.server.start()
    training_id = world.started([ann, ben], rounds=1)
    update = world.update_of(ann, training_id, 0)
    through_the_line.start()
    try:
        first = replace(world, server=through_the_line).send(update)
    finally:
        through_the_line.kill()
        line.close()
    (stored,) = read(world.place, "SELECT * FROM trainings_update")

    again = world.send(update)

    assert (first.status_code, first.json()["code"]) == (503, "unavailable")
    assert int(first.headers["Retry-After"]) > 0
    assert again.status_code == 200
    assert again.json()["update_id"] == stored["id"]
    assert len(read(world.place, "SELECT * FROM trainings_update")) == 1
    finish(world, [ann, ben], training_id)
    assert world.weights(training_id)[1] == undisturbed(2, 1)
