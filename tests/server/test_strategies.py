"""Trainings with any of the installed strategies: their options, what they need, what they keep from round to round."""

from __future__ import annotations

import io

import numpy as np
import pytest
import safetensors.numpy
from django.utils import timezone

from folkmoot.aggregation import strategies
from folkmoot.server.outbox.events import MAX_ATTEMPTS
from folkmoot.server.registry import services
from folkmoot.server.registry.models import Checkpoint
from folkmoot.server.trainings import rounds, sweeps
from folkmoot.server.trainings.models import Round, Training

pytestmark = pytest.mark.django_db

TRAININGS = "/api/trainings/"
NEEDED = {
    "Krum": {"num_byzantine": 0},
    "MultiKrum": {"num_byzantine": 0},
    "Bulyan": {"num_byzantine": 0},
    "CenteredClipping": {"radius": 1.0},
    "FedBuff": {"buffer_size": 3},
}
"""Options without which there is no such strategy."""


@pytest.fixture
def create(make_user, make_model, as_):
    """A function: asks for a training of one's own model."""
    actor = make_user()

    def post(aggregation_method="FedAvg", **options):
        model = make_model(actor)
        wanted = {"model_id": str(model.pk), "target_num_updates": 1, "aggregation_method": aggregation_method}
        return as_(actor).send("POST", TRAININGS, wanted | {"options": options})

    return post


@pytest.fixture
def train(make_scene, work):
    """A function: a training whose participants send, round after round, one row each of these values of `w`."""

    def run(*rounds_of_values, aggregation_method, metrics=(), **aggregation):
        options = {"tests": "never", "aggregation": aggregation}
        scene = make_scene(
            participants=len(rounds_of_values[0]),
            target_num_updates=len(rounds_of_values),
            aggregation_method=aggregation_method,
            options=options,
        )
        for number, values in enumerate(rounds_of_values):
            for place, (participant, w) in enumerate(zip(scene.participants, values, strict=True)):
                sent = {name: each[place] for name, each in dict(metrics).items()}
                fields = {"metric_names": list(sent), "metric_values": list(sent.values())}
                assert scene.send_update(participant, round=number, w=w, **fields).status_code == 201
            work()
        return scene

    return run


# Options


@pytest.mark.parametrize("name", sorted(strategies()))
def test_every_installed_strategy_can_be_chosen(create, name):
    answer = create(name, aggregation=NEEDED.get(name, {}))

    assert answer.status_code == 201, answer.content


@pytest.mark.parametrize(
    ("aggregation", "detail"),
    [
        ({"beta_3": 0.9}, "FedAdam has no option 'beta_3'; its options are: aggregator, aggregator_options, beta_1, "),
        ({"beta_1": "high"}, "the option 'beta_1' of FedAdam must be a number, not 'high'"),
        ({"clip": 0}, "clip is a number above 0"),
        ({"screen": {"score": "beauty", "bound": 1}}, "screen.score is one of norm, relative_norm, cosine"),
        ({"rules": {"*": "median"}}, "the rule for '*' is one of keep, max, mean"),
        ({"scores": "yes"}, "scores is true or false, not 'yes'"),
    ],
)
def test_an_option_that_is_wrong_is_refused_with_those_that_are_right(create, aggregation, detail):
    answer = create("FedAdam", aggregation=aggregation)

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_value"
    assert answer.json()["detail"].startswith(detail)


def test_deltas_are_clipped_and_rules_are_kept(make_scene, make_model, make_user, tensors_file, work, as_):
    actor = make_user()
    model = make_model(actor, w=[0.0, 0.0], fixed=[7.0])
    options = {"tests": "never", "aggregation": {"clip": 5, "rules": {"fixed": "keep"}}}
    scene = make_scene(actor=actor, model=model, participants=1, options=options)

    scene.send_update(scene.participants[0], file=tensors_file(w=[30, 40], fixed=[8]))
    work()

    file = as_(actor).get(f"/api/models/{scene.model_id}/").getvalue()
    tensors = safetensors.numpy.load(file)
    assert tensors["w"] == pytest.approx([3, 4])
    assert tensors["fixed"].tolist() == [7]


# How many updates it takes


def test_a_minimum_below_what_the_strategy_needs_is_refused(create):
    answer = create("Krum", min_updates=4, aggregation={"num_byzantine": 1})

    assert answer.status_code == 400
    assert answer.json()["detail"] == "options.min_updates is 4, and Krum needs at least 5"


def test_a_minimum_that_the_buffer_never_holds_is_refused(create):
    answer = create("FedBuff", min_updates=4, aggregation={"buffer_size": 3})

    assert (answer.status_code, answer.json()["detail"]) == (400, "options.min_updates is 4, and the buffer holds 3")


def test_a_training_with_fewer_participants_than_the_strategy_needs_does_not_start(make_scene, as_):
    scene = make_scene(started=False, aggregation_method="Krum", options={"aggregation": {"num_byzantine": 1}})

    answer = as_(scene.actor).send("POST", f"{TRAININGS}{scene.id}/start/")

    assert answer.status_code == 400
    assert answer.json() == {"detail": "Krum needs 5 participants, and 2 take part!", "code": "too_few_participants"}
    assert scene.state == "I"


@pytest.fixture
def krum_scene(make_scene):
    """A training of four participants, of which Krum needs three."""

    def make(**options):
        options = {"tests": "never", "aggregation": {"num_byzantine": 0}} | options
        return make_scene(participants=4, target_num_updates=2, aggregation_method="Krum", options=options)

    return make


def test_at_the_deadline_a_round_does_not_close_with_fewer_than_the_strategy_needs(krum_scene):
    scene = krum_scene(round_retries=1)
    for participant in scene.participants[:2]:
        scene.send_update(participant)

    scene.let_deadline_pass()
    assert scene.round_states == ["OPEN"]
    scene.let_deadline_pass()

    assert scene.state == "E"
    assert scene.shown["reason"].startswith("Round 1 got 2 updates in time; missing: ")


def test_a_minimum_from_before_the_strategy_needed_more_counts_for_nothing(krum_scene):
    scene = krum_scene(min_updates=3)
    Training.objects.update(options=scene.training.options | {"min_updates": 2})
    for participant in scene.participants[:2]:
        scene.send_update(participant)

    scene.let_deadline_pass()

    assert scene.round_states == ["OPEN"]


def test_at_the_deadline_a_round_closes_with_as_many_as_the_strategy_needs(krum_scene):
    scene = krum_scene(min_updates=3)
    for participant in scene.participants[:3]:
        scene.send_update(participant)

    scene.let_deadline_pass()

    assert scene.round_states == ["CLOSED", "OPEN"]


def test_a_round_that_cannot_get_enough_updates_any_more_ends_the_training_at_once(krum_scene, work):
    scene = krum_scene()
    scene.send_update(scene.participants[0])

    scene.remove(*scene.participants[1:])
    work()

    assert (scene.state, scene.round_states) == ("E", ["FAILED"])
    assert scene.shown["reason"] == "Krum needs 3 updates, and round 1 has 1."


def test_a_round_does_not_open_for_fewer_than_the_strategy_needs(krum_scene, work):
    scene = krum_scene()
    for participant in scene.participants:
        scene.send_update(participant)
    scene.remove(*scene.participants[:2])

    work()

    assert (scene.state, scene.round_states) == ("E", ["CLOSED"])
    assert scene.shown["reason"] == "Krum needs 3 updates, and round 2 has 2 participants."


def test_a_training_whose_strategy_is_no_longer_installed_ends_with_the_reason(make_scene, bring_forward, work):
    scene = make_scene(options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    Training.objects.update(aggregation_method="Gone")

    for _ in range(MAX_ATTEMPTS + 1):
        bring_forward()
        work()

    assert scene.state == "E"
    assert scene.shown["reason"].startswith("Round 1 could not be aggregated: there is no strategy 'Gone'; there are ")


def test_a_deadline_does_not_hang_on_a_strategy_that_is_no_longer_installed(make_scene):
    scene = make_scene(options={"tests": "never", "round_retries": 0})
    Training.objects.update(aggregation_method="Gone")

    scene.let_deadline_pass()

    assert scene.state == "E"


# What comes along with an update


def test_local_steps_normalise_updates(train):
    # Deltas of 4 in 1 step and of 4 in 4 steps: 4 and 1 a step, and 2.5 steps on average.
    scene = train([[4, 0], [4, 0]], aggregation_method="FedNova", metrics={"local_steps": [1, 4]})

    assert scene.state == "C"
    assert scene.weights() == [6.25, 0]


def test_an_update_without_the_metric_that_is_needed_is_refused_by_name_and_may_come_with_it(make_scene):
    scene = make_scene(options={"tests": "never"})
    Training.objects.update(aggregation_method="FedNova")
    ada = scene.participants[0]

    for metrics in ({}, {"loss": 1}, {"local_steps": "many"}, {"local_steps": "nan"}):
        named = {"metric_names": list(metrics), "metric_values": list(metrics.values())}
        refusal = scene.send_update(ada, **named)
        assert (refusal.status_code, refusal.json()["code"]) == (400, "invalid_value")
        assert refusal.json()["detail"] == "FedNova needs the metric 'local_steps' of every update, a finite number"
    accepted = scene.send_update(ada, metric_names=["local_steps"], metric_values=[3])

    assert accepted.status_code == 201


def test_who_does_badly_counts_more_in_q_fedavg(train):
    equal = train([[1, 0], [0, 1]], aggregation_method="q-FedAvg", metrics={"loss": [1, 1]})
    unequal = train([[1, 0], [0, 1]], aggregation_method="q-FedAvg", metrics={"loss": [1, 4]})

    assert equal.weights()[0] == equal.weights()[1]
    assert unequal.weights()[0] < unequal.weights()[1]


# State


def momentum_by_hand(start, means, *, momentum=0.9):
    """FedAvgM on paper: v <- m v + delta, x <- x + v."""
    x, v = np.array(start, "f8"), np.zeros(len(start))
    for mean in means:
        v = momentum * v + (np.array(mean) - x)
        x = x + v
        yield x


ROUNDS = ([[1, 0], [3, 2]], [[4, 4], [4, 6]], [[0, 1], [2, 1]])


def test_momentum_goes_on_from_round_to_round(train):
    scene = train(*ROUNDS, aggregation_method="FedAvgM")

    means = [np.mean(values, axis=0) for values in ROUNDS]
    for number, expected in enumerate(momentum_by_hand([0, 0], means), start=1):
        assert scene.weights(number) == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_state_is_kept_with_its_checkpoint(train, storage):
    scene = train(*ROUNDS, aggregation_method="FedAvgM")

    first, *others = Checkpoint.objects.filter(model=scene.model_id)
    assert (first.state_sha256, first.state_num_bytes) == ("", 0)
    assert len({each.state_sha256 for each in others}) == 3
    for each in others:
        assert storage.path(each.state_sha256).stat().st_size == each.state_num_bytes


def test_the_sweep_leaves_states_alone(train, storage, settings):
    settings.ORPHAN_GRACE_SECONDS = 0
    scene = train(*ROUNDS[:1], aggregation_method="FedAvgM")

    sweeps.remove_orphaned_blobs()

    assert storage.path(Checkpoint.objects.get(model=scene.model_id, round=1).state_sha256).exists()


def test_a_strategy_without_state_keeps_none(train):
    scene = train(*ROUNDS[:1], aggregation_method="FedAvg")

    assert Checkpoint.objects.get(model=scene.model_id, round=1).state_sha256 == ""


def test_a_round_that_is_aggregated_again_goes_on_from_the_same_state(train, make_scene, work):
    options = {"tests": "never"}
    once = train(*ROUNDS, aggregation_method="FedAvgM")
    twice = make_scene(aggregation_method="FedAvgM", target_num_updates=3, options=options)
    for number, values in enumerate(ROUNDS):
        for participant, w in zip(twice.participants, values, strict=True):
            twice.send_update(participant, round=number, w=w)
        # Another worker, whose lease had run out, has begun with the same round.
        stale = rounds.full_round(twice.id, number)
        inputs = rounds.inputs_of(stale)
        work()
        rounds._aggregate(stale, inputs)

    states = [[each.state_sha256 for each in Checkpoint.objects.filter(model=s.model_id)] for s in (once, twice)]
    assert states[0] == states[1]
    assert once.weights() == twice.weights()


def test_a_copy_of_a_model_begins_without_its_state(train):
    scene = train(*ROUNDS[:1], aggregation_method="FedAvgM")

    copy = services.clone(scene.training.model)

    assert copy.latest_checkpoint.state_sha256 == ""


# Downloading the state


@pytest.fixture
def state_of(as_):
    def get(scene, user=None, **query):
        return as_(user or scene.participants[0]).get(f"/api/models/{scene.model_id}/", {"part": "state", **query})

    return get


def test_participants_get_the_latest_state(train, state_of):
    scene = train(*ROUNDS[:2], aggregation_method="FedAvgM")

    answer = state_of(scene)

    assert answer.status_code == 200
    assert answer["Content-Disposition"].endswith(f'filename="state-{scene.model_id}.safetensors"')
    (state,) = safetensors.numpy.load(answer.getvalue()).values()
    velocity = np.array(scene.weights(2)) - scene.weights(1)
    assert state.tolist() == pytest.approx(velocity.tolist())


def test_the_state_of_an_earlier_round_can_be_had_as_npz(train, state_of):
    scene = train(*ROUNDS[:2], aggregation_method="FedAvgM")

    answer = state_of(scene, round=1, **{"as": "npz"})

    assert answer.status_code == 200, answer.content
    (state,) = np.load(io.BytesIO(answer.getvalue())).values()
    assert state.tolist() == scene.weights(1)


@pytest.mark.parametrize("round", [0, 1])
def test_where_there_is_no_state_a_sentence_says_so(train, state_of, round):
    scene = train(*ROUNDS[:1], aggregation_method="FedAvg")

    answer = state_of(scene, round=round)

    assert answer.status_code == 404
    sentence = f"Model {scene.model_id} has no state after {round} rounds: nothing was kept beside it."
    assert answer.json()["detail"] == sentence


def test_the_state_is_no_torch_file(train, state_of):
    scene = train(*ROUNDS[:1], aggregation_method="FedAvgM")

    answer = state_of(scene, **{"as": "torch"})

    assert answer.status_code == 400
    assert answer.json()["detail"] == "`as` is 'torch'; the state can be had as safetensors, npz"


def test_strangers_do_not_get_the_state(train, state_of, make_user):
    scene = train(*ROUNDS[:1], aggregation_method="FedAvgM")

    assert state_of(scene, make_user()).status_code == 403


# Control variates


@pytest.fixture
def scaffold_scene(make_scene):
    def make(participants=2, **fields):
        fields = {"options": {"tests": "never"}} | fields
        return make_scene(participants=participants, target_num_updates=2, aggregation_method="SCAFFOLD", **fields)

    return make


def with_control(file, w, control):
    return file(**{"w": w, "control_variate/w": control})


def test_control_variates_travel_with_updates_and_their_mean_is_the_servers(
    scaffold_scene, tensors_file, work, state_of
):
    scene = scaffold_scene()
    for participant, (w, control) in zip(scene.participants, [([2, 2], [1, 0]), ([4, 0], [3, 2])], strict=True):
        answer = scene.send_update(participant, file=with_control(tensors_file, w, control))
        assert answer.status_code == 201, answer.content
    work()

    assert scene.weights(1) == [3, 1]
    state = safetensors.numpy.load(state_of(scene).getvalue())
    assert {name: each.tolist() for name, each in state.items()} == {"control_variate/w": [2, 1]}


def test_an_update_without_control_variates_is_told_what_is_missing(scaffold_scene, tensors_file):
    scene = scaffold_scene()

    answer = scene.send_update(scene.participants[0], file=tensors_file(w=[1, 1]))

    assert answer.status_code == 400
    assert answer.json()["code"] == "schema_mismatch"
    assert "control_variate/w" in answer.json()["detail"]


@pytest.mark.parametrize("query", [{}, {"as": "safetensors"}, {"as": "npz"}, {"part": "exchange"}], ids=str)
def test_a_local_model_is_without_control_variates(scaffold_scene, tensors_file, as_, query):
    scene = scaffold_scene()
    file = with_control(tensors_file, [1, 2], [3, 4])
    local = scene.send_update(scene.participants[0], file=file).json()["update_id"]

    answer = as_(scene.actor).get(f"/api/models/{local}/", query)

    assert answer.status_code == 200, answer.content
    data = answer.getvalue()
    tensors = dict(np.load(io.BytesIO(data))) if query.get("as") == "npz" else safetensors.numpy.load(data)
    assert {name: each.tolist() for name, each in tensors.items()} == {"w": [1, 2]}


def test_control_variates_are_of_the_tensors_that_travel_alone(
    scaffold_scene, make_model, make_user, tensors_file, work, as_
):
    actor = make_user()
    model = make_model(actor, w=[0.0, 0.0], frozen=[5.0])
    options = {"tests": "never", "exchange": ["w"]}
    scene = scaffold_scene(actor=actor, model=model, participants=1, options=options)
    (participant,) = scene.participants

    local = scene.send_update(participant, file=with_control(tensors_file, [2, 2], [1, 1]))
    assert local.status_code == 201, local.content
    shown = as_(actor).get(f"/api/models/{local.json()['update_id']}/").getvalue()
    work()

    assert sorted(safetensors.numpy.load(shown)) == ["frozen", "w"]
    tensors = safetensors.numpy.load(as_(actor).get(f"/api/models/{scene.model_id}/").getvalue())
    assert {name: each.tolist() for name, each in tensors.items()} == {"w": [2, 2], "frozen": [5]}


def test_control_variates_of_what_the_strategy_does_not_merge_are_left_out(
    scaffold_scene, make_model, make_user, tensors_file, work, state_of
):
    actor = make_user()
    model = make_model(actor, **{"w": [0.0], "norm.running_mean": [0.0], "steps": np.array([1])})
    scene = scaffold_scene(actor=actor, model=model, participants=1)
    update = {"w": [2], "norm.running_mean": [4], "steps": np.array([5])}
    beside = {"control_variate/w": [1], "control_variate/norm.running_mean": [3]}

    answer = scene.send_update(scene.participants[0], file=tensors_file(**update, **beside))
    work()

    assert answer.status_code == 201, answer.content
    assert list(safetensors.numpy.load(state_of(scene).getvalue())) == ["control_variate/w"]


@pytest.mark.parametrize(("option", "value"), [("encoding", {"values": "float16"}), ("daisy_chain_period", 2)])
def test_some_options_do_not_go_with_control_variates(create, option, value):
    answer = create("SCAFFOLD", **{option: value})

    assert answer.status_code == 400
    assert f"options.{option} does not go with SCAFFOLD" in answer.json()["detail"]


def test_a_model_whose_names_are_those_of_control_variates_is_refused(make_user, make_model, as_):
    actor = make_user()
    model = make_model(actor, **{"w": [0.0], "control_variate/w": [0.0]})
    wanted = {"model_id": str(model.pk), "target_num_updates": 1, "aggregation_method": "SCAFFOLD"}

    answer = as_(actor).send("POST", TRAININGS, wanted)

    assert answer.status_code == 400
    assert "would be the name of a control variate" in answer.json()["detail"]


def damage(storage, sha256):
    path = storage.path(sha256)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["sha256", "state_sha256"])
def test_nothing_is_built_upon_a_damaged_checkpoint_or_state(make_scene, work, storage, part):
    scene = make_scene(target_num_updates=3, aggregation_method="FedAdam", options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    damage(storage, getattr(scene.training.model.latest_checkpoint, part))

    for participant in scene.participants:
        scene.send_update(participant, round=1, w=(5.0, 6.0))
    work()

    assert scene.state == "E"
    assert "is damaged" in scene.shown["reason"]


def test_one_trainings_fault_does_not_keep_the_others_from_their_deadlines(make_scene, caplog):
    broken, sound = make_scene(), make_scene(options={"min_updates": 1})
    sound.send_update(sound.participants[0])
    Training.objects.filter(pk=broken.id).update(options={"aggregation": 5})
    Round.objects.update(closes_at=timezone.now())

    sweeps.close_overdue_rounds()

    assert sound.round_states[0] != "OPEN"
    assert "could not be kept" in caplog.text
