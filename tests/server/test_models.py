"""Models go up, and come down as they went up."""

from __future__ import annotations

import io
import zipfile
from uuid import uuid4

import numpy as np
import pytest
import safetensors.numpy

from folkmoot.server.registry.models import Checkpoint, Model
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import lifecycle

pytestmark = pytest.mark.django_db


def npz_of(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive():
    """A zip archive that other programs find behind anything."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("code.py", "print()")
    return file.getvalue()


def named(data, name="model.bin"):
    file = io.BytesIO(data)
    file.name = name
    return file


@pytest.fixture
def ada(make_user):
    return make_user("ada")


@pytest.fixture
def upload(as_, ada, tensors_file):
    """A function that uploads a good model, but for what it is told to change; None leaves a field out."""

    def send(user=ada, *, file=None, headers=None, **fields):
        data = tensors_file(w=[1, 2]) if file is None else file
        fields = {"name": "m", "description": "d", "model_file": named(data)} | fields
        fields = {name: value for name, value in fields.items() if value is not None}
        return as_(user).post("/api/models/", fields, headers=headers)

    return send


def test_a_model_is_taken_in(upload, as_, ada):
    answer = upload()

    model = Model.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {"detail": "Model Upload Accepted", "model_id": str(model.pk)}
    assert answer["Location"].endswith(f"/api/models/{model.pk}/")
    assert as_(ada).get("/api/models/").json() == [
        {
            "id": str(model.pk),
            "owner": str(ada.pk),
            "round": 0,
            "name": "m",
            "description": "d",
            "input_shape": None,
            "preprocessing": None,
            "has_preprocessing": False,
        }
    ]


FILES = {
    "safetensors": lambda tensors_file: tensors_file(b=[1, 2], a=3),
    "npz": lambda _: npz_of(w=np.arange(3.0), n=np.array(7)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_model_comes_down_as_it_went_up(upload, as_, ada, tensors_file, kind):
    data = FILES[kind](tensors_file)
    model_id = upload(file=data).json()["model_id"]

    answer = as_(ada).get(f"/api/models/{model_id}/")

    assert answer.status_code == 200
    assert answer.getvalue() == data
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Length"] == str(len(data))
    assert answer["Content-Disposition"] == f'attachment; filename="model-{model_id}.pt"'
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_the_same_model_is_not_sent_twice(upload, as_, ada):
    path = f"/api/models/{upload().json()['model_id']}/"
    etag = as_(ada).get(path)["ETag"]

    again = as_(ada).get(path, headers={"If-None-Match": etag})

    assert again.status_code == 304
    assert again["ETag"] == etag
    assert again.content == b""


def test_another_model_has_another_etag(upload, as_, ada, tensors_file):
    first, second = (upload(file=tensors_file(w=[each])).json()["model_id"] for each in (1, 2))

    assert as_(ada).get(f"/api/models/{first}/")["ETag"] != as_(ada).get(f"/api/models/{second}/")["ETag"]


def test_head_tells_the_size_without_the_bytes(upload, as_, ada, tensors_file):
    model_id = upload().json()["model_id"]

    answer = as_(ada).head(f"/api/models/{model_id}/")

    assert answer.status_code == 200
    assert answer["Content-Length"] == str(len(tensors_file(w=[1, 2])))
    assert answer.getvalue() == b""


@pytest.fixture
def trained(make_scene, work):
    """After one round; its two updates were (1, 2)."""
    scene = make_scene(options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    return scene


def test_the_latest_weights_are_sent_unless_a_round_is_named(trained):
    assert trained.weights() == [1, 2]
    assert trained.weights(round=1) == [1, 2]
    assert trained.weights(round=0) == [0, 0]


def test_weights_and_etag_change_with_a_round(trained, as_):
    path = f"/api/models/{trained.model_id}/"
    before = as_(trained.actor).get(path + "?round=0")["ETag"]

    after = as_(trained.actor).get(path, headers={"If-None-Match": before})

    assert after.status_code == 200


def test_an_npz_stays_an_npz_after_a_round(make_scene, make_model, make_user, work, as_):
    actor = make_user()
    model = make_model(actor, file=npz_of(w=np.zeros(2, "f4")))
    scene = make_scene(actor=actor, model=model, options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant, w=[3, 4])
    work()

    answer = as_(actor).get(f"/api/models/{model.pk}/")

    assert np.load(io.BytesIO(answer.getvalue()))["w"].tolist() == [3, 4]


def test_a_round_that_has_not_been_has_no_weights(trained, as_):
    answer = as_(trained.actor).get(f"/api/models/{trained.model_id}/?round=2")

    assert answer.status_code == 404
    assert answer.json() == {"detail": f"Model {trained.model_id} has no checkpoint 2.", "code": "not_found"}


@pytest.mark.parametrize("wrong", ["-1", "x", "1e3", "9" * 30, "1.5"])
def test_a_round_is_a_whole_number(trained, as_, wrong):
    answer = as_(trained.actor).get(f"/api/models/{trained.model_id}/?round={wrong}")

    assert answer.status_code == 400
    assert list(answer.json()) == ["round"]


def test_metadata_tells_what_tensors_there_are(upload, as_, ada, tensors_file):
    model_id = upload(file=tensors_file(a=[[1, 2, 3]], b=4)).json()["model_id"]

    shown = as_(ada).get(f"/api/models/{model_id}/metadata/").json()

    assert [(each["name"], each["dtype"], each["shape"]) for each in shown["tensors"]] == [
        ("a", "F32", [1, 3]),
        ("b", "F32", []),
    ]
    assert shown["stats"] is None
    assert shown["name"] == "m"
    assert shown["has_preprocessing"] is False


@pytest.mark.parametrize("free", ["None", "null"])
def test_a_free_dimension_is_null(upload, free):
    upload(input_shape=[free, "1", "28", "28"])

    assert Model.objects.get().input_shape == [None, 1, 28, 28]


def test_a_model_may_begin_at_a_later_round(upload, as_, ada):
    model_id = upload(round=5).json()["model_id"]

    assert as_(ada).get(f"/api/models/{model_id}/metadata/").json()["round"] == 5
    assert as_(ada).get(f"/api/models/{model_id}/?round=5").status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", None, "Missing required field: name"),
        ("name", "", "Missing required field: name"),
        ("description", None, "Missing required field: description"),
        ("model_file", None, "No uploaded file 'model_file' found."),
        ("model_file", "text", "No uploaded file 'model_file' found."),
        ("round", "-1", "round must be a whole number from 0 to 1000000"),
        ("round", "two", "round must be a whole number from 0 to 1000000"),
        ("round", "9" * 5000, "round must be a whole number from 0 to 1000000"),
        ("input_shape", ["0"], "input_shape must be made of positive whole numbers, or None where free"),
        ("input_shape", ["-1"], "input_shape must be made of positive whole numbers, or None where free"),
        ("input_shape", ["\u0663"], "input_shape must be made of positive whole numbers, or None where free"),
        ("input_shape", ["9" * 5000], "input_shape must be made of positive whole numbers, or None where free"),
    ],
)
def test_what_is_wrong_with_a_field_is_said(upload, field, value, sentence):
    answer = upload(**{field: value})

    assert answer.status_code == 400
    assert answer.json() == {"detail": sentence, "code": "invalid_value"}
    assert not Model.objects.exists()


@pytest.mark.parametrize("field", ["name", "description"])
@pytest.mark.parametrize("value", ["a" * 10_001, "a\0b"])
def test_a_text_without_end_or_with_nul_is_refused(upload, field, value):
    assert upload(**{field: value}).status_code == 400


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unsupported_container"),
        (b"garbage", "unsupported_container"),
        (b"PK\x03\x04 but no zip", "unsupported_container"),
        (b"\x80\x04\x95 a pickle", "unsupported_container"),
        (b"\xff" * 100, "unsupported_container"),
        (npz_of(w=np.array([object()], dtype=object)), "invalid_file"),
        (npz_of(w=np.array([np.nan])), "non_finite"),
        (safetensors.numpy.save({"w": np.frombuffer(archive(), "u1")}), "invalid_file"),
        (npz_of(w=np.frombuffer(archive(), "u1")), "invalid_file"),
    ],
)
def test_a_file_that_is_no_model_is_refused(upload, storage, data, code):
    answer = upload(file=data)

    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.json()["detail"].startswith("Invalid model file: ")
    assert not Model.objects.exists()
    assert list(storage.root.glob("??/*")) == []


def test_nothing_of_a_refused_file_is_left(upload, storage):
    upload(file=b"garbage")

    assert list((storage.root / "incoming").iterdir()) == []


def test_a_file_that_nobody_asked_for_is_not_kept(upload, storage):
    assert upload(another_file=named(b"whatever")).status_code == 201

    assert list((storage.root / "incoming").iterdir()) == []


def test_a_file_over_the_limit_is_too_large(upload, settings):
    settings.MAX_UPLOAD_BYTES = 1000

    answer = upload(file=b"x" * 1001)

    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"
    assert "1,000" in answer.json()["detail"]


def test_bytes_that_changed_on_the_way_are_refused(upload):
    answer = upload(headers={"X-Content-SHA256": "0" * 64})

    assert answer.status_code == 422
    assert answer.json()["code"] == "digest_mismatch"
    assert not Model.objects.exists()


def test_an_announced_digest_that_is_right_is_no_hindrance(upload, tensors_file):
    incoming = IncomingFile("x")
    incoming.append(tensors_file(w=[1, 2]))

    assert upload(headers={"X-Content-SHA256": incoming.sha256.upper()}).status_code == 201


def test_the_same_file_twice_is_stored_once(upload, storage):
    upload()
    upload()

    assert Model.objects.count() == 2
    assert len(list(storage.root.glob("??/*"))) == 1


def test_a_body_that_is_no_form_has_no_name(as_, ada):
    answer = as_(ada).send("POST", "/api/models/", {})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Missing required field")


def test_models_of_trainings_that_one_takes_part_in_are_listed(make_training, as_, make_model):
    make_model()
    training = make_training(participants=1)

    for user in (training.actor, training.participants.get()):
        assert [each["id"] for each in as_(user).get("/api/models/").json()] == [str(training.model_id)]


def test_each_model_is_listed_once(make_training, as_):
    actor = make_training().actor

    assert len(as_(actor).get("/api/models/").json()) == 1


# Metrics


@pytest.fixture
def model(make_model, ada):
    return make_model(ada)


@pytest.fixture
def metrics(as_, ada, model):
    """A function: report, then see what is shown."""

    def report(names, values, *, kind="json", user=ada):
        path, body = f"/api/models/{model.pk}/metrics/", {"metric_names": names, "metric_values": values}
        if kind == "json":
            answer = as_(user).send("POST", path, body)
        elif kind == "form":
            from urllib.parse import urlencode

            answer = as_(user).post(path, urlencode(body, doseq=True), "application/x-www-form-urlencoded")
        else:
            answer = as_(user).post(path, body)
        return answer, as_(ada).get(path).json()

    return report


@pytest.mark.parametrize("kind", ["json", "form", "multipart"])
def test_metrics_are_kept_however_they_come(metrics, ada, model, kind):
    answer, shown = metrics(["loss", "accuracy"], ["0.5", "1"], kind=kind)

    assert answer.status_code == 201
    assert answer.json() == {"detail": "Model Metrics Upload Accepted", "model_id": str(model.pk)}
    assert [(each["key"], each["value_float"], each["value_binary"]) for each in shown] == [
        ("loss", 0.5, None),
        ("accuracy", 1.0, None),
    ]
    assert {(each["model"], each["reporter"], each["step"]) for each in shown} == {(str(model.pk), str(ada.pk), 0)}
    assert set(shown[0]) >= {"id", "identifier", "key", "value_float", "value_binary", "step", "model", "reporter"}


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_kept_as_null_and_said_so(metrics, value):
    _, shown = metrics(["loss"], [value])

    assert (shown[0]["value_float"], shown[0]["value_binary"], shown[0]["finite"]) == (None, None, False)


@pytest.mark.parametrize("kind", ["json", "form", "multipart"])
def test_a_name_that_comes_twice_is_kept_twice_in_order(metrics, kind):
    _, shown = metrics(["loss", "note", "loss"], ["0.5", "good", "0.25"], kind=kind)

    assert [(each["key"], each["value_float"]) for each in shown] == [("loss", 0.5), ("note", None), ("loss", 0.25)]


def test_what_is_no_number_is_kept_as_its_bytes(metrics):
    _, shown = metrics(["note"], ["good"])

    assert (shown[0]["value_float"], shown[0]["value_binary"], shown[0]["finite"]) == (None, "Z29vZA==", True)


@pytest.mark.parametrize(
    ("names", "values", "sentence"),
    [
        ([], [], "Metric names or values are missing"),
        (["loss"], [], "Metric names or values are missing"),
        ([], [1], "Metric names or values are missing"),
        (["a", "b"], [1], "Metric names and values must have the same length"),
        (["a"], [1, 2], "Metric names and values must have the same length"),
        (["n" * 65], [1], f"a metric name may have 64 characters: {'n' * 65}"),
        (["m"] * 1001, [1] * 1001, "1001 metrics came; at most 1000 are taken in one request"),
        (["m"], ["x" * 65_537], "metric m has 65,537 bytes; at most 65,536 are taken"),
    ],
)
def test_what_is_wrong_with_metrics_is_said(metrics, names, values, sentence):
    answer, shown = metrics(names, values)

    assert answer.status_code == 400
    assert answer.json() == {"detail": sentence, "code": "invalid_value"}
    assert shown == []


@pytest.mark.parametrize("kind", ["json", "form", "multipart"])
def test_a_thousand_metrics_are_taken_at_once(metrics, kind):
    names = [f"m{number}" for number in range(1000)]

    answer, shown = metrics(names, [1] * 1000, kind=kind)

    assert answer.status_code == 201
    assert len(shown) == 1000


def test_a_stranger_reports_no_metrics(metrics, make_user):
    answer, shown = metrics(["loss"], [1], user=make_user())

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."
    assert shown == []


# Updates to a model that is not being trained


def test_a_model_without_a_training_takes_no_updates(as_, ada, model, tensors_file):
    fields = {"round": 0, "sample_size": 1, "model_file": named(tensors_file(w=[1, 2]))}

    answer = as_(ada).post(f"/api/models/{model.pk}/", fields)

    assert answer.status_code == 404
    assert answer.json() == {
        "detail": f"Model with ID {model.pk} does not have a training process running",
        "code": "not_found",
    }


def test_a_model_stays_when_its_training_goes(trained, as_):
    lifecycle.delete(trained.training)

    assert as_(trained.actor).get(f"/api/models/{trained.model_id}/").status_code == 200
    assert Checkpoint.objects.filter(model=trained.model_id).count() == 2


def test_an_unknown_model_takes_no_updates(as_, ada):
    unknown = uuid4()

    answer = as_(ada).post(f"/api/models/{unknown}/", {})

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"Model {unknown} not found."
