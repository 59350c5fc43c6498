"""R11, R12 and what is wrong with updates: who may send which one when, and what everybody else is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import as_file, at_once, finish, play_round, trained, wait_until


@pytest.fixture
def training(hub):
    """A training of two participants whose first round is open."""
    return hub.started(hub.participants(2), rounds=2, tests="never")


@pytest.fixture
def ann(hub):
    return hub.accounts["ann"]


def sent_and_refused(hub, update, status, code, **changes):
    """Send it, see that it is refused and the round as before; return the sentence that says why."""
    before = hub.training(update.training_id)
    answer = hub.send(update, **changes)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert hub.training(update.training_id) == before
    return answer.json()["detail"]


def test_the_same_update_sent_twice_counts_once_and_gets_the_same_answer(hub, training, ann):
    update = hub.update_of(ann, training, 0)
    first = hub.send(update)

    second = hub.send(update)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert hub.training(training)["local_models_arrived"] == 1


@pytest.mark.parametrize("connections", [2, 50])
@pytest.mark.parametrize("backend", ["sqlite", "postgres"], indirect=True)
def test_the_same_update_sent_by_many_connections_at_once_counts_once(world, connections):
    world.server.start()
    ann, ben = world.participants(2)
    training = world.started([ann, ben], rounds=1, tests="never")
    update = world.update_of(ann, training, 0)

    answers = at_once(*[lambda: world.send(update)] * connections)

    assert sorted(answer.status_code for answer in answers) == [200] * (connections - 1) + [201]
    assert len({answer.text for answer in answers}) == 1
    assert world.training(training)["local_models_arrived"] == 1


def test_the_last_update_sent_by_many_connections_at_once_closes_the_round_once(hub, training, ann):
    ben = hub.accounts["ben"]
    hub.send(hub.update_of(ben, training, 0))
    update = hub.update_of(ann, training, 0)

    answers = at_once(*[lambda: hub.send(update)] * 8)

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    hub.wait_for_round(training, 1)


def test_other_bytes_than_the_first_are_refused(hub, training, ann):
    hub.send(hub.update_of(ann, training, 0))

    other = replace(hub.update_of(ann, training, 0), file=hub.update_of(hub.accounts["ben"], training, 0).file)

    assert "round 0" in sent_and_refused(hub, other, 409, "already_submitted")


def test_of_two_different_updates_sent_at_once_one_counts(hub, training, ann):
    one = hub.update_of(ann, training, 0)
    other = replace(one, file=hub.update_of(hub.accounts["ben"], training, 0).file)

    answers = at_once(lambda: hub.send(one), lambda: hub.send(other))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert hub.training(training)["local_models_arrived"] == 1


def test_an_update_sent_again_after_its_round_closed_gets_its_first_answer(hub, training, ann):
    update = hub.update_of(ann, training, 0)
    play_round(hub, hub.participants(2), training, 0)
    hub.wait_for_round(training, 1)

    answer = hub.send(update)

    assert answer.status_code == 200
    assert hub.training(training)["local_models_arrived"] == 0


def test_other_bytes_after_the_round_closed_are_refused(hub, training, ann):
    late = replace(hub.update_of(ann, training, 0), file=hub.update_of(hub.accounts["ben"], training, 0).file)
    play_round(hub, hub.participants(2), training, 0)
    hub.wait_for_round(training, 1)

    sent_and_refused(hub, late, 409, "already_submitted")


def test_an_update_that_missed_its_round_is_refused(hub, ann):
    ben = hub.accounts["ben"]
    deadline = {"round_timeout": 1, "min_updates": 1, "round_retries": 10}
    training = hub.started([ann, ben], rounds=2, tests="never", **deadline)
    late = hub.update_of(ben, training, 0)
    hub.send(hub.update_of(ann, training, 0))
    hub.wait_for_round(training, 0, "CLOSED")

    answer = hub.send(late)

    assert (answer.status_code, answer.json()["code"]) == (400, "round_closed")
    assert answer.json()["detail"] == (
        f"Training with ID {training} is not currently in round 0: it went on without your update; "
        "you still take part, and may be asked in the next"
    )
    hub.send(hub.update_of(ann, training, 1))
    hub.wait_for_end(training)


def test_an_update_for_a_round_to_come_is_refused(hub, training, ann):
    early = replace(hub.update_of(ann, training, 0), round=1)

    sentence = sent_and_refused(hub, early, 400, "round_not_open")

    assert sentence == f"Training with ID {training} is not currently in round 1"


def test_an_update_before_the_start_is_refused(hub, ann):
    training = hub.create_training([ann], rounds=1)
    early = hub.update_of(ann, training, 0)

    assert sent_and_refused(hub, early, 400, "wrong_state") == f"Training with ID {training} is in state I"


def test_an_update_after_the_end_is_refused(hub, ann):
    ben = hub.accounts["ben"]
    training = hub.started([ann], rounds=1, tests="never")
    play_round(hub, [ann], training, 0)
    hub.wait_for_end(training)
    hub.call(hub.actor, "PUT", f"/api/trainings/{training}/clients/", json={"clients": [ben.id]})
    late = replace(hub.update_of(ann, training, 0), round=1)

    assert sent_and_refused(hub, late, 400, "wrong_state") == f"Training with ID {training} is in state C"


def test_a_stranger_is_refused_even_with_the_body_of_a_participant(hub, training, ann):
    update = hub.update_of(ann, training, 0)
    hub.send(update)

    replay = replace(update, sender=hub.accounts["stranger"])

    sentence = sent_and_refused(hub, replay, 403, "permission_denied")
    assert sentence == f"You are not a participant of training {training}!"


def test_a_participant_who_replays_the_body_of_another_sends_it_as_its_own(hub, training, ann):
    update = hub.update_of(ann, training, 0)
    hub.send(update)

    answer = hub.send(replace(update, sender=hub.accounts["ben"]), owner=ann.id)

    assert answer.status_code == 201
    assert sorted(hub.training(training)["rounds"][0]["arrived"]) == sorted(each.id for each in hub.participants(2))
    assert hub.send(update).status_code == 200


def test_nobody_without_a_token_is_let_in(hub, training, ann):
    update = hub.update_of(replace(ann, token="0" * 40), training, 0)

    sent_and_refused(hub, update, 401, "authentication_failed")


def test_of_two_starts_at_once_one_starts(hub, ann):
    training = hub.create_training([ann], rounds=1)

    answers = at_once(*[lambda: hub.call(hub.actor, "POST", f"/api/trainings/{training}/start/")] * 2)

    assert sorted(answer.status_code for answer in answers) == [202, 400]
    refused = next(answer for answer in answers if answer.status_code == 400)
    assert refused.json() == {"detail": f"Training {training} is not in state INITIAL!", "code": "wrong_state"}
    assert [each["number"] for each in hub.training(training)["rounds"]] == [0]


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def with_tensor(name, value):
    return lambda tensors: {**tensors, name: value}


ONES = np.ones((4, 3), np.float32)
SPOILT = {
    "missing": (without("bias"), "schema_mismatch", ["bias"]),
    "extra": (with_tensor("more", np.ones(2, np.float32)), "schema_mismatch", ["more"]),
    "misshapen": (with_tensor("weight", ONES.T), "schema_mismatch", ["weight", "(3, 4)", "(4, 3)"]),
    "to be broadcast": (with_tensor("weight", ONES[:1]), "schema_mismatch", ["weight", "(1, 3)", "(4, 3)"]),
    "of another type": (with_tensor("weight", ONES.astype(np.float64)), "schema_mismatch", ["weight", "F64", "F32"]),
    "not a number": (with_tensor("weight", ONES * np.nan), "non_finite", ["weight"]),
    "infinite": (with_tensor("bias", np.array([1, -np.inf, 1], np.float32)), "non_finite", ["bias"]),
    "none at all": (lambda tensors: {}, "schema_mismatch", ["bias", "weight"]),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_an_update_with_a_spoilt_tensor_is_refused_by_its_name(hub, training, ann, kind):
    spoil, code, words = SPOILT[kind]
    weights, _ = hub.weights(training)
    spoilt = replace(hub.update_of(ann, training, 0), file=as_file(spoil(trained(weights, "ann", 0))))

    sentence = sent_and_refused(hub, spoilt, 400, code)

    assert all(word in sentence for word in words), sentence
    assert hub.send(hub.update_of(ann, training, 0)).status_code == 201


@pytest.mark.parametrize("file", [b"", b"no model at all", b"\x80\x04}."], ids=["empty", "text", "a pickle"])
def test_a_file_that_holds_no_tensors_is_refused(hub, training, ann, file):
    update = replace(hub.update_of(ann, training, 0), file=file)
    before = hub.training(training)

    answer = hub.send(update)

    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert hub.training(training) == before


@pytest.mark.parametrize("sample_size", ["0", "-5", "NaN", "inf", "1e3", "many", "", "1.5", "9" * 30, "1000000001"])
def test_an_absurd_sample_size_is_refused_by_its_name(hub, training, ann, sample_size):
    update = replace(hub.update_of(ann, training, 0), num_examples=sample_size)

    assert "sample_size" in sent_and_refused(hub, update, 400, "invalid_value")


@pytest.mark.parametrize("round", ["-1", "NaN", "first", "", "9" * 30])
def test_an_absurd_round_is_refused_by_its_name(hub, training, ann, round):
    update = replace(hub.update_of(ann, training, 0), round=round)

    assert "round" in sent_and_refused(hub, update, 400, "invalid_value")


def test_a_digest_that_is_not_the_files_is_refused(hub, training, ann):
    update = hub.update_of(ann, training, 0)

    sentence = sent_and_refused(hub, update, 422, "digest_mismatch", headers={"X-Content-SHA256": "0" * 64})

    assert "0" * 64 in sentence


def test_what_was_refused_leaves_no_file_behind(hub, training, ann):
    hub.send(replace(hub.update_of(ann, training, 0), num_examples="0"))
    hub.send(hub.update_of(ann, training, 0), headers={"X-Content-SHA256": "0" * 64})

    wait_until(lambda: hub.place.incoming() == [], "the incoming folder to be empty")


def test_after_all_that_was_refused_the_round_still_completes(world):
    # In a world of its own: here the participants do whatever is to be done.
    world.server.start()
    ann, ben = world.participants(2)
    training = world.started([ann, ben], rounds=2, tests="never")
    world.send(replace(world.update_of(ann, training, 0), num_examples="0"))
    world.send(replace(world.update_of(ann, training, 0), file=b"nothing"))

    finish(world, [ann, ben], training)

    assert world.training(training)["state"] == "C"
