"""R1: the server is killed at every point of an upload, and the client repeats it."""

from __future__ import annotations

import httpx2
import pytest
from chunks import put
from harness import World, wait_until
from invariants import orphans, read

BEFORE_COMMIT = ("upload.before_stream", "upload.mid_stream", "upload.after_blob", "upload.before_commit")
AFTER_COMMIT = ("upload.after_commit", "upload.before_response")

WAYS = {"form": World.send, "raw": put}

on_both = pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)
either_way = pytest.mark.parametrize("send", WAYS.values(), ids=WAYS)


def send_to_a_server_that_dies(world: World, point: str, send=World.send):
    """Have the server killed at `point` of the first of two updates; return it, and the training."""
    ann, ben = world.participants(2)
    world.server.start(fault=point)
    training_id = world.started([ann, ben], rounds=1, tests="never")
    update = world.update_of(ann, training_id, 0)
    with pytest.raises(httpx2.TransportError):
        send(world, update)
    world.server.wait_for_death()
    return update, training_id


@on_both
@either_way
@pytest.mark.parametrize("point", BEFORE_COMMIT)
def test_an_update_that_was_not_committed_comes_in_when_it_is_sent_again(world, point, send):
    update, training_id = send_to_a_server_that_dies(world, point, send)
    world.server.start()

    answer = send(world, update)

    assert answer.status_code == 201
    assert len(read(world.place, "SELECT * FROM trainings_update")) == 1
    assert world.training(training_id)["local_models_arrived"] == 1
    assert world.place.incoming() == []


@on_both
@either_way
@pytest.mark.parametrize("point", AFTER_COMMIT)
def test_an_update_that_was_committed_gets_the_first_answer_when_it_is_sent_again(world, point, send):
    update, training_id = send_to_a_server_that_dies(world, point, send)
    (stored,) = read(world.place, "SELECT * FROM trainings_update")
    world.server.start()

    answer = send(world, update)

    assert answer.status_code == 200
    assert answer.json() == {"detail": "Model Update Accepted", "update_id": stored["id"]}
    assert len(read(world.place, "SELECT * FROM trainings_update")) == 1
    assert world.training(training_id)["local_models_arrived"] == 1


@pytest.mark.parametrize("settings", [{"FOLKMOOT_ORPHAN_GRACE_SECONDS": "1"}])
def test_a_blob_whose_update_never_came_in_is_collected(world):
    send_to_a_server_that_dies(world, "upload.after_blob")
    assert len(orphans(world.place)) == 1

    world.server.start()

    wait_until(lambda: not orphans(world.place), "the orphaned blob to be removed")
