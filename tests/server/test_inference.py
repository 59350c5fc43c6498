"""Predictions at the API: what may be asked, how, and what is answered."""

from __future__ import annotations

import base64
import io
import json
import pickle
import pickletools
import re
import threading
import tracemalloc
import zlib
from collections import OrderedDict
from uuid import UUID

import numpy as np
import pytest
import safetensors.numpy

torch = pytest.importorskip("torch")

from django.db import connections  # noqa: E402 - torch first, without which there is nothing to test
from PIL import Image  # noqa: E402

from folkmoot.errors import InvalidInput  # noqa: E402
from folkmoot.server.inference.inputs import read_input  # noqa: E402
from folkmoot.server.inference.pool import close_sandbox  # noqa: E402
from folkmoot.server.registry.intake import StoredFile  # noqa: E402
from folkmoot.server.registry.models import Model  # noqa: E402
from folkmoot.server.registry.preprocessing import set_preprocessing  # noqa: E402
from folkmoot.server.registry.services import add_checkpoint, add_moments  # noqa: E402
from folkmoot.server.storage.upload import IncomingFile  # noqa: E402
from folkmoot.server.trainings.calibration import receive_calibration  # noqa: E402
from folkmoot.uncertainty import ClassStatistics, RegressionStatistics  # noqa: E402

pytestmark = pytest.mark.django_db

INFERENCE = "/api/inference/"
NO_MODEL = "No 'model_id' provided in request."
NO_INPUT = "No uploaded file 'model_input' found."
MEASURES = {"variance", "std", "predictive_entropy", "expected_entropy", "mutual_info"}


@pytest.fixture(scope="module", autouse=True)
def sandbox_of_this_module():
    yield
    close_sandbox()


def saved(module):
    """A whole module, or TorchScript, as torch saves it."""
    file = io.BytesIO()
    if isinstance(module, torch.jit.ScriptModule):
        torch.jit.save(module, file)
    else:
        torch.save(module, file)
    return file.getvalue()


def linear(*rows):
    """A module whose outputs are these weights times the inputs."""
    layer = torch.nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
    return torch.nn.Sequential(OrderedDict(layer=layer))


IDENTITY = saved(linear([1.0, 0.0], [0.0, 1.0]))


@pytest.fixture
def owner(make_user):
    return make_user()


@pytest.fixture
def make(make_model, owner):
    """A function: a model of a module, by its file."""

    def make(file=IDENTITY, **fields):
        model = make_model(owner, file=file)
        Model.objects.filter(pk=model.pk).update(**fields)
        model.refresh_from_db()
        return model

    return make


@pytest.fixture
def model(make):
    """Answers with its inputs, of which there are two."""
    return str(make().pk)


@pytest.fixture
def ask(as_, owner):
    """A function: ask in JSON."""
    return lambda user=None, **fields: as_(user or owner).send("POST", INFERENCE, fields)


@pytest.fixture
def ask_by_form(as_, owner):
    return lambda user=None, **fields: as_(user or owner).post(INFERENCE, fields)


def named(data, name="input"):
    file = io.BytesIO(data)
    file.name = name
    return file


def image(size, *, colour, mode="RGB", kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def tensor_file(values):
    file = io.BytesIO()
    torch.save(torch.tensor(values), file)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def in_base64(data):
    return base64.b64encode(data).decode()


def incoming(data):
    file = IncomingFile("file")
    file.append(data)
    return file


# What is asked badly


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_id": None}, NO_MODEL),
        ({"model_id": ""}, NO_MODEL),
        ({"model_input": None}, NO_INPUT),
        ({"model_input": ""}, NO_INPUT),
        ({"model_input": []}, NO_INPUT),
        ({"return_format": "xml"}, "Unknown return format 'xml'. Supported are binary and json."),
        ({"return_format": None}, "Unknown return format 'null'. Supported are binary and json."),
        ({"model_input": 5}, "model_input must be nested lists of numbers, or a file in base64"),
        ({"model_id": str(UUID(int=1))}, f"Model {UUID(int=1)} not found."),
        ({"model_id": "mine"}, "Model mine not found."),
    ],
)
def test_what_is_asked_badly_is_refused_in_the_seeds_words(ask, model, fields, sentence):
    answer = ask(**{"model_id": model, "model_input": [[1]], **fields})

    assert (answer.status_code, answer.json()["detail"]) == (400, sentence)


def test_what_is_missing_is_told_one_after_the_other(ask, ask_by_form, model):
    assert ask().json() == {"detail": NO_MODEL, "code": "invalid_value"}
    assert ask_by_form().json()["detail"] == NO_MODEL
    assert ask(model_id=model).json()["detail"] == NO_INPUT
    assert ask_by_form(model_id=model, return_format="xml").json()["detail"] == NO_INPUT


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_any_other_body_is_of_the_wrong_kind(as_, owner, content_type):
    answer = as_(owner).post(INFERENCE, b"model_id=1", content_type=content_type)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_a_model_that_one_may_not_see_is_not_asked(ask, make_user, model):
    answer = ask(make_user(), model_id=model, model_input=[[1, 2]])

    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."


LISTS = "model_input must be nested lists of numbers"


@pytest.mark.parametrize(
    ("model_input", "code", "sentence"),
    [
        ([[1, 2], [3]], "invalid_value", f"{LISTS}, those of one level equally long"),
        ([["one", "two"]], "invalid_value", f"{LISTS}, and has something else in them"),
        ([[True, False]], "invalid_value", f"{LISTS}, and has something else in them"),
        ([[None, 1]], "invalid_value", f"{LISTS}, and has something else in them"),
        ([[1, [2]]], "invalid_value", f"{LISTS}, and has something else in them"),
        ([[10**30, 1]], "invalid_value", "model_input holds a whole number that is too large"),
        ([[]], "invalid_value", "model_input has the shape [1, 0]; expected numbers in at most 32 dimensions"),
        ("no base64!", "invalid_value", f"{LISTS}, or a file in base64; this is neither"),
        ("[[1, 2]", "invalid_value", "model_input begins like nested lists, and is not valid JSON"),
        (in_base64(b"not a file of any kind"), "unsupported_container", "model_input is no file that is taken here"),
        (in_base64(IDENTITY[:100]), "invalid_file", "model_input: "),
        (in_base64(npy(np.zeros((1, 2)))[:-1]), "invalid_file", "model_input: the file has 143 bytes"),
        (in_base64(npy(np.array([[np.nan, 1]]))), "non_finite", "model_input holds NaN or infinity"),
        (in_base64(safetensors.numpy.save({"a": np.zeros(1), "b": np.zeros(1)})), "invalid_file", "the file holds 2"),
        (in_base64(image((99, 99), colour="red")[:-40]), "invalid_file", "an image that is damaged or not complete"),
        (in_base64(image((99, 99), colour="red")[:-9]), "invalid_file", "an image that is damaged or not complete"),
        (in_base64(image((9, 9), colour="red", kind="JPEG")[:200]), "invalid_file", "damaged or not complete"),
    ],
)
def test_an_input_that_is_none_is_refused_with_its_name_and_what_was_expected(ask, model, model_input, code, sentence):
    answer = ask(model_id=model, model_input=model_input)

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert sentence in answer.json()["detail"]
    assert "model_input" in answer.json()["detail"]


@pytest.mark.parametrize("given", [["x" * 10**6] + [1] * 100, "ab " * 10**6])
def test_an_input_that_is_none_takes_no_more_memory_than_a_few_of_itself(given, settings):
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput):
            read_input(given, channels=None)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_numbers_that_json_cannot_hold_are_refused(as_, owner, model):
    for text in ("1e400", "NaN", "-Infinity"):
        body = f'{{"model_id": "{model}", "model_input": [[{text}, 1]]}}'
        answer = as_(owner).post(INFERENCE, body, content_type="application/json")
        assert (answer.status_code, answer.json()["detail"]) == (400, "model_input holds NaN or infinity")


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("round", "round must be a whole number"),
        ("model_id", "No 'model_id'|model_id must be the id|not found"),
    ],
)
@pytest.mark.parametrize("value", [None, [], {}, True, float("nan"), -1.5])
def test_other_fields_that_are_none_are_named(ask, model, field, sentence, value):
    answer = ask(**{"model_id": model, "model_input": [[1, 2]], field: value})

    assert answer.status_code == 400
    assert re.search(sentence, answer.json()["detail"])


def test_lists_in_lists_without_end_are_refused(as_, owner, model):
    for depth in (60, 70, 200_000):
        body = f'{{"model_id": "{model}", "model_input": {"[" * depth}1{"]" * depth}}}'
        assert as_(owner).post(INFERENCE, body, content_type="application/json").status_code == 400


def test_a_body_over_the_limit_is_refused_of_either_kind(ask, ask_by_form, settings, model):
    settings.MAX_INFERENCE_BYTES = 2000

    assert ask(model_id=model, model_input=[[0.25] * 1000]).status_code == 413
    assert ask_by_form(model_id=model, model_input=named(tensor_file([[0.0, 1.0]] * 500))).status_code == 413
    assert ask(model_id=model, model_input=[[0.25, 0.5]]).status_code == 200


def test_more_is_taken_here_than_of_other_json(ask, make, settings):
    model = str(make(saved(linear([0.0] * 1000))).pk)
    rows = [[0.123456789] * 1000] * 100
    assert len(json.dumps(rows)) > settings.MAX_JSON_BYTES

    assert ask(model_id=model, model_input=rows).status_code == 200


def test_a_form_takes_as_much_text_as_a_body_in_json(ask_by_form, make, settings):
    model = str(make(saved(linear([0.0] * 1000))).pk)
    text = in_base64(npy(np.ones((200, 1000))))
    assert len(text) > 2 * settings.MAX_JSON_BYTES

    assert ask_by_form(model_id=model, model_input=text, return_format="json").status_code == 200


def test_an_image_that_would_unfold_to_gigabytes_is_refused_by_its_header(ask, model):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    for side in (8_000, 50_000):
        header = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
        pixels = zlib.compress(bytes(100_000))
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        answer = ask(model_id=model, model_input=in_base64(bomb))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


# Shapes


@pytest.mark.parametrize("shape", [[None, 3], [2, 2], [None, 2, 1], [2]])
def test_an_input_of_another_shape_than_the_model_takes_is_refused_with_both(ask, make, shape):
    answer = ask(model_id=str(make(input_shape=shape).pk), model_input=[[1, 2]])

    assert answer.status_code == 400
    assert answer.json()["detail"] == f"model_input has the shape [1, 2]; the model takes {json.dumps(shape)}"


@pytest.mark.parametrize("shape", [[None, 2], [1, 2], [None, None], None])
def test_dimensions_may_be_free(ask, make, shape):
    assert ask(model_id=str(make(input_shape=shape).pk), model_input=[[1, 2]]).json()["inference"] == [1]


def test_the_shape_counts_after_preprocessing(ask, make):
    model = make(input_shape=[None, 2])
    set_preprocessing(model, incoming(saved(torch.nn.Flatten())))

    assert ask(model_id=str(model.pk), model_input=[[[1], [0]], [[0], [1]]]).json()["inference"] == [0, 1]
    answer = ask(model_id=str(model.pk), model_input=[[[1, 2], [0, 1]]])
    assert answer.json()["detail"] == "model_input has the shape [1, 4] after preprocessing; the model takes [null, 2]"


# Ways in


def test_the_most_likely_class_of_each_row_is_answered_without_uncertainty(ask, model):
    answer = ask(model_id=model, model_input=[[0.1, 0.9], [0.9, 0.1], [0.2, 0.3]])

    assert answer.json() == {"inference": [1, 0, 1], "uncertainty": {}}


ROWS = [[0.25, 1.0], [2.0, 0.5]]


@pytest.mark.parametrize(
    "file",
    [
        tensor_file(ROWS),
        safetensors.numpy.save({"x": np.asarray(ROWS, "f4")}),
        safetensors.numpy.save({"x": np.asarray(ROWS, "f2")}),
        npy(np.asarray(ROWS)),
        npy(np.asarray(ROWS, ">f4", order="F")),
    ],
)
def test_a_tensor_may_come_as_a_file_of_each_kind_or_in_base64(ask, ask_by_form, model, file):
    wanted = {"inference": [1, 0], "uncertainty": {}}

    assert ask(model_id=model, model_input=in_base64(file)).json() == wanted
    assert ask_by_form(model_id=model, model_input=named(file), return_format="json").json() == wanted
    assert ask_by_form(model_id=model, model_input=in_base64(file), return_format="json").json() == wanted


def test_a_form_may_have_lists_as_text(ask_by_form, model):
    answer = ask_by_form(model_id=model, model_input=json.dumps(ROWS), return_format="json")

    assert answer.json()["inference"] == [1, 0]


def test_whole_numbers_in_lists_are_indices_to_a_model_that_takes_these_and_numbers_to_others(ask, make, model):
    words = torch.nn.Sequential(torch.nn.EmbeddingBag(3, 2))
    with torch.no_grad():
        words[0].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))

    assert ask(model_id=str(make(saved(words)).pk), model_input=[[0, 0], [1, 2]]).json()["inference"] == [1, 0]
    assert ask(model_id=model, model_input=[[0, 1], [1, 0]]).json()["inference"] == [1, 0]


class Mirror(torch.nn.Module):
    """Answers with the numbers that came and their shape, so that a test sees the very tensor."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([x.reshape(1, -1), torch.tensor([x.shape], dtype=torch.float32)], dim=1).unsqueeze(1)


@pytest.fixture
def mirror(ask, make):
    """A function: the tensor that an image becomes, as a model of that input shape gets it."""

    def mirror(file, **fields):
        model = str(make(saved(torch.jit.script(Mirror())), **fields).pk)
        answer = ask(model_id=model, model_input=in_base64(file)).json()
        *values, a, b, c, d = np.asarray(answer["inference"])[0, 0]
        return np.asarray(values).reshape([int(each) for each in (a, b, c, d)])

    return mirror


def test_an_image_is_a_batch_of_one_with_channels_first_from_0_to_1(mirror):
    tensor = mirror(image((3, 2), colour=(255, 0, 51)))

    assert tensor.shape == (1, 3, 2, 3)
    assert tensor[0, :, 1, 2] == pytest.approx(np.array([1.0, 0.0, 0.2]))


@pytest.mark.parametrize(
    ("file", "channels", "pixel"),
    [
        (image((2, 2), colour=(255, 0, 0)), 1, [76 / 255]),
        (image((2, 2), colour=(255, 0, 0, 9), mode="RGBA"), 3, [1, 0, 0]),
        (image((2, 2), colour=(255, 0, 0, 51), mode="RGBA"), 4, [1, 0, 0, 0.2]),
        (image((2, 2), colour=51, mode="L"), 3, [0.2, 0.2, 0.2]),
        (image((2, 2), colour=51, mode="L"), None, [0.2]),
        (image((2, 2), colour=(51, 9), mode="LA"), None, [0.2]),
        (image((2, 2), colour=13107, mode="I;16"), None, [0.2]),
        (image((2, 2), colour=1, mode="1"), 1, [1]),
        (image((2, 2), colour=(255, 255, 255), kind="JPEG"), None, [1, 1, 1]),
    ],
)
def test_an_image_has_the_channels_that_the_model_takes_else_its_own(mirror, file, channels, pixel):
    tensor = mirror(file, input_shape=[None, channels, 2, 2])

    assert tensor[0, :, 0, 0] == pytest.approx(np.array(pixel))


def test_an_image_of_another_size_is_refused(ask, make):
    answer = ask(model_id=str(make(input_shape=[None, 1, 4, 4]).pk), model_input=in_base64(image((2, 2), colour="red")))

    assert answer.status_code == 400
    assert "[1, 1, 2, 2]; the model takes [null, 1, 4, 4]" in answer.json()["detail"]


def test_an_image_goes_through_preprocessing_with_its_own_channels(ask, make):
    model = make(input_shape=[None, 12])
    set_preprocessing(model, incoming(saved(torch.nn.Flatten())))

    answer = ask(model_id=str(model.pk), model_input=in_base64(image((2, 2), colour="red")))

    assert "raised" in answer.json()["detail"]  # twelve numbers came as far as the model, which takes two
    assert answer.status_code == 422


# Ways out


@pytest.fixture
def uncertain(make_training, make, owner):
    """A function: the id of a model whose training has this method, and these options."""

    def uncertain(method, file=IDENTITY, **options):
        training = make_training(owner, model=make(file), uncertainty_method=method, options={"uncertainty": options})
        return str(training.model_id)

    return uncertain


def dropping(*rows):
    return saved(torch.nn.Sequential(torch.nn.Dropout(0.5), *linear(*rows)))


def test_dropout_is_sampled_as_often_as_the_training_says(ask, uncertain):
    model = uncertain("MC_DROPOUT", dropping([1.0, 0.0], [0.0, 1.0]), N=50)

    answer = ask(model_id=model, model_input=[[2.0, -2.0]] * 3).json()

    assert np.asarray(answer["inference"]).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert set(answer["uncertainty"]) == MEASURES
    assert np.asarray(answer["uncertainty"]["std"]).shape == (3, 2)
    assert all(0.05 < each < 0.5 for each in answer["uncertainty"]["mutual_info"])


def test_the_same_question_gets_the_same_answer(ask, uncertain):
    model = uncertain("MC_DROPOUT", dropping([1.0, 0.0], [0.0, 1.0]))

    first, second = (ask(model_id=model, model_input=[[2.0, -2.0]]).json() for _ in range(2))

    assert first == second


def test_a_regression_has_no_entropies_and_its_prediction_is_its_output(ask, uncertain, make):
    line = saved(linear([1.0, 1.0]))
    assert ask(model_id=str(make(line).pk), model_input=[[1.0, 2.5]]).json()["inference"] == [[3.5]]

    answer = ask(model_id=uncertain("MC_DROPOUT", dropping([1.0, 1.0])), model_input=[[1.0, 2.5]]).json()
    assert set(answer["uncertainty"]) == {"variance", "std"}


def test_a_training_may_say_that_its_model_ends_with_or_without_a_softmax(ask, uncertain):
    logits = [[2.0, -2.0]]
    declared = {
        softmax: ask(model_id=uncertain("ENSEMBLE", softmax=softmax), model_input=logits).json()
        for softmax in (True, False)
    }

    assert declared[True]["inference"] == [pytest.approx([1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))])]
    assert declared[False]["inference"] == logits
    assert set(declared[False]["uncertainty"]) == {"variance", "std"}


@pytest.fixture
def two_rounds(make_training, make, owner, storage, tensors_file):
    """A function: a model of identity that after a round swaps its inputs."""

    def two_rounds(method="NONE", **options):
        from folkmoot.server.registry.intake import store_model

        model = make()
        swapped = store_model(incoming(tensors_file(**{"layer.weight": [[0.0, 1.0], [1.0, 0.0]]})))
        add_checkpoint(model, 1, swapped.tensors)
        Model.objects.filter(pk=model.pk).update(round=1)
        training = make_training(owner, model=model, uncertainty_method=method, options={"uncertainty": options})
        return str(training.model_id)

    return two_rounds


def test_a_round_may_be_named(ask, two_rounds):
    model = two_rounds()

    wanted = {None: 0, "latest": 0, 1: 0, 0: 1}
    for round, decided in wanted.items():
        more = {} if round is None else {"round": round}
        assert ask(model_id=model, model_input=[[0.0, 1.0]], **more).json()["inference"] == [decided]
    answer = ask(model_id=model, model_input=[[0.0, 1.0]], round=7)
    assert (answer.status_code, answer.json()["detail"]) == (400, f"Model {model} has no checkpoint 7.")
    assert ask(model_id=model, model_input=[[0.0, 1.0]], round="best").json()["code"] == "not_found"


def test_an_ensemble_may_be_of_the_last_checkpoints(ask, two_rounds):
    both = ask(model_id=two_rounds("ENSEMBLE", softmax=False), model_input=[[0.0, 4.0]]).json()
    one = ask(model_id=two_rounds("ENSEMBLE", softmax=False, k=1), model_input=[[0.0, 4.0]]).json()

    assert both == {"inference": [[2, 2]], "uncertainty": {"variance": [[8, 8]], "std": [[pytest.approx(8**0.5)] * 2]}}
    assert one == {"inference": [[4, 0]], "uncertainty": {"variance": [[0, 0]], "std": [[0, 0]]}}


def test_an_ensemble_may_be_of_the_last_rounds_updates(ask, make_training, make, owner, make_scene, work, tensors_file):
    options = {"uncertainty": {"over": "updates", "softmax": False}}
    model = make()
    scene = make_scene(actor=owner, model=model, uncertainty_method="ENSEMBLE", options=options)
    question = {"model_id": str(model.pk), "model_input": [[0.0, 4.0]]}
    assert "No updates are kept" in ask(**question).json()["detail"]
    for user, first in zip(scene.participants, (0.0, 1.0), strict=True):
        scene.send_update(user, file=tensors_file(**{"layer.weight": [[0.0, first], [1.0, 0.0]]}))
    work()

    assert ask(**question).json() == {
        "inference": [[2, 0]],
        "uncertainty": {"variance": [[8, 0]], "std": [[pytest.approx(8**0.5), 0]]},
    }


def test_a_model_of_models_answers_as_their_ensemble(ask, as_, make, owner):
    scripted = saved(torch.jit.script(linear([0.0, 1.0], [1.0, 0.0])))
    members = [str(make(file).pk) for file in (IDENTITY, scripted, IDENTITY)]
    fields = {"type": "MEAN", "name": "all", "description": "d", "models": members}
    mean = as_(owner).send("POST", "/api/models/", fields).json()["model_id"]

    answer = ask(model_id=mean, model_input=[[1.0, 0.0]]).json()

    assert answer["inference"] == [pytest.approx([2 / 3, 1 / 3])]
    assert answer["uncertainty"]["mutual_info"][0] > 0.5
    refused = ask(model_id=mean, model_input=[[1.0, 0.0]], round=0)
    assert (refused.status_code, "no rounds" in refused.json()["detail"]) == (400, True)


def test_a_model_with_moments_is_sampled_around_them(ask, uncertain, storage, tensors_file):
    from folkmoot.server.registry.intake import store_model

    model = uncertain("SWAG", softmax=False, N=200)
    asked = {"model_id": model, "model_input": [[1.0, 1.0]]}
    assert "has no moments yet" in ask(**asked).json()["detail"]
    # Means 1, 0, 0 and 2; variances 0, 1, 0 and 0.
    moments = store_model(incoming(tensors_file(first_moment=[1, 0, 0, 2], second_moment=[1, 1, 0, 4])))
    add_moments(Model.objects.get(pk=model).latest_checkpoint, moments.tensors)

    answer = ask(**asked).json()

    assert answer["inference"][0] == pytest.approx([1, 2], abs=0.3)
    assert answer["uncertainty"]["std"][0] == pytest.approx([1, 0], abs=0.2)


def test_a_local_model_is_asked_by_its_sender_and_the_actor(ask, make, make_scene, owner, tensors_file):
    scene = make_scene(actor=owner, model=make(), uncertainty_method="SWAG")
    one, other = scene.participants
    file = tensors_file(**{"layer.weight": [[0.0, 1.0], [1.0, 0.0]]})
    local = scene.send_update(one, file=file).json()["update_id"]

    for user in (one, owner):
        assert ask(user, model_id=local, model_input=[[0.0, 1.0]]).json() == {"inference": [0], "uncertainty": {}}
    assert ask(other, model_id=local, model_input=[[0.0, 1.0]]).status_code == 403
    assert ask(one, model_id=local, model_input=[[0.0, 1.0]], round=3).status_code == 400


def test_bare_weights_are_put_into_the_architecture_that_came_with_them(ask, as_, owner):
    from folkmoot.demo import network

    weights = network.initial_weights()
    fields = {"name": "m", "description": "d", "model_file": named(safetensors.numpy.save(dict(weights)))}
    upload = as_(owner).post("/api/models/", fields | {"architecture": "digits-mlp"}).json()
    without = as_(owner).post("/api/models/", fields | {"model_file": named(safetensors.numpy.save(dict(weights)))})
    unknown = as_(owner).post("/api/models/", fields | {"architecture": "x", "model_file": named(b"x")})

    assert ask(model_id=upload["model_id"], model_input=[[0.0] * 64] * 3).status_code == 200
    refused = ask(model_id=without.json()["model_id"], model_input=[[0.0] * 64])
    assert (refused.status_code, "their architecture has to be named" in refused.json()["detail"]) == (400, True)
    assert "architecture 'x' is not known here; known are: " in unknown.json()["detail"]
    assert "digits-mlp" in unknown.json()["detail"]


GLOBALS = {
    "torch._utils _rebuild_tensor_v2",
    "torch.storage _load_from_bytes",
    "collections OrderedDict",
    "torch FloatStorage",
    "torch LongStorage",
}


def globals_of(data):
    """All that a pickle names, and those in the bytes that it holds."""
    found = set()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(argument)
        elif "BINBYTES" in opcode.name:
            rest = io.BytesIO(argument)
            for _ in range(5):
                position = rest.tell()
                found |= {each for op, each, _ in pickletools.genops(rest) if op.name == "GLOBAL"}
                assert rest.tell() > position
    return found


def test_a_form_is_answered_with_a_pickle_that_torch_opens_and_that_names_only_what_tensors_name(
    ask, ask_by_form, uncertain, model
):
    sampled = uncertain("MC_DROPOUT", dropping([1.0, 0.0], [0.0, 1.0]))
    in_json = ask(model_id=sampled, model_input=ROWS).json()

    answer = ask_by_form(model_id=sampled, model_input=named(tensor_file(ROWS)))

    assert answer["Content-Type"] == "application/octet-stream"
    opened = pickle.loads(answer.content)
    assert opened["inference"].dtype == torch.float32
    assert opened["inference"].tolist() == in_json["inference"]
    assert {name: each.tolist() for name, each in opened["uncertainty"].items()} == in_json["uncertainty"]
    decided = ask(model_id=model, model_input=ROWS, return_format="binary").content
    assert pickle.loads(decided)["inference"].equal(torch.tensor([1, 0]))
    assert globals_of(answer.content) | globals_of(decided) == GLOBALS
    assert globals_of(pickle.dumps([torch.ones(2, 2), torch.tensor([1])], protocol=3)) == GLOBALS


def test_the_pickle_spells_tensors_of_all_shapes(make):
    from folkmoot.server.inference.answer_files import as_pickle
    from folkmoot.server.inference.answers import Answer

    for shape in ((), (0,), (3,), (2, 3, 4), (0, 2), (1, 1)):
        for dtype in ("float32", "float64", "int64"):
            array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
            opened = pickle.loads(as_pickle(Answer(array)))["inference"]
            assert opened.numpy().dtype == dtype
            np.testing.assert_array_equal(opened.numpy(), array)
            assert opened.is_contiguous()


def test_safetensors_hold_the_same_numbers(ask, uncertain):
    model = uncertain("ENSEMBLE", softmax=True)
    in_json = ask(model_id=model, model_input=ROWS).json()

    opened = safetensors.numpy.load(ask(model_id=model, model_input=ROWS, return_format="safetensors").content)

    assert {name: each.tolist() for name, each in opened.items()} == {
        "inference": in_json["inference"],
        **in_json["uncertainty"],
    }


# Sets with a stated coverage


def counted(outputs, labels):
    return ClassStatistics.of(np.asarray(outputs, "f4"), labels)


@pytest.fixture
def calibrated(make_training, make, owner):
    """A function: a training of a model, with statistics that each of its participants has sent."""

    def make_one(*statistics, file=IDENTITY, **fields):
        training = make_training(owner, model=make(file), participants=max(2, len(statistics)), **fields)
        for participant, each in zip(training.participants.all(), statistics, strict=False):
            receive_calibration(training.model, participant, round=0, statistics=each)
        return training

    return make_one


# The right class is held at least 0.9 likely in nine of ten rows, and in one a little more than 0.1.
SURE = counted([[np.log(9.5), 0.0]] * 9 + [[0.0, np.log(8.5)]], [0] * 10)
ROWS_OF_ALL_KINDS = [[5.0, 0.0], [0.0, 5.0], [0.0, 0.1]]
OFF_BY_ONE_AT_MOST = RegressionStatistics.of(np.zeros(100), np.linspace(0.01, 1, 100))


def test_with_a_coverage_come_the_classes_one_of_which_is_right_so_often(ask, calibrated):
    training = calibrated(SURE, SURE)
    model = str(training.model_id)

    sets = {
        coverage: ask(model_id=model, model_input=ROWS_OF_ALL_KINDS, coverage=coverage).json()["prediction_set"]
        for coverage in (0.5, 0.9)
    }

    # In 0.5 of cases the right class has 0.9 or more, in 0.9 of them 0.1 or more.
    assert sets == {0.5: [[0], [1], []], 0.9: [[0], [1], [0, 1]]}
    assert "prediction_set" not in ask(model_id=model, model_input=ROWS_OF_ALL_KINDS).json()


def test_files_have_a_set_as_zeros_and_ones(ask, calibrated):
    model = str(calibrated(SURE, SURE).model_id)
    asked = {"model_id": model, "model_input": ROWS_OF_ALL_KINDS, "coverage": 0.5}

    tensors = safetensors.numpy.load(ask(**asked, return_format="safetensors").content)
    opened = pickle.loads(ask(**asked, return_format="binary").content)

    assert tensors["prediction_set"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert opened["prediction_set"].equal(torch.tensor([[1, 0], [0, 1], [0, 0]]))


def test_a_form_may_ask_for_a_coverage(ask_by_form, calibrated):
    fields = {"model_id": str(calibrated(SURE, SURE).model_id), "model_input": "[[5, 0]]", "return_format": "json"}

    assert ask_by_form(**fields, coverage="0.5").json()["prediction_set"] == [[0]]
    # As browsers send a field that was left empty.
    assert "prediction_set" not in ask_by_form(**fields, coverage="").json()


def test_of_a_regression_the_set_is_an_interval(ask, calibrated):
    model = str(calibrated(OFF_BY_ONE_AT_MOST, OFF_BY_ONE_AT_MOST, file=saved(linear([1.0, 1.0]))).model_id)

    answer = ask(model_id=model, model_input=[[1.0, 2.0], [3.0, 4.0]], coverage=0.5).json()

    assert np.asarray(answer["prediction_set"]).shape == (2, 1, 2)
    for (prediction,), ((lower, upper),) in zip(answer["inference"], answer["prediction_set"], strict=True):
        assert (lower + upper) / 2 == pytest.approx(prediction)
        assert 0.5 <= (upper - lower) / 2 <= 0.55


@pytest.mark.parametrize("method", ["MC_DROPOUT", "ENSEMBLE"])
def test_the_set_is_that_of_the_model_as_it_was_counted_whatever_the_method(ask, calibrated, method):
    training = calibrated(SURE, SURE, file=dropping([1.0, 0.0], [0.0, 1.0]), uncertainty_method=method)

    answer = ask(model_id=str(training.model_id), model_input=ROWS_OF_ALL_KINDS, coverage=0.5).json()

    assert answer["prediction_set"] == [[0], [1], []]
    assert set(answer["uncertainty"]) == MEASURES


def test_the_coverage_is_that_of_the_round_that_is_asked(ask, calibrated):
    training = calibrated(SURE, SURE)
    checkpoint = training.model.latest_checkpoint
    add_checkpoint(training.model, 1, StoredFile(checkpoint.sha256, checkpoint.num_bytes, bytes(checkpoint.checksums)))
    Model.objects.filter(pk=training.model_id).update(round=1)
    asked = {"model_id": str(training.model_id), "model_input": [[5.0, 0.0]], "coverage": 0.5}

    sentence = f"coverage: There are no calibration statistics for checkpoint 1 of model {training.model_id}"
    assert ask(**asked).json()["detail"] == f"{sentence} that you may see."
    assert ask(**asked, round=0).json()["prediction_set"] == [[0]]


def test_too_few_counted_rows_are_told_with_how_many_it_takes(ask, calibrated):
    training = calibrated(SURE, SURE)

    answer = ask(model_id=str(training.model_id), model_input=[[5.0, 0.0]], coverage=0.95)

    assert (answer.status_code, answer.json()["detail"]) == (400, "coverage 0.95 takes 38 scores or more; there are 20")


def test_what_one_participant_has_counted_makes_sets_for_who_may_see_it_alone(ask, calibrated):
    training = calibrated(SURE)
    (one,) = [each.participant for each in training.model.calibrations.all()]
    other = training.participants.exclude(pk=one.pk).get()
    asked = {"model_id": str(training.model_id), "model_input": [[5.0, 0.0]], "coverage": 0.5}

    assert [ask(user, **asked).status_code for user in (one, training.actor, other)] == [200, 200, 400]


@pytest.mark.parametrize("coverage", [0, 1, "x", True, None])
def test_a_coverage_that_is_none_is_refused(ask, calibrated, coverage):
    answer = ask(model_id=str(calibrated(SURE, SURE).model_id), model_input=[[5.0, 0.0]], coverage=coverage)

    assert answer.status_code == 400
    assert answer.json()["detail"] == "coverage must be a number between 0 and 1"


def test_a_model_without_classes_has_no_sets_of_them(ask, calibrated):
    training = calibrated(SURE, SURE, file=saved(linear([1.0, 1.0])))

    answer = ask(model_id=str(training.model_id), model_input=[[5.0, 0.0]], coverage=0.5)

    sentence = "the model's outputs cannot be measured: outputs have the shape (1, 1); expected two classes or more"
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_a_model_with_more_than_classes_in_a_row_has_no_sets(ask, calibrated):
    training = calibrated(SURE, SURE, file=saved(torch.nn.Unflatten(1, (2, 2))))

    answer = ask(model_id=str(training.model_id), model_input=[[1.0, 2.0, 3.0, 4.0]], coverage=0.5)

    sentence = "the model's outputs have the shape (1, 2, 2); sets are of (rows, classes)"
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


# Models that fail


def test_a_model_that_does_not_take_the_input_costs_its_caller_a_422(ask, model):
    answer = ask(model_id=model, model_input=[[1.0, 2.0, 3.0]])

    assert (answer.status_code, answer.json()["code"]) == (422, "model_failed")
    assert "RuntimeError" in answer.json()["detail"]


def test_a_model_that_answers_with_nan_costs_its_caller_a_422(ask, make):
    model = str(make(saved(linear([3e38, 0.0], [0.0, 1.0]))).pk)

    answer = ask(model_id=model, model_input=[[1e38, 0.0]])

    assert (answer.status_code, answer.json()["detail"]) == (422, "the model answered with NaN or infinity")


def test_outputs_whose_variance_is_too_large_for_their_type_cost_their_caller_a_422(ask, two_rounds):
    answer = ask(model_id=two_rounds("ENSEMBLE", softmax=False), model_input=[[0.0, 1e30]])

    sentence = "the variance of the model's outputs is no finite float32"
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_an_interval_around_infinity_costs_its_caller_a_422(ask, calibrated):
    training = calibrated(OFF_BY_ONE_AT_MOST, OFF_BY_ONE_AT_MOST, file=saved(linear([1.0, 0.0], [0.0, -3e38])))

    answer = ask(model_id=str(training.model_id), model_input=[[1.0, 1e38]], coverage=0.5)

    sentence = "the interval of the model's outputs is no finite float32"
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_an_output_is_as_large_as_the_operator_lets_it_be(ask, model, settings):
    close_sandbox()
    settings.SANDBOX_OUTPUT_BYTES = 16
    try:
        answers = [ask(model_id=model, model_input=[[1.0, 2.0]] * rows) for rows in (2, 3)]
    finally:
        close_sandbox()

    assert [each.status_code for each in answers] == [200, 422]
    assert answers[1].json()["detail"] == "the model's output has 24 bytes; at most 16 are taken"


class Endless(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        while bool(x[0, 0] > -1.0):
            x = x + 0.0
        return x


@pytest.mark.django_db(transaction=True)
def test_a_model_that_hangs_costs_those_who_ask_others_nothing(ask, make, as_, owner, make_model, settings):
    close_sandbox()
    settings.SANDBOX_SECONDS = 8.0
    hanging, sound = make(saved(torch.jit.script(Endless()))), make_model(file=IDENTITY)
    as_(owner), as_(sound.owner)
    assert ask(sound.owner, model_id=str(sound.pk), model_input=ROWS).status_code == 200
    hung = []

    def hang():
        hung.append(ask(model_id=str(hanging.pk), model_input=ROWS))
        connections.close_all()

    thread = threading.Thread(target=hang)
    thread.start()
    answered = 0
    while thread.is_alive():
        assert ask(sound.owner, model_id=str(sound.pk), model_input=ROWS).json()["inference"] == [1, 0]
        answered += not hung
    thread.join()
    close_sandbox()

    assert answered > 10
    assert (hung[0].status_code, hung[0].json()["code"]) == (422, "model_failed")
    assert "longer than 8 seconds" in hung[0].json()["detail"]


def test_who_asks_while_too_many_are_asking_is_told_to_try_again(ask, model, owner):
    from contextlib import ExitStack

    from folkmoot.server.inference.pool import MOST_QUESTIONS_OF_OWNER, question_to

    with ExitStack() as others:
        for _ in range(MOST_QUESTIONS_OF_OWNER):
            others.enter_context(question_to(str(owner.pk)))
        answer = ask(model_id=model, model_input=ROWS)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer["Retry-After"]) > 0
    assert ask(model_id=model, model_input=ROWS).status_code == 200


def test_without_torch_the_extra_is_named(ask, model, tmp_path, monkeypatch):
    close_sandbox()
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(tmp_path)  # where the processes of the sandbox look first, too

    answer = ask(model_id=model, model_input=ROWS)
    close_sandbox()

    assert (answer.status_code, answer.json()["code"]) == (501, "not_installed")
    assert "pip install 'folkmoot[torch]'" in answer.json()["detail"]
