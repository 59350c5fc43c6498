"""The HTTP layer, against a real listener."""

import hashlib
import io
import json
import shlex
import socket
import ssl
import subprocess
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
import safetensors.numpy

from folkmoot import errors
from folkmoot.client import Hub, Notification
from folkmoot.client.answers import Busy
from folkmoot.protocol import paths

TOKEN = "ab" * 20


@pytest.fixture
def hub(scripted):
    with Hub(scripted.url, TOKEN) as hub:
        yield hub


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"the bytes of a model")
    return path


def raised_by(hub, scripted, answer):
    scripted.on("GET", paths.training("t"), answer)
    with pytest.raises(errors.FolkmootError) as caught:
        hub.training("t")
    return caught.value


@pytest.mark.parametrize("code", [code for code, kind in errors.BY_CODE.items() if kind is not errors.NotAuthenticated])
def test_the_error_that_the_server_raised_is_raised_again(hub, scripted, answer, code):
    error = raised_by(hub, scripted, answer(400, {"detail": "in one sentence", "code": code}))

    assert type(error) is errors.BY_CODE[code]
    assert (error.message, error.code) == ("in one sentence", code)


def test_the_errors_of_a_form_name_their_fields(hub, scripted, answer):
    body = {"name": ["Too long."], "clients": {"0": ["Not a valid UUID."]}}

    error = raised_by(hub, scripted, answer(400, body, {"X-Error-Code": "invalid_value"}))

    assert type(error) is errors.InvalidValue
    assert error.message == "name: Too long.; clients: 0: Not a valid UUID."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidInput),
        (401, errors.NotAuthenticated),
        (403, errors.NotAllowed),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (429, errors.Unavailable),
        (500, errors.Internal),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
        (507, errors.StorageFull),
    ],
)
def test_a_page_without_a_code_is_judged_by_its_status(hub, scripted, answer, status, kind):
    error = raised_by(hub, scripted, answer(status, b"<html>some proxy</html>"))

    assert type(error) is kind
    assert f"{status}" in error.message


@pytest.mark.parametrize(("status", "kind"), [(401, errors.NotAuthenticated), (503, errors.Unavailable)])
def test_no_code_turns_who_are_you_or_try_again_into_something_else(hub, scripted, answer, status, kind):
    assert type(raised_by(hub, scripted, answer(status, {"detail": "", "code": "conflict"}))) is kind


def test_a_code_of_a_newer_hub_is_kept(hub, scripted, answer):
    error = raised_by(hub, scripted, answer(409, {"detail": "", "code": "from_the_future"}))

    assert type(error) is errors.Conflict
    assert error.code == "from_the_future"


def test_a_busy_hub_says_for_how_long(hub, scripted, answer):
    error = raised_by(hub, scripted, answer(503, {"detail": ""}, {"Retry-After": "7"}))

    assert isinstance(error, Busy)
    assert error.retry_after == 7


def test_a_full_hub_says_for_how_long(hub, scripted, answer):
    error = raised_by(hub, scripted, answer(507, {"detail": "", "code": "storage_full"}, {"Retry-After": "7"}))

    assert isinstance(error, Busy)
    assert isinstance(error, errors.StorageFull)
    assert (error.code, error.retry_after) == ("storage_full", 7)


def test_a_busy_hub_may_name_a_date(hub, scripted, answer):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)

    error = raised_by(hub, scripted, answer(429, {"detail": ""}, {"Retry-After": date}))

    assert error.retry_after == pytest.approx(300, abs=5)


@pytest.mark.parametrize("nonsense", ["soon", "-5", "1e9", ""])
def test_a_pause_that_cannot_be_read_is_as_good_as_none(hub, scripted, answer, nonsense):
    assert type(raised_by(hub, scripted, answer(503, {"detail": ""}, {"Retry-After": nonsense}))) is errors.Unavailable


def test_a_hub_that_does_not_listen_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with Hub(url, TOKEN) as hub, pytest.raises(errors.Unavailable, match=url):
            hub.training("t")


def test_an_answer_that_never_came_is_unavailable(hub, scripted, lost):
    scripted.on("GET", paths.training("t"), lost)

    with pytest.raises(errors.Unavailable):
        hub.training("t")


def test_an_error_page_of_any_size_is_read_only_at_its_beginning(hub, scripted, answer):
    page = b"x" * (32 << 20)
    tracemalloc.start()
    error = raised_by(hub, scripted, answer(404, page))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert isinstance(error, errors.NotFound)
    assert peak < 4 << 20


def test_a_redirect_names_the_address_to_use(hub, scripted, answer):
    error = raised_by(hub, scripted, answer(301, b"", {"Location": "https://elsewhere.example/"}))

    assert type(error) is errors.Misconfigured
    assert "https://elsewhere.example/" in error.message


@pytest.mark.parametrize(
    "url", ["", "hub.example.org", "ftp://hub", "http://", "http://hub:99999", "http://[::1", "http://hub:0"]
)
def test_a_bad_address_is_refused_at_once(url):
    with pytest.raises(errors.Misconfigured, match="not the address of a hub"):
        Hub(url, TOKEN)


def test_an_address_with_a_password_is_refused_without_repeating_it():
    with pytest.raises(errors.Misconfigured) as caught:
        Hub("https://me:secret@hub.example.org", TOKEN)

    assert "secret" not in str(caught.value)


def test_a_hub_may_live_below_a_path(scripted, answer):
    scripted.on("GET", "/folkmoot" + paths.training("t"), answer(200, {"id": "t"}))

    with Hub(f"{scripted.url}/folkmoot", TOKEN) as hub:
        assert hub.training("t") == {"id": "t"}


def test_every_request_carries_the_token(hub, scripted, answer):
    scripted.on("GET", paths.training("t"), answer(200, {}))

    hub.training("t")

    assert scripted.requests[0].headers["Authorization"] == f"Token {TOKEN}"


def test_registering_needs_no_token(scripted, answer):
    scripted.on("POST", paths.USERS, answer(201, {"id": "u", "token": TOKEN}))

    with Hub(scripted.url) as hub:
        user = hub.register("ada", "a long password", actor=True)

    assert user["token"] == TOKEN
    assert "Authorization" not in scripted.requests[0].headers


def test_a_model_goes_up_with_its_name(hub, scripted, answer, model_file):
    scripted.on("POST", paths.MODELS, answer(201, {"detail": "", "model_id": "m"}))

    assert hub.upload_model("digits", "a network", model_file) == "m"

    request = scripted.requests[0]
    assert request.fields == {"name": ["digits"], "description": ["a network"]}
    assert request.files == {"model_file": b"the bytes of a model"}


def test_an_update_goes_up_with_its_round_its_weight_and_its_metrics(hub, scripted, answer, model_file):
    scripted.on("PUT", paths.model_update("m"), answer(201, {"detail": "", "update_id": "u"}))

    update_id = hub.upload_update("m", 3, 120, model_file, {"loss": 0.5, "gap": float("nan")}, sha256="00ff")

    request = scripted.requests[0]
    assert update_id == "u"
    assert request.headers["X-Content-SHA256"] == "00ff"
    assert request.files == {"model_file": b"the bytes of a model"}
    assert request.fields == {
        "round": ["3"],
        "sample_size": ["120"],
        "metric_names": ["loss", "gap"],
        "metric_values": ["0.5", "nan"],
    }


def test_an_update_of_any_size_is_streamed(hub, scripted, answer, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((64 << 20) - 1)
    scripted.keeps_bodies = False
    scripted.on("PUT", paths.model_update("m"), answer(201, {"update_id": "u"}))
    tracemalloc.start()

    hub.upload_update("m", 0, 1, large, {})

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_metrics_go_up_even_if_one_is_not_a_number(hub, scripted, answer):
    scripted.on("POST", paths.model_metrics("m"), answer(201, {"detail": ""}))

    hub.upload_metrics("m", {"accuracy": 0.25, "f1": float("nan"), "num_examples": 4})

    assert scripted.requests[0].fields == {
        "metric_names": ["accuracy", "f1", "num_examples"],
        "metric_values": ["0.25", "nan", "4.0"],
    }


def test_a_download_returns_its_etag(hub, scripted, answer, tmp_path):
    scripted.on("GET", paths.model("m"), answer(200, b"weights", {"ETag": '"1"'}))

    assert hub.download_model("m", tmp_path / "model", round=2) == '"1"'

    assert (tmp_path / "model").read_bytes() == b"weights"
    assert scripted.requests[0].query == {"round": ["2"]}


def test_a_model_that_has_not_changed_is_not_sent_again(hub, scripted, answer, tmp_path):
    (tmp_path / "model").write_bytes(b"weights")
    scripted.on("GET", paths.model("m"), answer(304, b""))

    assert hub.download_model("m", tmp_path / "model", etag='"1"') == '"1"'

    assert (tmp_path / "model").read_bytes() == b"weights"
    assert scripted.requests[0].headers["If-None-Match"] == '"1"'


def test_a_download_that_is_cut_leaves_the_file_of_before(hub, scripted, answer, tmp_path):
    (tmp_path / "model").write_bytes(b"weights of before")
    scripted.on("GET", paths.model("m"), answer(200, b"n" * 100_000, cut=70_000))

    with pytest.raises(errors.Unavailable):
        hub.download_model("m", tmp_path / "model")

    assert (tmp_path / "model").read_bytes() == b"weights of before"


def test_a_model_is_asked_for_in_another_format_or_in_part(hub, scripted, answer, tmp_path):
    scripted.on("GET", paths.model("m"), answer(200, b"weights"))

    hub.download_model("m", tmp_path / "model", round=0, format="npz", part="exchange")

    assert scripted.requests[0].query == {"round": ["0"], "as": ["npz"], "part": ["exchange"]}


DATA = bytes(range(256)) * 400
HAS = {"ETag": '"1"', "X-Content-SHA256": hashlib.sha256(DATA).hexdigest()}


@pytest.fixture
def the_rest(answer):
    """As a hub answers that still has the same file."""

    def make(request):
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return answer(206, DATA[start:], HAS | {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"})

    return make


@pytest.fixture
def broken_off(hub, scripted, answer, tmp_path):
    """A download that was cut; returns a function that tries once more."""
    scripted.on("GET", paths.model("m"), answer(200, DATA, HAS, cut=70_000))
    with pytest.raises(errors.Unavailable):
        hub.download_model("m", tmp_path / "model")

    def again(*answers):
        scripted.on("GET", paths.model("m"), *answers)
        return hub.download_model("m", tmp_path / "model")

    return again


def test_a_download_that_was_cut_goes_on_there(broken_off, the_rest, scripted, tmp_path):
    assert broken_off(the_rest) == '"1"'

    asked = scripted.requests[-1].headers
    assert 1 < int(asked["Range"].removeprefix("bytes=").removesuffix("-")) < 70_000
    assert asked["If-Range"] == '"1"'
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == DATA


def test_a_download_that_only_had_to_be_put_in_its_place_goes_on_too(broken_off, the_rest, tmp_path):
    (tmp_path / "model.part").write_bytes(DATA)

    broken_off(the_rest)

    assert (tmp_path / "model").read_bytes() == DATA


def test_a_download_of_what_has_changed_meanwhile_begins_anew(broken_off, answer, tmp_path):
    assert broken_off(answer(200, b"new weights", {"ETag": '"2"'})) == '"2"'

    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == b"new weights"


def test_bytes_that_changed_on_the_way_are_not_taken_and_not_gone_on_with(
    broken_off, the_rest, scripted, answer, tmp_path
):
    (tmp_path / "model.part").write_bytes(b"x" * 100)

    with pytest.raises(errors.DigestMismatch):
        broken_off(the_rest)

    assert list(tmp_path.iterdir()) == []
    broken_off(answer(200, DATA, HAS))
    assert "Range" not in scripted.requests[-1].headers
    assert (tmp_path / "model").read_bytes() == DATA


def test_another_part_than_the_one_asked_for_is_not_taken(broken_off, answer, tmp_path):
    with pytest.raises(errors.Unavailable, match="another part"):
        broken_off(answer(206, DATA[5:], {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_a_file_without_a_strong_etag_is_not_gone_on_with(hub, scripted, answer, tmp_path, headers):
    scripted.on("GET", paths.model("m"), answer(200, DATA, headers, cut=70_000), answer(200, DATA, headers))
    with pytest.raises(errors.Unavailable):
        hub.download_model("m", tmp_path / "model")

    hub.download_model("m", tmp_path / "model")

    assert "Range" not in scripted.requests[-1].headers
    assert (tmp_path / "model").read_bytes() == DATA


def test_what_had_come_is_forgotten_once_the_file_of_before_is_right(broken_off, hub, scripted, answer, tmp_path):
    scripted.on("GET", paths.model("m"), answer(304, b""))

    hub.download_model("m", tmp_path / "model", etag='"0"')

    assert list(tmp_path.iterdir()) == []


def test_a_training_is_created_with_all_that_belongs_to_it(hub, scripted, answer):
    scripted.on("POST", paths.TRAININGS, answer(201, {"detail": "", "training_id": "t"}))
    scripted.on("POST", paths.training_command("t", "start"), answer(202, {"detail": ""}))
    scripted.on("PUT", paths.training_clients("t"), answer(202, {"detail": ""}))

    training_id = hub.create_training("m", 5, clients=["a"], options={"local": {"epochs": 2}}, metric_names=["loss"])
    hub.add_participants(training_id, ["b"])
    hub.start(training_id)

    created, added, started = scripted.requests
    assert json.loads(created.body) == {
        "model_id": "m",
        "target_num_updates": 5,
        "aggregation_method": "FedAvg",
        "clients": ["a"],
        "metric_names": ["loss"],
        "options": {"local": {"epochs": 2}},
    }
    assert json.loads(added.body) == {"clients": ["b"]}
    assert started.path == paths.training_command("t", "start")


def test_notifications_come_with_the_last_id(hub, scripted, answer):
    entry = {"id": 8, "notification_type": "NEW_KIND", "training_uuid": "t", "body": {"x": 1}, "created_at": ""}
    scripted.on("GET", paths.NOTIFICATIONS, answer(200, {"notifications": [entry], "last_id": 8}))

    assert hub.notifications(7, wait=50) == ([Notification(8, "NEW_KIND", "t", {"x": 1})], 8)

    assert scripted.requests[0].query == {"after": ["7"], "wait": ["50"]}


def test_the_first_poll_asks_for_all_that_is_still_to_do(hub, scripted, answer):
    scripted.on("GET", paths.NOTIFICATIONS, answer(200, {"notifications": [], "last_id": 0}))

    hub.notifications(None, wait=1)

    assert "after" not in scripted.requests[0].query


def test_a_page_instead_of_json_is_no_answer_of_a_hub(hub, scripted, answer):
    scripted.on("GET", paths.NOTIFICATIONS, answer(200, b"<html>log in to the guest network</html>"))

    with pytest.raises(errors.Unavailable, match="is it a hub"):
        hub.notifications(None, wait=1)


def test_health_is_yes_or_no(hub, scripted, answer, lost):
    scripted.on("GET", paths.HEALTH, answer(200, b"ok"), answer(503, b""), lost)

    assert [hub.is_healthy() for _ in range(3)] == [True, False, False]


@pytest.fixture
def with_tls(scripted, tmp_path):
    """The scripted hub behind a certificate of its own; returns the certificate's file."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
        f" -subj /CN=hub -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    scripted.socket = context.wrap_socket(scripted.socket, server_side=True)
    scripted.url = scripted.url.replace("http:", "https:")
    return certificate


def test_a_certificate_that_nobody_vouches_for_is_refused(scripted, with_tls, answer):
    scripted.on("GET", paths.training("t"), answer(200, {}))

    with Hub(scripted.url, TOKEN) as hub, pytest.raises(errors.Unavailable, match="certificate verify failed"):
        hub.training("t")

    assert scripted.requests == []


def test_a_private_authority_can_be_named(scripted, with_tls, answer):
    scripted.on("GET", paths.training("t"), answer(200, {"id": "t"}))

    with Hub(scripted.url, TOKEN, ca_file=with_tls) as hub:
        assert hub.training("t") == {"id": "t"}


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "authority.pem"
    if content:
        path.write_text(content)

    with pytest.raises(errors.Misconfigured, match=r"authority\.pem"):
        Hub("https://hub.example.org", TOKEN, ca_file=path)


def test_a_model_is_asked_with_an_array_and_answers_with_arrays(hub, scripted, answer):
    said = {"inference": np.array([[0.9, 0.1]]), "mutual_info": np.array([0.02]), "prediction_set": np.array([[1, 0]])}
    scripted.on("POST", paths.INFERENCE, answer(200, safetensors.numpy.save(said)))

    prediction = hub.predict("m", [[1.0, 2.0]], round=3, coverage=0.9)

    (asked,) = scripted.received("POST", paths.INFERENCE)
    assert asked.fields == {"model_id": ["m"], "return_format": ["safetensors"], "round": ["3"], "coverage": ["0.9"]}
    np.testing.assert_array_equal(np.load(io.BytesIO(asked.files["model_input"])), [[1.0, 2.0]])
    np.testing.assert_array_equal(prediction.inference, said["inference"])
    assert prediction.uncertainty == {"mutual_info": [0.02]}
    assert (prediction.prediction_set.dtype, prediction.prediction_set.tolist()) == (bool, [[True, False]])


def test_a_file_is_asked_as_it_is(hub, scripted, answer, tmp_path):
    (tmp_path / "image.png").write_bytes(b"an image")
    scripted.on("POST", paths.INFERENCE, answer(200, safetensors.numpy.save({"inference": np.array([2])})))

    prediction = hub.predict("m", tmp_path / "image.png")

    assert (prediction.inference, prediction.uncertainty, prediction.prediction_set) == ([2], {}, None)
    (asked,) = scripted.received("POST", paths.INFERENCE)
    assert (set(asked.fields), asked.files["model_input"]) == ({"model_id", "return_format"}, b"an image")


@pytest.mark.parametrize("body", [b"", b"<html>", safetensors.numpy.save({"other": np.array([2])})])
def test_what_is_no_prediction_comes_from_no_hub(hub, scripted, answer, body):
    scripted.on("POST", paths.INFERENCE, answer(200, body))

    with pytest.raises(errors.Unavailable, match="is it a hub"):
        hub.predict("m", [[1.0]])
