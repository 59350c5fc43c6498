"""Predictions of a hub that is served: models with an architecture, and what becomes of the processes that run them."""

from __future__ import annotations

import io

import psutil
import pytest
import torch
from harness import wait_until

from folkmoot.client import Hub
from folkmoot.demo import network
from folkmoot.tensors import write_tensors

ROW = [[0.0] * 64]


@pytest.fixture
def ask(world):
    def ask(model, model_input, account="ann"):
        asked = {"model_id": model, "model_input": model_input}
        return world.call(world.accounts[account], "POST", "/api/inference/", json=asked, timeout=60)

    return ask


@pytest.fixture
def running(world):
    """The processes of the sandbox, whoever they belong to once the server has gone."""
    world.server.start()
    server = psutil.Process(world.server.process.pid)
    found = set()

    def running():
        if server.is_running():
            found.update(server.children(recursive=True))
        return [each for each in found if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    return running


def upload(world, module):
    file = io.BytesIO()
    torch.save(module, file)
    fields = {"name": "m", "description": "d"}
    answer = world.call(
        world.accounts["ann"], "POST", "/api/models/", data=fields, files={"model_file": file.getvalue()}
    )
    return answer.json()["model_id"]


def test_weights_that_were_uploaded_with_an_architecture_answer(world, ask, running, tmp_path):
    write_tensors(tmp_path / "weights", network.initial_weights())
    with Hub(world.server.url, world.accounts["ann"].token) as hub:
        model = hub.upload_model("digits", "untrained", tmp_path / "weights", architecture="digits-mlp")

    answer = ask(model, ROW).json()

    assert answer["uncertainty"] == {}
    assert answer["inference"][0] in range(10)


def test_the_processes_of_models_start_with_the_first_question(world, ask, running):
    model = upload(world, torch.nn.Linear(2, 2))
    assert running() == []

    assert ask(model, [[1.0, 2.0]]).status_code == 200
    assert len(running()) == 2  # one that has torch ready, and one with the model


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_they_end_with_the_server_however_that_ends(world, ask, running, end):
    ask(upload(world, torch.nn.Linear(2, 2)), [[1.0, 2.0]])
    assert running()

    getattr(world.server, end)()

    wait_until(lambda: not running(), "the processes of models to end")


def test_the_loss_of_all_these_processes_costs_a_question_and_no_more(world, ask, running):
    model = upload(world, torch.nn.Linear(2, 2))
    first = ask(model, [[1.0, 2.0]]).json()
    for process in running():
        process.kill()

    ask(model, [[1.0, 2.0]])  # finds that they have gone

    assert ask(model, [[1.0, 2.0]]).json() == first


def test_the_layers_are_summarised_by_the_servers_own_workers(world, running):
    file = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), file)
    fields = {"name": "m", "description": "d", "input_shape": ["None", "2"]}
    ann = world.accounts["ann"]
    made = world.call(ann, "POST", "/api/models/", data=fields, files={"model_file": file.getvalue()}).json()

    def stats() -> dict | None:
        return world.call(ann, "GET", f"/api/models/{made['model_id']}/metadata/").json()["stats"]

    wait_until(lambda: stats() is not None, "the summary of layers")
    assert stats()["total_params"] == 6
