"""What a participant sends where the training asks for smaller updates; its training function knows nothing of it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from folkmoot.client import Hub, Participant
from folkmoot.protocol import paths
from folkmoot.tensors import Schema, TensorFile, write_tensors
from folkmoot.tensors.encodings import Base, decode, is_encoded

MODEL = {"weight": np.zeros(6, np.float32), "steps": np.array([7], np.int64)}
CHANGE = np.arange(1, 7, dtype=np.float32)
ONE_OF_SIX = {"top_k": 0.1}


@pytest.fixture
def app(scripted, answer, tmp_path):
    """Adds CHANGE to the weights, in every round; the hub hands out the same model all the time."""
    write_tensors(tmp_path / "model", MODEL)
    scripted.on("GET", paths.model("m"), *[answer(200, (tmp_path / "model").read_bytes(), {"ETag": '"1"'})] * 9)
    participant = Participant(Hub(scripted.url, "ab" * 20), draw=lambda: 0.0)
    scripted.when_out_of_words = participant.stop
    participant.train(lambda weights, task: ({**weights, "weight": weights["weight"] + CHANGE}, 1, {}))
    return participant


@pytest.fixture
def asked(scripted, answer):
    """Script the polls: a round for each of the given encodings, or another notification."""

    def script(*encodings):
        for number, encoding in enumerate(encodings):
            kind = encoding if isinstance(encoding, str) else "UPDATE_ROUND_START"
            body = {"round": number, "attempt": 1, "global_model_uuid": "m", "encoding": encoding}
            notification = {"id": number, "notification_type": kind, "training_uuid": "t", "body": body}
            scripted.on("GET", paths.NOTIFICATIONS, answer(200, {"notifications": [notification], "last_id": number}))

    return script


@pytest.fixture
def answers(scripted, answer):
    """Script what the hub says to each update."""

    def script(*statuses):
        codes = {201: {"update_id": "u"}, 200: {"update_id": "u"}, 400: {"detail": "no", "code": "conflict"}}
        scripted.on("PUT", paths.model_update("m"), *[status and answer(status, codes[status]) for status in statuses])

    return script


@pytest.fixture
def received(scripted, tmp_path):
    """A function: the updates as the hub decodes them."""

    def decoded(request):
        assert request.headers["X-Content-SHA256"] == hashlib.sha256(request.files["model_file"]).hexdigest()
        (tmp_path / "encoded").write_bytes(request.files["model_file"])
        assert is_encoded(tmp_path / "encoded")
        decode(tmp_path / "encoded", tmp_path / "decoded", expected=Schema.of(MODEL), base=Base.of(MODEL))
        return {name: np.array(tensor) for name, tensor in TensorFile.open(tmp_path / "decoded").items()}

    return lambda: [decoded(request) for request in scripted.received("PUT", paths.model_update("m"))]


@pytest.mark.parametrize(
    "encoding",
    [{"values": "float16"}, {"values": "int8", "difference": True, "zstd": 3}, {"zstd": 1}, {"top_k": 1}],
    ids=str,
)
def test_an_update_is_encoded_as_the_training_asks(app, asked, answers, received, encoding):
    asked(encoding)
    answers(201)

    app.run()

    (update,) = received()
    np.testing.assert_allclose(update["weight"], CHANGE, atol=6 / 254)
    assert update["steps"] == 7


def test_what_was_not_sent_is_sent_later(app, asked, answers, received):
    asked(ONE_OF_SIX, ONE_OF_SIX, ONE_OF_SIX)
    answers(201, 201, 201)

    app.run()

    first, second, third = (update["weight"].tolist() for update in received())
    assert first == [0, 0, 0, 0, 0, 6]
    assert second == [0, 0, 0, 0, 5 + 5, 0]
    assert third == [0, 0, 0, 4 + 4 + 4, 0, 0]  # of two that are equal the first


def test_what_the_hub_has_refused_was_not_sent(app, asked, answers, received):
    asked(ONE_OF_SIX, ONE_OF_SIX, ONE_OF_SIX)
    answers(201, 400, 201)

    app.run()

    _, refused, again = (update["weight"].tolist() for update in received())
    assert refused == again == [0, 0, 0, 0, 10, 0]


def test_an_update_that_is_sent_twice_is_left_over_from_once(app, asked, answers, received, lost):
    asked(ONE_OF_SIX, ONE_OF_SIX)
    answers(lost, 200, 201)

    app.run()

    first, same, second = (update["weight"].tolist() for update in received())
    assert first == same == [0, 0, 0, 0, 0, 6]
    assert second == [0, 0, 0, 0, 10, 0]


@pytest.mark.parametrize("end", ["TRAINING_FINISHED", "CLIENT_REMOVED"])
def test_what_is_left_is_forgotten_when_the_training_ends(app, asked, answers, received, end):
    asked(ONE_OF_SIX, end, ONE_OF_SIX)
    answers(201, 201)

    app.run()

    assert [update["weight"].tolist() for update in received()] == [[0, 0, 0, 0, 0, 6]] * 2


def test_a_number_that_is_not_finite_is_not_sent_and_named(app, asked, scripted, caplog):
    app.train(lambda weights, task: ({**weights, "weight": np.full(6, np.nan)}, 1, {}))
    asked({"values": "int8"})

    app.run()

    assert "weight holds nan" in caplog.text
    assert scripted.received("PUT", paths.model_update("m")) == []


def test_to_a_hub_that_asks_for_something_newer_updates_go_as_they_are(app, asked, answers, scripted, caplog, tmp_path):
    asked({"values": "int2"})
    answers(201)

    app.run()

    (request,) = scripted.received("PUT", paths.model_update("m"))
    (tmp_path / "plain").write_bytes(request.files["model_file"])
    np.testing.assert_array_equal(TensorFile.open(tmp_path / "plain")["weight"], CHANGE)
    assert "the update is sent as it is: encoding.values is 'int2'" in caplog.text
