"""`folkmoot training verify`, on the data of a hub that has trained."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

TRAIN = """
import io, json, sys
from pathlib import Path
from folkmoot.server.process import prepare

prepare(Path(sys.argv[1]))

import numpy as np
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.events import handle_next_event
from folkmoot.server.outbox.models import Lane
from folkmoot.server.registry import services
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import lifecycle, submissions
from folkmoot.server.trainings.creation import create_training
from folkmoot.server.trainings.manifest import manifest_of
from folkmoot.tensors import write_tensors

get_storage().prepare()

def incoming(value):
    path = Path(sys.argv[1]) / "file"
    write_tensors(path, {"w": np.full(2, value, "f4")})
    file = IncomingFile("file")
    file.append(path.read_bytes())
    return file

ada = User.objects.create_user("ada")
with incoming(0) as file:
    model = services.upload_model(file, owner=ada, name="m", description="d")
plan = {"target_num_updates": 2, "aggregation_method": "FedAvg", "options": {"tests": "never"}}
training = create_training(ada, model_id=str(model.pk), clients=[str(ada.pk)], **plan)
lifecycle.start(training, by=ada)
for round in range(2):
    with incoming(round + 1) as file:
        submissions.submit(model, ada, file, round=round, sample_size=1, metrics=[])
    while handle_next_event(Lane.TRAININGS):
        pass
print(json.dumps(manifest_of(training)))
"""


@pytest.fixture
def trained(environment, tmp_path):
    """The data folder, and the manifest, of a training of two rounds."""
    script = [sys.executable, "-c", TRAIN, tmp_path / "data"]
    run = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return tmp_path / "data", json.loads(run.stdout.splitlines()[-1])


def test_each_round_of_a_training_is_verified_until_a_file_is_damaged(folkmoot, trained, tmp_path):
    data, manifest = trained
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(manifest))

    by_id = folkmoot("training", "verify", manifest["training"], "--data-dir", data)
    by_file = folkmoot("training", "verify", file, "--round", 2, "--data-dir", data)

    assert (by_id.stdout, by_id.returncode) == ("round 1: ok\nround 2: ok\n", 0), by_id.stderr
    assert (by_file.stdout, by_file.returncode) == ("round 2: ok\n", 0), by_file.stderr

    update = manifest["rounds"][1]["recipe"]["inputs"][0]
    blob = data / "blobs" / update["sha256"][:2] / update["sha256"]
    blob.write_bytes(b"other bytes")

    damaged = folkmoot("training", "verify", file, "--data-dir", data)

    assert damaged.stdout == f"round 1: ok\nround 2: differs: update {update['update']} is damaged\n"
    assert damaged.returncode == 1


def test_where_there_was_nothing_to_compare_the_exit_code_and_a_sentence_say_so(folkmoot, trained, tmp_path):
    data, manifest = trained
    file = tmp_path / "manifest.json"
    for each in manifest["rounds"]:
        sha256 = each["recipe"]["inputs"][0]["sha256"]
        (data / "blobs" / sha256[:2] / sha256).unlink()
    file.write_text(json.dumps(manifest))
    none_kept = folkmoot("training", "verify", file, "--data-dir", data)
    file.write_text(json.dumps(manifest | {"rounds": []}))
    none_made = folkmoot("training", "verify", file, "--data-dir", data)

    assert (none_kept.returncode, none_made.returncode) == (3, 3)
    assert none_kept.stdout.count("not kept") == 2
    assert none_kept.stderr == "nothing was compared: of no round all files are kept\n"
    assert none_made.stderr == "nothing was compared: no round has made a model yet\n"


def test_what_is_neither_a_manifest_nor_a_training_is_one_line(folkmoot, tmp_path):
    (tmp_path / "text").write_text("text")
    (tmp_path / "list").write_text("[]")
    for given, sentence in (
        ("nothing", "neither a file nor the id of a training"),
        ("text", "text holds no JSON"),
        ("list", "this is no manifest of a training"),
    ):
        run = folkmoot("training", "verify", given, "--data-dir", tmp_path / "data")

        assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1), run.stderr
        assert sentence in run.stderr
