"""Updates that come in fewer bytes: taken where the training asks for it, and never merged with another model."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import zstandard

from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.models import Training, Update
from folkmoot.tensors import TensorFile, open_tensors
from folkmoot.tensors.encodings import Base, Encoding, encode

pytestmark = pytest.mark.django_db

OPTIONS = {"values": "int8", "difference": True, "zstd": 3}


@pytest.fixture
def encoded(tmp_path):
    """A function: the bytes of an encoded update, in float32."""

    def make(options, tensors, base=None, dtype="f4"):
        arrays, path = as_arrays(tensors, dtype), tmp_path / "encoded"
        encode(arrays, Encoding.of(options), path, base=Base.of(as_arrays(base)) if base else None)
        return path.read_bytes()

    return make


def as_arrays(tensors, dtype="f4"):
    return {name: np.asarray(values, dtype) for name, values in tensors.items()}


@pytest.fixture
def scene(make_scene):
    """Two rounds of a model whose tensor `w` is [0, 0]."""
    return make_scene(target_num_updates=2, options={"encoding": OPTIONS, "tests": "never"})


@pytest.fixture
def weights(scene, as_):
    def download():
        answer = as_(scene.actor).get(f"/api/models/{scene.model_id}/")
        return {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()}

    return download


def test_participants_are_told_how_to_encode(scene):
    asked = dict(scene.told(scene.participants[0]))["UPDATE_ROUND_START"]

    assert asked["encoding"] == OPTIONS


def test_participants_of_other_trainings_are_told_nothing_of_it(make_scene):
    scene = make_scene()

    assert "encoding" not in dict(scene.told(scene.participants[0]))["UPDATE_ROUND_START"]


def test_encoded_updates_are_merged_as_any_other(scene, encoded, weights, work):
    one, other = scene.participants
    scene.send_update(one, file=encoded(OPTIONS, {"w": [1.27, 0.5]}, {"w": [0, 0]}))
    scene.send_update(other, w=(3.27, 1.5))
    work()

    assert weights()["w"] == pytest.approx([2.27, 1.0], abs=1.27 / 254)


def test_differences_are_to_the_model_of_the_round(scene, encoded, weights, work):
    for number, before in enumerate(([0, 0], None)):
        base = {"w": before} if before else weights()
        for user in scene.participants:
            answer = scene.send_update(user, round=number, file=encoded(OPTIONS, {"w": [4, number]}, base))
            assert answer.status_code == 201
        work()

    assert scene.state == "C"
    assert weights()["w"] == pytest.approx([4, 1], abs=0.02)


def test_a_difference_to_another_model_is_refused_and_a_right_one_taken(scene, encoded):
    user = scene.participants[0]

    answer = scene.send_update(user, file=encoded(OPTIONS, {"w": [1, 1]}, {"w": [0, 0.001]}))

    assert (answer.status_code, answer.json()["code"]) == (400, "conflict")
    assert "which is not the one that this round began with" in answer.json()["detail"]
    assert not Update.objects.exists()
    assert scene.send_update(user, file=encoded(OPTIONS, {"w": [1, 1]}, {"w": [0, 0]})).status_code == 201


def test_an_encoded_update_is_refused_where_none_was_asked_for(make_scene, encoded):
    scene = make_scene()
    user = scene.participants[0]

    for options in ({"values": "float16"}, {"zstd": 1}):
        answer = scene.send_update(user, file=encoded(options, {"w": [1, 1]}))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
        assert "send plain tensors" in answer.json()["detail"]
    assert scene.send_update(user).status_code == 201


def test_an_update_is_known_by_the_bytes_that_came(scene, encoded):
    user, file = scene.participants[0], encoded(OPTIONS, {"w": [1, 1]}, {"w": [0, 0]})

    first, second = scene.send_update(user, file=file), scene.send_update(user, file=file)

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    update = Update.objects.get()
    assert (update.format, update.received_bytes) == ("encoded", len(file))
    assert update.received_sha256 == hashlib.sha256(file).hexdigest()
    stored = TensorFile.open(get_storage().path(update.sha256))
    assert stored.is_canonical
    assert stored.num_bytes == update.num_bytes


def test_another_encoding_of_the_same_update_is_another_update(scene, encoded):
    user, base = scene.participants[0], {"w": [0, 0]}
    scene.send_update(user, file=encoded(OPTIONS, {"w": [1, 1]}, base))

    answer = scene.send_update(user, file=encoded({**OPTIONS, "zstd": 4}, {"w": [1, 1]}, base))

    # of so few numbers both levels may make the same bytes, and then it is the same update
    assert answer.status_code in (200, 409)
    assert Update.objects.count() == 1


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({"w": [np.nan, 1]}, "non_finite"),
        ({"w": [1, 1, 1]}, "schema_mismatch"),
        ({"v": [1, 1]}, "schema_mismatch"),
        ({"w": [1, 1], "v": [1]}, "schema_mismatch"),
    ],
)
def test_an_encoded_update_is_checked_as_any_other(scene, encoded, tensors, code):
    answer = scene.send_update(scene.participants[0], file=encoded({"zstd": 3}, tensors))

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not Update.objects.exists()
    assert not list((get_storage().root / "incoming").iterdir())


def test_a_bomb_is_refused_and_leaves_nothing(scene, settings):
    content = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))

    answer = scene.send_update(scene.participants[0], file=content)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "more than the model needs" in answer.json()["detail"]
    assert not list((get_storage().root / "incoming").iterdir())


def test_damaged_and_truncated_updates_are_refused(scene, encoded):
    file = encoded(OPTIONS, {"w": [1, 1]}, {"w": [0, 0]})

    for broken in (file[:-1], file + b"x", file[:40] + bytes([file[40] ^ 1]) + file[41:]):
        answer = scene.send_update(scene.participants[0], file=broken)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_file")


def test_encoded_updates_of_some_tensors_are_merged(make_scene, make_model, make_user, encoded, as_, work):
    actor = make_user()
    model = make_model(actor, **{"body.weight": [1.0, 2.0], "head.lora": [0.0]})
    options = {"exchange": ["*lora*"], "encoding": {"top_k": 1, "values": "int8"}, "tests": "never"}
    scene = make_scene(actor=actor, model=model, target_num_updates=2, options=options)

    for number, before in enumerate((0.0, 2.0)):
        file = encoded(options["encoding"], {"head.lora": [before + 2]}, {"head.lora": [before]})
        for user in scene.participants:
            assert scene.send_update(user, round=number, file=file).status_code == 201
        work()

    answer = as_(actor).get(f"/api/models/{model.pk}/")
    tensors = {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()}
    assert tensors == {"body.weight": [1, 2], "head.lora": [4]}


@pytest.mark.parametrize(
    ("encoding", "sentence"),
    [
        ({"values": "int4"}, "encoding.values is 'int4', expected one of exact, float16, bfloat16, int8"),
        ({"top_k": 2}, "encoding.top_k is 2, expected a fraction over 0 and at most 1"),
        ({"quantise": True}, "encoding has no quantise"),
    ],
)
def test_an_encoding_that_there_is_not_is_refused(as_, make_user, make_model, encoding, sentence):
    actor = make_user()
    body = {
        "model_id": str(make_model(actor).pk),
        "target_num_updates": 1,
        "aggregation_method": "FedAvg",
        "clients": [],
        "options": {"encoding": encoding},
    }

    answer = as_(actor).send("POST", "/api/trainings/", body)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
    assert sentence in answer.json()["detail"]
    assert not Training.objects.exists()


def saved_by(kind):
    """A model file of another format with a view, a tie and a statistic, as far as the format has these."""
    weight = np.arange(6, dtype="f4").reshape(2, 3)
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, weight=weight.T, big=weight.astype(">f4"), steps=np.array(3))
    else:
        torch = pytest.importorskip("torch")
        tensor = torch.from_numpy(weight)
        torch.save({"weight": tensor.T, "tied": tensor.T, "half": tensor.bfloat16(), "steps": torch.tensor(3)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["npz", "torch"])
def test_the_base_is_the_same_in_whatever_format_a_model_is_downloaded(
    make_scene, make_model, make_user, as_, work, tmp_path, kind
):
    actor = make_user()
    options = {"encoding": {"values": "int8", "difference": True}, "tests": "never"}
    model = make_model(actor, file=saved_by(kind))
    scene = make_scene(actor=actor, model=model, target_num_updates=2, options=options)

    for number in range(2):
        (tmp_path / "model").write_bytes(as_(actor).get(f"/api/models/{scene.model_id}/").getvalue())
        downloaded = open_tensors(tmp_path / "model")
        update = {name: (np.asarray(array) + 1).astype(array.dtype) for name, array in downloaded.items()}
        encode(update, Encoding.of(options["encoding"]), tmp_path / "encoded", base=Base.of(downloaded))
        for user in scene.participants:
            answer = scene.send_update(user, round=number, file=(tmp_path / "encoded").read_bytes())
            assert answer.status_code == 201, answer.json()
        work()

    assert scene.state == "C"


def test_an_encoded_update_is_no_model(encoded, make_user, as_):
    model_file = io.BytesIO(encoded({"values": "float16"}, {"w": [1, 2]}))
    model_file.name = "model.safetensors"

    answer = as_(make_user()).post("/api/models/", {"name": "m", "description": "d", "model_file": model_file})

    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_container")
    assert "encoded update" in answer.json()["detail"]


def test_an_encoded_update_that_becomes_an_archive_is_refused(make_scene, make_model, make_user, encoded, tensors_file):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("code.py", "print()")
    hidden, plain = np.frombuffer(archive.getvalue(), "u1"), np.zeros(len(archive.getvalue()), "u1")
    actor = make_user()
    model = make_model(actor, file=tensors_file(x=plain))
    scene = make_scene(actor=actor, model=model, options={"encoding": {"zstd": 1}})

    answer = scene.send_update(scene.participants[0], file=encoded({"zstd": 1}, {"x": hidden}, dtype="u1"))

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_file")
    assert "zip archive" in answer.json()["detail"]
