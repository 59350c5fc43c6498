"""U1 to U20: whatever file comes, it is refused with a reason or taken in, and nothing in it is ever run.

Each file goes to a real server as a model and as an update. The server answers in its own words, keeps nothing of
what it refuses, and neither works for long nor swells.
"""

from __future__ import annotations

import re

import pytest
from harness import Server, World, copy
from hostile_files import archives, arrays, damage, onnx_files, safetensors_files
from hostile_files.row import CANARY, MARKER, SECRET
from watching import cost_of, settled, stored

FILES = {
    f"{promise} {kind}: {words}": row
    for kind, table in {
        "safetensors": safetensors_files.FILES,
        "zip": archives.FILES,
        "npz": arrays.FILES,
        "ONNX": onnx_files.FILES,
        "damaged": damage.FILES,
    }.items()
    for promise, _, words, row in ((*name.partition(" "), row) for name, row in table.items())
}
MIB = 2**20
MAX_GROWTH = 64 * MIB
MAX_SECONDS = 5
STATUS = {"too_large": 413}
NOT_OUR_WORDS = re.compile(r"Traceback|\b[A-Za-z_]*(Error|Exception)\b|site-packages|/src/|\.py\b")


@pytest.fixture(scope="module")
def besieged(sqlite_template, tmp_path_factory):
    """A world with a running server that has seen good files, and a round that is open to all."""
    place = copy(sqlite_template, tmp_path_factory.mktemp("besieged"))
    world = World(Server(place, FOLKMOOT_SWEEP_SECONDS="1"), sqlite_template.accounts, sqlite_template.model_id)
    world.server.start()
    CANARY.write_bytes(SECRET)
    try:
        world.besieged_training = world.started(world.participants(2), rounds=1, tests="never")
        world.send(world.update_of(world.participants(2)[1], world.besieged_training, 0))
        for file in damage.GOOD.values():
            assert as_model(world, file).status_code == 201
        yield world
    finally:
        world.server.kill()
        CANARY.unlink()


def as_model(world, file):
    form = {"name": "a model", "description": "d"}
    return world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("model.pt", file)})


def as_update(world, file):
    training = world.training(world.besieged_training)
    form = {"round": "0", "sample_size": "1"}
    files = {"model_file": ("update.pt", file)}
    return world.call(world.participants(1)[0], "POST", f"/api/models/{training['model']}/", data=form, files=files)


@pytest.mark.parametrize("send", [as_model, as_update])
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_does_no_harm(besieged, name, send):
    file = FILES[name].build()
    before = stored(besieged.place)

    answer, cost = cost_of(besieged.server.process.pid, lambda: send(besieged, file))

    assert not MARKER.exists()
    assert SECRET not in answer.content
    if answer.status_code == 201:
        assert None in FILES[name].codes
        assert send is as_model
    else:
        check_refusal(answer, codes_for(send, FILES[name].codes))
        assert settled(besieged.place) == before
    assert cost.seconds < MAX_SECONDS
    assert cost.num_bytes < len(file) + MAX_GROWTH, f"grew by {cost.num_bytes / MIB:.0f} MiB"
    assert besieged.call(None, "GET", "/healthz").status_code == 200


def codes_for(send, codes):
    # An update is compared with the model before its values are read.
    return {*codes, "schema_mismatch"} if send is as_update else {*codes}


def check_refusal(answer, codes):
    body = answer.json()
    assert set(body) == {"detail", "code"}
    assert body["code"] in codes, body
    assert answer.status_code == STATUS.get(body["code"], 400)
    assert body["detail"]
    assert not NOT_OUR_WORDS.search(body["detail"]), body
