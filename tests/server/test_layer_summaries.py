"""The summary of layers in a model's metadata: made once, in a job."""

from __future__ import annotations

import io

import pytest

torch = pytest.importorskip("torch")

from folkmoot.server.inference.models import LayerSummary  # noqa: E402 - torch first
from folkmoot.server.inference.pool import close_sandbox  # noqa: E402
from folkmoot.server.outbox.models import Event, Lane  # noqa: E402
from folkmoot.server.registry.models import Model  # noqa: E402

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module", autouse=True)
def sandbox_of_this_module():
    yield
    close_sandbox()


@pytest.fixture
def make(make_model):
    def make(shape, module):
        file = io.BytesIO()
        torch.save(module, file)
        model = make_model(file=file.getvalue())
        Model.objects.filter(pk=model.pk).update(input_shape=shape)
        return model

    return make


@pytest.fixture
def stats(as_):
    return lambda model: as_(model.owner).get(f"/api/models/{model.pk}/metadata/").json()["stats"]


def test_the_summary_is_there_once_the_job_is_done_that_the_first_question_asks_for(make, stats, work):
    model = make([None, 2], torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)))

    assert [stats(model), stats(model)] == [None, None]
    assert Event.objects.unhandled().filter(lane=Lane.MODELS).count() == 1
    work(Lane.MODELS)

    shown = stats(model)
    assert (shown["total_params"], shown["input_size"]) == (13, [1, 2])
    assert [layer["class_name"] for layer in shown["summary_list"]] == ["Sequential", "Linear", "Linear"]
    assert not Event.objects.unhandled().filter(lane=Lane.MODELS).exists()


def test_where_it_cannot_be_made_it_stays_null_and_is_not_tried_again(make, stats, work):
    model = make([None, 5], torch.nn.Sequential(torch.nn.Linear(2, 3)))

    for _ in range(2):
        assert stats(model) is None
        work(Lane.MODELS)

    assert Event.objects.filter(lane=Lane.MODELS).count() == 1


def test_without_an_input_shape_no_job_is_wanted(make, stats):
    assert stats(make(None, torch.nn.Sequential(torch.nn.Linear(2, 3)))) is None
    assert not Event.objects.filter(lane=Lane.MODELS).exists()


def test_a_local_model_has_the_layers_of_the_global_one(make, make_scene, as_, work, tensors_file):
    model = make([None, 2], torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False)))
    scene = make_scene(actor=model.owner, model=model)
    local = scene.send_update(scene.participants[0], file=tensors_file(**{"0.weight": [[1.0, 2.0]]})).json()
    path = f"/api/models/{local['update_id']}/metadata/"
    as_(model.owner).get(path)
    work(Lane.MODELS)

    assert as_(model.owner).get(path).json()["stats"]["total_params"] == 2


def test_without_torch_it_is_made_once_torch_is_there(make, stats, work, tmp_path, monkeypatch):
    model = make([None, 2], torch.nn.Sequential(torch.nn.Linear(2, 1)))
    close_sandbox()
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    with monkeypatch.context() as without:
        without.syspath_prepend(tmp_path)
        assert stats(model) is None
        work(Lane.MODELS)
    close_sandbox()

    assert not LayerSummary.objects.exists()
    assert stats(model) is None
    work(Lane.MODELS)
    assert stats(model)["total_params"] == 3
