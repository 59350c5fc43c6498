"""U1 to U20: whatever file comes, it is refused with a reason or taken in, and nothing in it is ever run.

Each file goes to a real server as a model and as an update. The server answers in its own words, keeps nothing of
what it refuses, and neither works for long nor swells.
"""

from __future__ import annotations

import re
import zipfile
from functools import cache, partial

import ml_dtypes
import numpy as np
import pytest
from chunks import BYTES
from harness import Server, World, as_file, copy
from hostile_files import archives, arrays, damage, encoded_files, onnx_files, safetensors_files, torch_files
from hostile_files.row import CANARY, MARKER, SECRET
from watching import cost_of, settled, stored

from folkmoot.tensors.encodings import Base, Encoding, encode


def named(tables):
    """The rows of all tables, each under the promise that it tries and the kind of file that it is."""
    return {
        f"{promise} {kind}: {words}": row
        for kind, table in tables.items()
        for promise, _, words, row in ((*name.partition(" "), row) for name, row in table.items())
    }


FILES = named(
    {
        "safetensors": safetensors_files.FILES,
        "zip": archives.FILES,
        "npz": arrays.FILES,
        "ONNX": onnx_files.FILES,
        "torch": torch_files.FILES,
        "damaged": damage.FILES,
    }
)
ENCODED = named({"encoded": encoded_files.FILES})
MIB = 2**20
MAX_GROWTH = 64 * MIB
MAX_SECONDS = 5
STATUS = {"too_large": 413}
NOT_OUR_WORDS = re.compile(r"Traceback|\b[A-Za-z_]*(Error|Exception)\b|site-packages|/src/")


@pytest.fixture(scope="module")
def besieged(sqlite_template, tmp_path_factory):
    """A world with a running server that has seen good files, and a round that is open to all."""
    place = copy(sqlite_template, tmp_path_factory.mktemp("besieged"))
    world = World(Server(place, FOLKMOOT_SWEEP_SECONDS="1"), sqlite_template.accounts, sqlite_template.model_id)
    world.server.start()
    CANARY.write_bytes(SECRET)
    try:
        people = world.participants(2)
        world.open = Open(world, world.started(people, rounds=1, tests="never"))
        world.open_to_encoded = Open(world, world.started(people, rounds=1, encoding=encoded_files.ENCODING))
        assert world.send(world.update_of(people[1], world.open.training, 0)).status_code == 201
        for file in damage.GOOD.values():
            assert as_model(world, file).status_code == 201
        yield world
    finally:
        world.server.kill()
        CANARY.unlink()


class Open:
    """A training whose first round waits for an update of the first participant."""

    def __init__(self, world, training):
        self.training = training
        self.model = world.training(training)["model"]


def as_model(world, file):
    form = {"name": "a model", "description": "d"}
    return world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("model.pt", file)})


def as_update(world, file, to=None):
    form = {"round": "0", "sample_size": "1"}
    path, files = f"/api/models/{(to or world.open).model}/", {"model_file": ("update.pt", file)}
    return world.call(world.participants(1)[0], "POST", path, data=form, files=files)


def as_raw_update(world, file, to=None):
    path, query = f"/api/models/{(to or world.open).model}/update/", {"round": "0", "sample_size": "1"}
    return world.call(world.participants(1)[0], "PUT", path, params=query, content=file, headers=BYTES)


def as_encoded_update(world, file):
    return as_update(world, file, world.open_to_encoded)


def as_raw_encoded_update(world, file):
    return as_raw_update(world, file, world.open_to_encoded)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_does_no_harm(besieged, name):
    check_harmless(besieged, as_model, FILES[name].build(), FILES[name].codes)


# An update is read as a model is, and then compared with the one that it belongs to: one file of each kind shows that.
FIRST = set({name.partition(":")[0]: name for name in reversed(FILES)}.values())
FOR_UPDATES = [pytest.param(name, marks=() if name in FIRST else pytest.mark.soak) for name in FILES]


@pytest.mark.parametrize("send", [as_update, as_raw_update])
@pytest.mark.parametrize("name", FOR_UPDATES)
def test_a_hostile_update_does_no_harm(besieged, name, send):
    check_harmless(besieged, send, FILES[name].build(), {*FILES[name].codes, "schema_mismatch"})


@pytest.mark.parametrize("send", [as_encoded_update, as_raw_encoded_update])
@pytest.mark.parametrize("name", ENCODED)
def test_a_hostile_encoded_update_does_no_harm(besieged, name, send):
    check_harmless(besieged, send, ENCODED[name].build(), ENCODED[name].codes)


def test_a_small_update_of_a_large_model_stays_small_in_memory(besieged, tmp_path):
    encoding = {"values": "int8", "top_k": 0.001, "difference": True, "zstd": 3}
    weights = {"w": np.zeros(30_000_000, "f4")}
    model = as_model(besieged, as_file(weights)).json()["model_id"]
    training = besieged.started(besieged.participants(2), model_id=model, rounds=1, encoding=encoding)
    encode(weights, Encoding(**encoding), tmp_path / "update", base=Base.of(weights))
    file = (tmp_path / "update").read_bytes()

    request = partial(as_update, besieged, file, Open(besieged, training))
    answer, cost = cost_of(besieged.server.process.pid, request)

    assert answer.status_code == 201
    assert len(file) < MIB
    assert cost.num_bytes < len(file) + MAX_GROWTH


def check_harmless(world, send, file, codes):
    before = stored(world.place)

    answer, cost = cost_of(world.server.process.pid, lambda: send(world, file))

    assert not MARKER.exists()
    assert SECRET not in answer.content
    if answer.status_code == 201:
        assert None in codes
        assert send is as_model
    else:
        check_refusal(answer, codes)
        assert settled(world.place) == before
    assert cost.seconds < MAX_SECONDS
    assert cost.num_bytes < len(file) + MAX_GROWTH, f"grew by {cost.num_bytes / MIB:.0f} MiB"
    assert world.call(None, "GET", "/healthz").status_code == 200


def check_refusal(answer, codes):
    body = answer.json()
    assert set(body) == {"detail", "code"}
    assert body["code"] in codes, body
    assert answer.status_code == STATUS.get(body["code"], 400)
    assert body["detail"]
    assert not NOT_OUR_WORDS.search(body["detail"]), body


DTYPES = {"F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def npz(array, dtype, **options):
    return archives.archive(("w.npy", archives.npy(array)), **options)


FORMATS = {
    "safetensors": safetensors_files.values,
    "npz": npz,
    "compressed npz": partial(npz, method=zipfile.ZIP_DEFLATED),
    "big-endian npz": lambda array, dtype: npz(array.astype(array.dtype.newbyteorder()), dtype),
    "ONNX": onnx_files.float_tensor,
    "torch": torch_files.of_values,
}
CASES = [(kind, dtype) for kind in FORMATS for dtype in DTYPES if not (dtype == "BF16" and "npz" in kind)]


@pytest.fixture(scope="module")
def models(besieged):
    """A function: a training whose model has the tensor w, of this dtype and in this format."""

    @cache
    def started(kind, dtype):
        answer = as_model(besieged, FORMATS[kind](np.zeros(9, DTYPES[dtype]), dtype))
        assert answer.status_code == 201, answer.text
        training = besieged.started(besieged.participants(2), model_id=answer.json()["model_id"], rounds=1)
        return Open(besieged, training)

    return started


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_value_that_is_not_finite_is_refused_and_named(besieged, models, kind, dtype, value):
    array = np.zeros(9, DTYPES[dtype])
    array[5] = value
    file, training = FORMATS[kind](array, dtype), models(kind, dtype)

    updates = [send(besieged, file, training) for send in (as_update, as_raw_update)]

    said = f"w holds {value} at [5]"
    assert as_model(besieged, file).json() == {"detail": f"Invalid model file: {said}", "code": "non_finite"}
    for answer in updates:
        assert (answer.status_code, answer.json()) == (400, {"detail": said, "code": "non_finite"})


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_the_largest_numbers_are_taken(besieged, models, kind, dtype):
    largest = ml_dtypes.finfo(DTYPES[dtype]).max
    file = FORMATS[kind](np.array([largest, -largest] * 4 + [0], DTYPES[dtype]), dtype)

    assert as_update(besieged, file, models(kind, dtype)).status_code == 201
