"""What is known of a model beside its weights: of what it consists, how it came to be, and what came of it."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import safetensors.numpy
import torch
from django.db import connection
from django.test.utils import CaptureQueriesContext

from folkmoot.server.registry import services
from folkmoot.server.registry.contents import contents_of
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Update

pytestmark = pytest.mark.django_db


@pytest.fixture
def ask(as_):
    """A function: what a user is told about a model."""

    def fetch(user, model, what):
        answer = as_(user).get(f"/api/models/{getattr(model, 'pk', model)}/{what}/")
        assert answer.status_code == 200
        return answer.json()

    return fetch


@pytest.fixture
def make_trained(make_scene, work):
    """A function: after that many rounds, in each of which the participants sent 2 and 5 examples."""

    def make(rounds=1, **fields):
        scene = make_scene(target_num_updates=rounds, **{"options": {"tests": "never"}} | fields)
        for number in range(rounds):
            for user, (size, w) in zip(scene.participants, [(2, [1, 2]), (5, [1, 2 + number])], strict=True):
                assert scene.send_update(user, round=number, sample_size=size, w=w).status_code == 201
            work()
        return scene

    return make


# Checkpoints


def test_the_first_checkpoint_is_the_upload(make_model, ask):
    model = make_model(round=3)

    (only,) = ask(model.owner, model, "checkpoints")

    stored = model.checkpoints.get()
    assert only.pop("created_at")
    assert only.pop("links")
    assert only == {
        "round": 3,
        "num_bytes": stored.num_bytes,
        "sha256": stored.sha256,
        "beneath": [],
        "removed_at": None,
        "origin": "upload",
        "aggregation": None,
    }


def test_a_participant_sees_of_the_updates_only_its_own(make_trained, ask):
    scene = make_trained()
    user = scene.participants[0]

    (*_, shown) = ask(user, scene.model_id, "checkpoints")

    assert shown["aggregation"]["num_updates"] == 2
    assert shown["aggregation"]["num_examples"] is None
    assert [each["participant"] for each in shown["aggregation"]["updates"]] == [str(user.pk)]


def test_each_later_checkpoint_says_what_went_into_it(make_trained, ask):
    scene = make_trained(rounds=2)

    shown = ask(scene.actor, scene.model_id, "checkpoints")

    assert [(each["round"], each["origin"]) for each in shown] == [
        (0, "upload"),
        (1, "aggregation"),
        (2, "aggregation"),
    ]
    sent = {update.participant_id: update.sha256 for update in Update.objects.filter(round__number=1)}
    assert shown[2]["aggregation"] == {
        "training": str(scene.id),
        "round": 1,
        "aggregation_method": "FedAvg",
        "num_updates": 2,
        "num_examples": 7,
        "updates": [
            {"participant": str(user.pk), "num_examples": size, "sha256": sent[user.pk]}
            for user, size in sorted(zip(scene.participants, [2, 5], strict=True), key=lambda pair: pair[0].pk)
        ],
    }


def test_the_links_lead_to_the_files(make_trained, as_, ask):
    scene = make_trained()

    for each in ask(scene.actor, scene.model_id, "checkpoints"):
        assert set(each["links"]) == {"download", "safetensors", "npz", "torch"}
        files = {name: as_(scene.actor).get(link).getvalue() for name, link in each["links"].items()}
        assert hashlib.sha256(files["safetensors"]).hexdigest() == each["sha256"]
        assert len(files["safetensors"]) == each["num_bytes"]
        assert np.load(io.BytesIO(files["npz"]))["w"].tolist() == scene.weights(each["round"])


def test_where_only_a_part_travelled_the_rest_is_named_and_the_part_has_a_link(
    make_trained, make_model, make_user, as_, ask
):
    actor = make_user()
    model = make_model(actor, w=[0, 0], base=[7])
    scene = make_trained(actor=actor, model=model, options={"tests": "never", "exchange": ["w"]})

    uploaded, trained = ask(actor, model, "checkpoints")

    assert "exchange" not in uploaded["links"]
    assert trained["beneath"] == [uploaded["sha256"]]
    part = as_(actor).get(trained["links"]["exchange"]).getvalue()
    assert hashlib.sha256(part).hexdigest() == trained["sha256"]
    assert scene.weights() == [1, 2]


def test_the_checkpoints_stay_when_the_training_goes(make_trained, ask):
    scene = make_trained()
    lifecycle.delete(scene.training)

    shown = ask(scene.actor, scene.model_id, "checkpoints")

    assert [(each["origin"], each["aggregation"]) for each in shown] == [("upload", None), ("aggregation", None)]


def test_a_copy_says_so(make_trained, make_training, ask):
    scene = make_trained()
    copy = make_training(scene.actor, model=Model.objects.get(pk=scene.model_id)).model

    (only,) = ask(scene.actor, copy, "checkpoints")

    assert (only["round"], only["origin"], only["aggregation"]) == (1, "copy", None)


# Lineage


@pytest.fixture
def line(make_model):
    """Four models of ada's, each a copy of the one before, after round 0, 1 and 2 of it."""
    models = [make_model()]
    for number in range(3):
        Model.objects.filter(pk=models[-1].pk).update(round=number)
        models[-1].checkpoints.update(round=number)
        models.append(services.clone(Model.objects.get(pk=models[-1].pk)))
    return models


def test_a_model_without_relatives_is_alone(make_model, ask, tensors_file):
    file = tensors_file(w=[1])
    model = make_model(file=file)

    shown = ask(model.owner, model, "lineage")

    assert shown["ancestors"] == shown["descendants"] == []
    assert shown["template"] == {
        "format": "safetensors",
        "sha256": hashlib.sha256(file).hexdigest(),
        "num_bytes": len(file),
    }
    assert shown["model"].pop("created_at")
    assert shown["model"] == {
        "id": str(model.pk),
        "name": "m",
        "owner": str(model.owner_id),
        "round": 0,
        "training": None,
        "parent": None,
        "parent_round": None,
    }


def test_the_line_goes_up_to_the_first_and_down_to_the_last(line, ask):
    shown = ask(line[0].owner, line[2], "lineage")

    assert [(each["id"], each["at_round"]) for each in shown["ancestors"]] == [
        (str(line[1].pk), 1),
        (str(line[0].pk), 0),
    ]
    assert [each["model"]["parent"] for each in shown["ancestors"]] == [str(line[0].pk), None]
    assert [(each["id"], each["parent_round"]) for each in shown["descendants"]] == [(str(line[3].pk), 2)]


def test_all_branches_come_after_their_parents(line, ask):
    branch = services.clone(Model.objects.get(pk=line[1].pk))

    shown = ask(line[0].owner, line[0], "lineage")

    ids = [each["id"] for each in shown["descendants"]]
    assert set(ids) == {str(each.pk) for each in (*line[1:], branch)}
    known = {str(line[0].pk)}
    for each in shown["descendants"]:
        assert each["parent"] in known
        known.add(each["id"])


def test_of_a_relative_that_one_may_not_see_there_is_only_the_id(make_trained, make_training, make_user, ask):
    scene = make_trained()
    first = Model.objects.get(pk=scene.model_id)
    guest = make_user()
    second = make_training(scene.actor, model=first, participants=[guest]).model

    above, below = ask(guest, second, "lineage"), ask(scene.participants[0], first, "lineage")

    assert above["ancestors"] == [{"id": str(first.pk), "at_round": 1, "model": None}]
    assert below["descendants"] == []
    assert [each["id"] for each in ask(scene.actor, first, "lineage")["descendants"]] == [str(second.pk)]


def test_staff_sees_all_relatives(line, make_user, ask):
    shown = ask(make_user(is_staff=True), line[1], "lineage")

    assert shown["ancestors"][0]["model"] is not None
    assert len(shown["descendants"]) == 2


def test_relatives_name_their_trainings(make_trained, make_training, ask):
    scene = make_trained()
    copied = make_training(scene.actor, model=Model.objects.get(pk=scene.model_id))

    shown = ask(scene.actor, copied.model, "lineage")

    assert shown["model"]["training"] == str(copied.pk)
    assert shown["ancestors"][0]["model"]["training"] == str(scene.id)


def test_a_parent_that_was_removed_leaves_its_round(line, ask):
    line[1].delete()

    shown = ask(line[0].owner, line[2], "lineage")

    assert shown["ancestors"] == [{"id": None, "at_round": 1, "model": None}]


# Metadata


def torch_of(module):
    file = io.BytesIO()
    torch.save(module, file)
    return file.getvalue()


def test_each_tensor_has_its_size(make_model, ask, tensors_file):
    model = make_model(file=tensors_file(a=[[1, 2, 3]], b=np.array([1], "f2")))

    shown = ask(model.owner, model, "metadata")

    assert shown["tensors"] == [
        {"name": "a", "dtype": "F32", "shape": [1, 3], "num_parameters": 3, "num_bytes": 12, "trainable": None},
        {"name": "b", "dtype": "F16", "shape": [1], "num_parameters": 1, "num_bytes": 2, "trainable": None},
    ]
    assert shown["totals"] == {"num_tensors": 2, "num_parameters": 4, "num_trainable": None, "num_bytes": 14}
    assert contents_of(model).num_trainable is None
    assert shown["stats"] is None


def test_parameters_are_told_from_buffers_where_the_format_tells(make_model, ask):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    module[0].bias.requires_grad = False
    model = make_model(file=torch_of(module))

    shown = ask(model.owner, model, "metadata")

    trainable = {each["name"]: each["trainable"] for each in shown["tensors"]}
    assert trainable == {
        "0.weight": True,
        "0.bias": False,
        "1.weight": True,
        "1.bias": True,
        "1.running_mean": False,
        "1.running_var": False,
        "1.num_batches_tracked": False,
    }
    assert shown["totals"]["num_trainable"] == sum(each.numel() for each in module.parameters() if each.requires_grad)


def test_tensors_that_are_one_count_once(make_model, ask):
    module = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    model = make_model(file=torch_of(module))

    shown = ask(model.owner, model, "metadata")

    assert shown["tied"] == [["0.weight", "1.weight"]]
    assert shown["totals"] == {"num_tensors": 2, "num_parameters": 9, "num_trainable": 9, "num_bytes": 72}


def test_the_template_is_told_by_its_digest(make_model, as_, ask):
    file = safetensors.numpy.save({"w": np.zeros(2)}, metadata={"of": "ada"})
    model = make_model(file=file)

    assert ask(model.owner, model, "metadata")["template"] == {
        "format": "safetensors",
        "sha256": hashlib.sha256(file).hexdigest(),
        "num_bytes": len(file),
    }


# Queries


def test_a_long_history_takes_no_more_queries_than_a_short_one(make_trained, as_):
    def queries(scene):
        with CaptureQueriesContext(connection) as captured:
            assert as_(scene.actor).get(f"/api/models/{scene.model_id}/checkpoints/").status_code == 200
        return len(captured)

    short, long = make_trained(rounds=1), make_trained(rounds=4)
    queries(short), queries(long)

    assert queries(long) == queries(short)


def test_a_long_line_takes_no_more_queries_than_a_short_one(line, make_model, as_):
    def queries(model):
        with CaptureQueriesContext(connection) as captured:
            assert as_(model.owner).get(f"/api/models/{model.pk}/lineage/").status_code == 200
        return len(captured)

    alone = make_model()
    queries(alone), queries(line[0])

    assert queries(alone) == queries(line[0]) == queries(line[3])
