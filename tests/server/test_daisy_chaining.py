"""Daisy chaining: local models wander from participant to participant before they are aggregated."""

from __future__ import annotations

import io
from itertools import permutations
from uuid import UUID

import pytest
import safetensors.numpy

from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings import handlers
from folkmoot.server.trainings.daisy_chain import deal
from folkmoot.server.trainings.models import Handover

pytestmark = pytest.mark.django_db

MODELS = "/api/models/"


class Chain:
    """A training in which everybody sends the model that it was told to train, changed by a known step."""

    def __init__(self, scene, as_, work):
        self.scene = scene
        self.as_ = as_
        self.work = work
        self.begun_with = {}

    def told(self, user, round):
        """The id of the model that the user was told to train in this round."""
        bodies = [body for kind, body in self.scene.told(user) if kind == "UPDATE_ROUND_START"]
        return next(body["global_model_uuid"] for body in bodies if body["round"] == round)

    def weights(self, user, model_id):
        return safetensors.numpy.load(self.as_(user).get(f"{MODELS}{model_id}/").getvalue())["w"]

    def send(self, user, round, *, to=None, step=(0.0, 1.0), path="", **fields):
        model_id = to or self.told(user, round)
        weights = self.weights(user, model_id)
        file = io.BytesIO(safetensors.numpy.save({"w": (weights + step).astype("f4")}))
        return self.as_(user).post(f"{MODELS}{model_id}/", {"round": round, "sample_size": 1, "model_file": file})

    def play(self, round, users=None):
        for user in users or self.scene.participants:
            assert self.send(user, round).status_code == 201
        self.work()

    def owner_of(self, update_id, round):
        updates = self.scene.training.rounds.get(number=round).updates
        return updates.get(pk=update_id).participant


@pytest.fixture
def chain(make_scene, as_, work):
    """Three participants, two updates of the global model, a period of two: four rounds."""

    def make(*, period=2, rounds=2, participants=3, **fields):
        options = {"daisy_chain_period": period} | fields.pop("options", {})
        method = fields.pop("aggregation_method", "FedDC")
        fields |= {"target_num_updates": rounds, "participants": participants, "aggregation_method": method}
        return Chain(make_scene(options=options, **fields), as_, work)

    return make


# Who gets whose model


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_nobody_is_dealt_its_own_model_and_everybody_another(count):
    people = [UUID(int=number) for number in range(count)]

    for seed in ("1", "2", "3"):
        dealt = deal(people, people, seed=seed)
        assert sorted(dealt.values()) == people
        assert all(owner != participant for participant, owner in dealt.items())


def test_the_same_people_are_dealt_the_same_models_in_any_order():
    people = [UUID(int=number) for number in range(4)]

    assert len({tuple(sorted(deal(order, order, seed="s").items())) for order in permutations(people)}) == 1


def test_models_go_other_ways_in_other_rounds():
    people = [UUID(int=number) for number in range(5)]

    assert len({tuple(sorted(deal(people, people, seed=f"t {number}").items())) for number in range(10)}) > 5


def test_who_has_no_model_gets_one_that_nobody_else_has():
    one, other, gone, new = (UUID(int=number) for number in range(4))

    dealt = deal([one, other, gone], [one, other, new], seed="s")

    assert sorted(dealt.values()) == [one, other, gone]
    assert dealt[one] != one
    assert dealt[other] != other


def test_more_participants_than_models_share_them():
    people = [UUID(int=number) for number in range(5)]

    dealt = deal(people[:2], people, seed="s")

    assert dealt.keys() == set(people)
    assert (dealt[people[0]], dealt[people[1]]) == (people[1], people[0])


def test_a_single_model_goes_to_everybody_its_owner_included():
    one, other = UUID(int=1), UUID(int=2)

    assert deal([one], [one, other], seed="s") == {one: one, other: one}


# A whole training


def test_a_training_has_as_many_rounds_as_its_period_says_and_shows_them(chain):
    assert chain(period=3, rounds=4).scene.shown["target_num_updates"] == 12


@pytest.mark.parametrize("method", ["FedDC", "FedAvg", "FedProx"])
def test_models_wander_whatever_the_method(chain, method):
    chain = chain(aggregation_method=method)
    chain.play(0)

    for user in chain.scene.participants:
        assert chain.told(user, 1) != str(chain.scene.model_id)
        assert chain.owner_of(chain.told(user, 1), 0) != user


def test_a_chain_ends_with_the_mean_of_the_models_that_wandered(chain):
    chain = chain(period=3, rounds=2)
    for round in range(6):
        chain.play(round)
        assert len(chain.scene.round_states) == min(round + 2, 6)
    for user in chain.scene.participants:
        chain.scene.report(user, loss=1)
    chain.work()

    assert chain.scene.state == "C"
    # Every local model takes a step in each round, whoever makes it.
    assert chain.scene.weights() == [0, 6]
    assert chain.scene.weights(3) == [0, 3]


def test_between_aggregations_the_global_model_stays_and_nothing_is_tested(chain):
    chain = chain(period=2, rounds=2)
    chain.play(0)

    assert chain.scene.weights() == [0, 0]
    assert chain.scene.round_states == ["CLOSED", "OPEN"]
    assert "MODEL_TEST_ROUND" not in chain.scene.types_told(chain.scene.participants[0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "UPDATE UPDATE UPDATE UPDATE MODEL_TEST"),
        ({"tests": "every_round"}, "UPDATE UPDATE MODEL_TEST UPDATE UPDATE MODEL_TEST"),
        ({"tests": "never"}, "UPDATE UPDATE UPDATE UPDATE"),
    ],
)
def test_only_the_last_aggregation_is_tested_unless_the_options_say_so(chain, options, told):
    chain = chain(participants=2, options=options)
    for round in range(4):
        chain.play(round)
        for user in chain.scene.participants:
            chain.scene.report(user, loss=1)
        chain.work()

    kinds = chain.scene.types_told(chain.scene.participants[0])
    heard = [kind.removesuffix("_ROUND_START").removesuffix("_ROUND") for kind in kinds]
    assert heard == ["TRAINING_START", *told.split(), "TRAINING_FINISHED"]


def test_after_an_aggregation_everybody_begins_with_the_global_model(chain):
    chain = chain(period=2)
    chain.play(0)
    chain.play(1)

    assert {chain.told(user, 2) for user in chain.scene.participants} == {str(chain.scene.model_id)}
    assert chain.scene.weights() == [0, 2]


def test_a_period_of_one_aggregates_every_round(chain):
    chain = chain(period=1, rounds=2)
    chain.play(0)

    assert chain.scene.weights() == [0, 1]
    assert chain.told(chain.scene.participants[0], 1) == str(chain.scene.model_id)


# Local models on their way


def test_a_local_model_is_seen_by_who_was_sent_it_and_leaves_with_the_aggregation(chain, as_):
    chain = chain()
    chain.play(0)
    user = chain.scene.participants[0]
    sent = chain.told(user, 1)
    third = next(each for each in chain.scene.participants if each not in (user, chain.owner_of(sent, 0)))

    assert as_(user).get(f"{MODELS}{sent}/").status_code == 200
    assert as_(third).get(f"{MODELS}{sent}/").status_code == 403
    assert sent in [each["id"] for each in as_(user).get(MODELS).json()]
    chain.play(1)
    assert as_(user).get(f"{MODELS}{sent}/").status_code == 404


def test_the_latest_models_are_the_newest_of_each_participant(chain, as_):
    chain = chain()
    chain.play(0)
    one, *_ = chain.scene.participants
    newest = chain.send(one, 1).json()["update_id"]
    path = f"/api/trainings/{chain.scene.id}/models/"

    everything = as_(chain.scene.actor).get(path).json()[1:]
    latest = as_(chain.scene.actor).get(f"{path}latest/").json()[1:]

    assert len(everything) == 4
    assert sorted(each["round"] for each in latest) == [0, 0, 1]
    assert next(each["id"] for each in latest if each["owner"] == str(one.pk)) == newest


def test_an_update_to_someone_elses_handover_is_refused(chain, as_):
    chain = chain()
    chain.play(0)
    one, other, _ = chain.scene.participants
    sent = chain.told(one, 1)
    file = io.BytesIO(safetensors.numpy.save({"w": chain.weights(one, sent)}))

    answer = as_(other).post(f"{MODELS}{sent}/", {"round": 1, "sample_size": 1, "model_file": file})

    assert (answer.status_code, answer.json()["detail"]) == (403, f"Local model {sent} was not sent to you.")


def test_an_update_may_go_to_the_global_model_too(chain):
    chain = chain()
    chain.play(0)

    assert chain.send(chain.scene.participants[0], 1, to=chain.scene.model_id).status_code == 201


def test_the_same_bytes_again_get_the_same_answer_also_once_they_are_aggregated(chain, as_):
    chain = chain(rounds=1, options={"tests": "never"})
    chain.play(0)
    user = chain.scene.participants[0]
    path = f"{MODELS}{chain.told(user, 1)}/"
    bytes_ = safetensors.numpy.save({"w": chain.weights(user, chain.told(user, 1)) + 1})

    def send():
        return as_(user).post(path, {"round": 1, "sample_size": 1, "model_file": io.BytesIO(bytes_)})

    first = send()
    assert (first.status_code, first["Location"].endswith(path)) == (201, True)
    assert (send().status_code, send().json()) == (200, first.json())
    chain.play(1, chain.scene.participants[1:])
    assert chain.scene.state == "C"
    assert (send().status_code, send().json()) == (200, first.json())


def test_a_raw_update_goes_to_a_local_model_too(chain, as_):
    chain = chain()
    chain.play(0)
    user = chain.scene.participants[0]
    sent = chain.told(user, 1)
    body = safetensors.numpy.save({"w": chain.weights(user, sent) + 1})

    answer = as_(user).put(
        f"{MODELS}{sent}/update/?round=1&sample_size=1", body, content_type="application/octet-stream"
    )

    assert answer.status_code == 201


def test_an_upload_in_chunks_goes_to_a_local_model_too(chain, as_):
    chain = chain()
    chain.play(0)
    user = chain.scene.participants[0]
    sent = chain.told(user, 1)
    fields = {"round": 1, "sample_size": 1}
    opened = as_(user).send("POST", "/api/uploads/", {"target": f"{MODELS}{sent}/", "fields": fields, "size": 10})

    assert opened.status_code == 201


def test_an_encoded_difference_is_one_to_the_model_that_was_sent(chain, as_, tmp_path):
    from folkmoot.tensors import open_tensors
    from folkmoot.tensors.encodings import Base, Encoding, encode

    chain = chain(participants=2, options={"encoding": {"difference": True}})
    chain.play(0)
    user = chain.scene.participants[0]
    sent = chain.told(user, 1)
    model = tmp_path / "model"
    model.write_bytes(as_(user).get(f"{MODELS}{sent}/").getvalue())
    base = open_tensors(model)
    update = {"w": base["w"] + 1}
    encode(update, Encoding.of({"difference": True}), tmp_path / "update", base=Base.of(base))

    file = io.BytesIO((tmp_path / "update").read_bytes())
    answer = as_(user).post(f"{MODELS}{sent}/", {"round": 1, "sample_size": 1, "model_file": file})

    assert answer.status_code == 201
    local = answer.json()["update_id"]
    assert chain.weights(user, local).tolist() == update["w"].tolist()


# Who comes and goes, and work that is done twice


def test_who_has_sent_nothing_gets_one_of_the_others_models(chain):
    chain = chain(options={"min_updates": 2})
    *arrived, missing = chain.scene.participants
    for user in arrived:
        chain.send(user, 0)
    chain.scene.let_deadline_pass()

    sent = {user: chain.owner_of(chain.told(user, 1), 0) for user in chain.scene.participants}
    assert sent[arrived[0]] == arrived[1]
    assert sent[arrived[1]] == arrived[0]
    assert sent[missing] in arrived


def test_the_model_of_who_was_removed_wanders_on(chain, make_user):
    chain = chain()
    one, other, gone = chain.scene.participants
    new = make_user()
    for user in (one, gone):
        chain.send(user, 0)
    chain.scene.remove(gone)
    chain.scene.add(new)
    chain.send(other, 0)
    chain.work()

    owners = {chain.owner_of(chain.told(user, 1), 0) for user in (one, other, new)}
    assert owners == {one, other, gone}


def test_a_training_of_one_goes_on_with_its_own_model(chain):
    chain = chain(participants=1, rounds=1, options={"tests": "never"})
    chain.play(0)
    chain.play(1)

    assert (chain.scene.state, chain.scene.weights()) == ("C", [0, 2])


def test_a_round_between_that_gets_too_few_updates_is_tried_again_and_then_fails(chain):
    chain = chain(options={"round_retries": 1})
    chain.play(0)
    user = chain.scene.participants[0]
    first = chain.told(user, 1)

    chain.scene.let_deadline_pass()
    bodies = [body for kind, body in chain.scene.told(user) if kind == "UPDATE_ROUND_START"]
    assert [(body["round"], body["attempt"]) for body in bodies] == [(0, 1), (1, 1), (1, 2)]
    assert bodies[-1]["global_model_uuid"] == first
    chain.scene.let_deadline_pass()

    assert chain.scene.state == "E"
    assert chain.scene.shown["reason"].startswith("Round 2 got 0 updates in time; missing: ")


def test_a_round_that_everybody_leaves_ends_the_training(chain):
    chain = chain()
    chain.play(0)

    chain.scene.remove(*chain.scene.participants)
    chain.work()

    assert (chain.scene.state, chain.scene.shown["reason"]) == ("E", "No participants are left for round 2.")


def test_an_announcement_that_is_handled_twice_says_nothing_twice(chain):
    chain = chain()
    chain.play(0)
    before = [chain.scene.told(user) for user in chain.scene.participants]

    handlers.announce_round(Event.objects.filter(kind="round_opened").latest("pk"))

    assert [chain.scene.told(user) for user in chain.scene.participants] == before
    assert Handover.objects.count() == 3


# What is created


def test_feddc_without_a_period_is_fedavg_and_says_so(as_, make_model):
    model = make_model()
    body = {"model_id": str(model.pk), "target_num_updates": 2, "aggregation_method": "FedDC"}

    answer = as_(model.owner).send("POST", "/api/trainings/", body)

    assert answer.json()["warnings"] == [
        "FedDC without options.daisy_chain_period is FedAvg: every round is aggregated"
    ]
    training = as_(model.owner).get(f"/api/trainings/{answer.json()['training_id']}/").json()
    assert training["target_num_updates"] == 2


def test_more_rounds_than_can_be_counted_are_refused(as_, make_model):
    model = make_model()
    body = {"model_id": str(model.pk), "target_num_updates": 10**6, "aggregation_method": "FedDC"}

    answer = as_(model.owner).send("POST", "/api/trainings/", body | {"options": {"daisy_chain_period": 2}})

    assert answer.status_code == 400
    assert answer.json()["detail"] == "the training would have 2,000,000 rounds; at most 1,000,000 are taken"


# FedProx


def test_fedprox_without_proximal_mu_is_fedavg_and_says_so(as_, make_model):
    model = make_model()
    body = {"model_id": str(model.pk), "target_num_updates": 2, "aggregation_method": "FedProx"}
    warned = "FedProx without options.local.proximal_mu is FedAvg: nothing tells participants to stay near"

    for local, warnings in (({}, [warned]), ({"local": {"epochs": 1}}, [warned]), ({"local": {"proximal_mu": 1}}, [])):
        answer = as_(model.owner).send("POST", "/api/trainings/", body | {"options": local})
        assert answer.json().get("warnings", []) == warnings


def test_fedprox_hands_out_its_mu_and_averages(make_scene, work):
    scene = make_scene(aggregation_method="FedProx", options={"local": {"proximal_mu": 0.1}, "tests": "never"})
    one, other = scene.participants
    assert scene.told(one)[1][1]["local"] == {"proximal_mu": 0.1}

    scene.send_update(one, w=[0, 4], sample_size=1)
    scene.send_update(other, w=[4, 8], sample_size=3)
    work()

    assert (scene.state, scene.weights()) == ("C", [3, 7])
