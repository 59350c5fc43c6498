"""A model comes down whole or in parts, in the format that it came in or in another, and is made no more than once."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zlib

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import safetensors.numpy
import torch

from folkmoot.errors import StorageFull, Unavailable
from folkmoot.server.api.downloads import model_response
from folkmoot.server.registry.downloads import download
from folkmoot.server.registry.models import Model
from folkmoot.server.storage.made import MadeFiles
from folkmoot.tensors import Limits, write_tensors
from folkmoot.tensors.tensor_file import WrittenFile

pytestmark = pytest.mark.django_db

START, TRAINED = [0.0, 0.0], [3.0, 4.0]


def npz_of(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def torch_of(**arrays):
    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    return file.getvalue()


def onnx_of(**arrays):
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    node = onnx.helper.make_node("Mul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    return onnx.helper.make_model(graph).SerializeToString()


def torch_in(data):
    return {name: each.numpy() for name, each in torch.load(io.BytesIO(data), weights_only=True).items()}


def onnx_in(data):
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    return {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}


# How a file of each format is made, and how its own library reads it.
FORMATS = {
    "safetensors": (safetensors.numpy.save, safetensors.numpy.load),
    "npz": (lambda arrays: npz_of(**arrays), lambda data: dict(np.load(io.BytesIO(data)))),
    "torch": (lambda arrays: torch_of(**arrays), torch_in),
    "onnx": (lambda arrays: onnx_of(**arrays), onnx_in),
}
EXTENSIONS = {"safetensors": ".safetensors", "npz": ".npz", "torch": ".pt", "onnx": ".onnx"}
WAYS = [(kind, wanted) for kind in FORMATS for wanted in (None, "safetensors", "npz", "torch", kind)]


@pytest.fixture
def make_trained(make_user, make_model, make_scene, work):
    """A function: a model of that format after one round, from START to TRAINED."""

    def make(kind="safetensors", *, file=None, options=(), updates=(TRAINED, TRAINED), **tensors):
        actor = make_user()
        tensors = {"w": np.array(START, "f4")} | tensors
        model = make_model(actor, file=file or FORMATS[kind][0](tensors))
        scene = make_scene(actor=actor, model=model, options={"tests": "never", **dict(options)})
        for participant, w in zip(scene.participants, updates, strict=True):
            sent = safetensors.numpy.save({"w": np.array(w, "f4")})
            assert scene.send_update(participant, file=sent).status_code == 201
        work()
        return scene

    return make


@pytest.fixture
def get(as_):
    """A function: what the actor of a training gets for its model."""

    def fetch(scene, query="", method="get", **headers):
        path = f"/api/models/{scene.model_id}/{query}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return getattr(as_(scene.actor), method)(path, headers=headers)

    return fetch


@pytest.fixture
def made(storage):
    """A function: the files that were made for answers."""
    return lambda: sorted((storage.root / "made").glob("*.*"))


# Formats and rounds


@pytest.mark.parametrize(("kind", "wanted"), WAYS)
@pytest.mark.parametrize(("round", "weights"), [("0", START), ("1", TRAINED), ("latest", TRAINED)])
def test_a_trained_model_is_had_in_each_format_after_each_round(make_trained, get, kind, wanted, round, weights):
    scene = make_trained(kind)

    answer = get(scene, f"?round={round}" + (f"&as={wanted}" if wanted else ""))

    assert answer.status_code == 200
    data = answer.getvalue()
    assert {name: array.tolist() for name, array in FORMATS[wanted or kind][1](data).items()} == {"w": weights}
    assert answer["X-Content-SHA256"] == hashlib.sha256(data).hexdigest()
    extension = EXTENSIONS[wanted] if wanted else ".pt"
    assert answer["Content-Disposition"] == f'attachment; filename="model-{scene.model_id}{extension}"'


def test_as_the_uploaded_format_is_the_template_with_other_weights(make_trained, get):
    described = safetensors.numpy.save({"w": np.array(START, "f4")}, metadata={"of": "ada"})
    scene = make_trained(file=described)

    for query in ("", "?as=safetensors"):
        header = get(scene, query).getvalue()[8:60]
        assert b'"of":"ada"' in header
    assert get(scene, "?round=0&as=safetensors").getvalue() == described


def test_another_format_than_the_uploaded_one_is_the_stored_file_itself(make_trained, get, made):
    scene = make_trained("npz")

    answer = get(scene, "?as=safetensors")

    checkpoint = Model.objects.get(pk=scene.model_id).latest_checkpoint
    assert hashlib.sha256(answer.getvalue()).hexdigest() == checkpoint.sha256
    assert made() == []


@pytest.mark.parametrize(
    ("kind", "wanted", "possible"),
    [
        ("npz", "onnx", "npz, safetensors, torch"),
        ("onnx", "tensorflow", "onnx, safetensors, npz, torch"),
    ],
)
def test_a_format_that_the_model_cannot_have_is_refused_with_those_that_it_can(
    make_trained, get, kind, wanted, possible
):
    answer = get(make_trained(kind), f"?as={wanted}")

    assert answer.status_code == 400
    sentence = f"`as` is {wanted!r}; this model can be had as {possible}"
    assert answer.json() == {"detail": sentence, "code": "invalid_value"}


def test_an_npz_that_would_be_refused_as_an_update_is_not_handed_out(make_model, make_user, as_):
    ada = make_user()
    model = make_model(ada, file=safetensors.numpy.save({"/fc/w": np.ones(2, "f4")}))

    answer = as_(ada).get(f"/api/models/{model.pk}/?as=npz")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
    assert "'/fc/w'" in answer.json()["detail"]
    assert list(torch_in(as_(ada).get(f"/api/models/{model.pk}/?as=torch").getvalue())) == ["/fc/w"]


@pytest.mark.parametrize(
    ("kind", "query", "depends"), [("npz", "", True), ("npz", "?as=torch", False), ("torch", "", False)]
)
def test_the_etag_of_what_is_compressed_tells_the_library_that_did_it(
    make_trained, get, monkeypatch, kind, query, depends
):
    scene = make_trained(kind)
    etag = get(scene, query)["ETag"]

    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "another")

    assert (get(scene, query)["ETag"] != etag) is depends


@pytest.mark.parametrize("kind", ["safetensors", "npz", "torch"])
def test_a_model_that_was_taken_in_under_other_limits_is_handed_out(make_trained, get, settings, kind):
    settings.MODEL_FILE_LIMITS = Limits(max_name_length=1000)
    scene = make_trained(kind, **{"n" * 600: np.zeros(1, "f4")}, options={"exchange": ["w"]})

    for wanted in (kind, "npz", "torch"):
        assert len(FORMATS[wanted][1](get(scene, f"?as={wanted}").getvalue())) == 2


# The part that travels


@pytest.fixture
def adapted(make_trained):
    """Only `w` travelled; `base` stayed."""
    return make_trained("npz", options={"exchange": ["w"]}, base=np.array([7.0], "f4"))


def test_only_what_travels_is_had_where_it_is_apart(adapted, get):
    answer = get(adapted, "?part=exchange")

    assert {name: array.tolist() for name, array in safetensors.numpy.load(answer.getvalue()).items()} == {"w": TRAINED}
    assert answer["Content-Disposition"].endswith('.safetensors"')
    assert answer["X-Content-SHA256"] == Model.objects.get(pk=adapted.model_id).latest_checkpoint.sha256


def test_before_the_first_round_all_tensors_travel(adapted, get):
    answer = get(adapted, "?part=exchange&round=0&as=safetensors")

    assert set(safetensors.numpy.load(answer.getvalue())) == {"w", "base"}


@pytest.mark.parametrize("wanted", [None, "safetensors", "npz", "torch"])
def test_a_model_of_which_only_a_part_travelled_is_had_whole(adapted, get, wanted):
    data = get(adapted, f"?as={wanted}" if wanted else "").getvalue()

    tensors = FORMATS[wanted or "npz"][1](data)
    assert {name: array.tolist() for name, array in tensors.items()} == {"w": TRAINED, "base": [7.0]}


def test_a_copy_begins_with_all_tensors_whatever_travelled_before(adapted, get, make_scene):
    """Its own participants have none of them yet, and its training may exchange others."""
    copy = make_scene(actor=adapted.actor, model=Model.objects.get(pk=adapted.model_id))

    answer = get(copy, "?part=exchange")

    assert copy.model_id != adapted.model_id
    assert set(safetensors.numpy.load(answer.getvalue())) == {"w", "base"}


def test_what_travels_is_always_safetensors(adapted, get):
    answer = get(adapted, "?part=exchange&as=npz")

    assert answer.status_code == 400
    assert answer.json()["detail"] == "part=exchange is always safetensors; leave `as` out"


def test_an_unknown_part_is_refused(adapted, get):
    assert list(get(adapted, "?part=all").json()) == ["part"]


# Who has it already


def test_each_format_round_and_part_has_an_etag_of_its_own(adapted, get):
    queries = ["", "?as=safetensors", "?as=torch", "?round=0", "?round=0&as=safetensors", "?part=exchange"]

    etags = {get(adapted, query)["ETag"] for query in queries}

    assert len(etags) == len(queries)
    assert all(etag.startswith('"') for etag in etags)


def test_a_file_that_one_has_is_not_even_made(make_trained, get, made):
    scene = make_trained("npz")
    etag = get(scene, "?as=torch")["ETag"]
    for each in made():
        each.unlink()

    again = get(scene, "?as=torch", If_None_Match=etag)

    assert (again.status_code, again["ETag"], again.getvalue()) == (304, etag, b"")
    assert made() == []


def test_who_wants_no_other_file_is_told_that_it_is_another(make_trained, get, made):
    scene = make_trained("npz")
    etag = get(scene, "?as=torch")["ETag"]
    for each in made():
        each.unlink()

    other = get(scene, "?as=torch", If_Match='"another"')

    assert (other.status_code, other["ETag"]) == (412, etag)
    assert other.json() == {
        "detail": "the file has another ETag than the one that is wanted",
        "code": "precondition_failed",
    }
    assert made() == []
    assert get(scene, "?as=torch", If_Match=etag).status_code == 200


@pytest.mark.parametrize("query", ["", "?as=safetensors", "?as=torch"])
def test_head_says_what_get_would_say(make_trained, get, query):
    scene = make_trained("npz")

    head, whole = get(scene, query, method="head"), get(scene, query)

    assert head.getvalue() == b""
    own = {"X-Request-ID": head["X-Request-ID"]}
    assert dict(head.items()) == dict(whole.items()) | own
    assert int(head["Content-Length"]) == len(whole.getvalue())


def test_to_head_no_bytes_of_the_file_are_sent(make_trained, rf):
    model = Model.objects.get(pk=make_trained().model_id)

    answer = model_response(rf.head("/"), download(model))

    assert list(answer.streaming_content) == []


def test_head_knows_no_ranges(make_trained, get):
    answer = get(make_trained(), method="head", Range="bytes=0-1")

    assert answer.status_code == 200
    assert "Content-Range" not in answer


# Parts of the bytes


RANGES = {
    "bytes=0-0": slice(0, 1),
    "bytes=5-9": slice(5, 10),
    "bytes=10-": slice(10, None),
    "bytes=-7": slice(-7, None),
    "bytes=-99999": slice(None),
    "bytes=3-99999": slice(3, None),
    "Bytes= 3 - 4 ": slice(3, 5),
}


@pytest.mark.parametrize("query", ["", "?as=torch"])
@pytest.mark.parametrize("asked", RANGES)
def test_a_range_is_a_slice_of_the_whole(make_trained, get, query, asked):
    scene = make_trained("npz")
    whole = get(scene, query)
    data = whole.getvalue()

    answer = get(scene, query, Range=asked)

    first, stop, _ = RANGES[asked].indices(len(data))
    assert answer.status_code == 206
    assert answer.getvalue() == data[first:stop]
    assert answer["Content-Range"] == f"bytes {first}-{stop - 1}/{len(data)}"
    assert answer["Content-Length"] == str(stop - first)
    for same in ("ETag", "Accept-Ranges", "X-Content-SHA256", "Content-Disposition", "Content-Type"):
        assert answer[same] == whole[same]


def test_the_last_byte_is_had_by_its_number(make_trained, get):
    scene = make_trained()
    data = get(scene).getvalue()

    answer = get(scene, Range=f"bytes={len(data) - 1}-{len(data) - 1}")

    assert answer.getvalue() == data[-1:]


@pytest.mark.parametrize("asked", ["bytes=99999-", "bytes=99999-100000", "bytes=-0"])
def test_bytes_that_are_not_there_are_not_had(make_trained, get, asked):
    scene = make_trained()
    num_bytes = len(get(scene).getvalue())

    answer = get(scene, Range=asked)

    assert answer.status_code == 416
    assert answer["Content-Range"] == f"bytes */{num_bytes}"
    assert answer.json()["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,3-4", "bytes 0-1", "0-1"]
)
def test_what_is_no_single_range_gets_the_whole(make_trained, get, asked):
    scene = make_trained()

    answer = get(scene, Range=asked)

    assert answer.status_code == 200
    assert answer.getvalue() == get(scene).getvalue()


def test_a_range_of_the_same_file_goes_on(make_trained, get):
    scene = make_trained()
    etag = get(scene)["ETag"]

    answer = get(scene, Range="bytes=5-", If_Range=etag)

    assert answer.status_code == 206


@pytest.mark.parametrize("stale", ['"of the round before"', "W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_range_of_another_file_begins_anew(make_trained, get, stale):
    scene = make_trained()
    whole = get(scene)

    answer = get(scene, Range="bytes=5-", If_Range=stale.format(etag=whole["ETag"]))

    assert answer.status_code == 200
    assert answer.getvalue() == whole.getvalue()


def test_who_has_the_file_gets_no_range_of_it(make_trained, get):
    scene = make_trained()

    assert get(scene, Range="bytes=5-", If_None_Match=get(scene)["ETag"]).status_code == 304


# Files that are made


def test_a_file_is_made_once_for_all_who_ask(make_trained, get, made):
    scene = make_trained("npz")
    first = get(scene, "?as=torch").getvalue()
    (file,) = made()
    before = file.stat()

    again = get(scene, "?as=torch", Range="bytes=10-19").getvalue()

    assert again == first[10:20]
    assert [each.stat().st_ino for each in made()] == [before.st_ino]


def test_what_is_made_survives_a_restart(make_trained, get, made, storage):
    scene = make_trained("npz")
    get(scene, "?as=torch")
    before = made()

    storage.prepare()

    assert made() == before != []


def test_a_file_over_the_limit_is_sent_and_not_kept(make_trained, get, made, settings):
    settings.DOWNLOAD_CACHE_BYTES = 10
    scene = make_trained("npz")

    answer = get(scene, "?as=torch")

    assert torch_in(answer.getvalue())["w"].tolist() == TRAINED
    assert made() == []


def test_the_sweep_of_orphans_leaves_made_files_alone(make_trained, get, made, settings):
    from folkmoot.server.trainings import sweeps

    settings.ORPHAN_GRACE_SECONDS = 0.001
    scene = make_trained("npz")
    get(scene, "?as=torch")
    before = made()

    sweeps.remove_orphaned_blobs()

    assert made() == before != []


@pytest.fixture
def keep(tmp_path, storage):
    """A function: asks for a file of ten bytes under a key; the second returned value says whether it was made."""
    files = MadeFiles(tmp_path / "made", limit=30, new_draft=storage.new_incoming)

    def ask(key, *, files=files, data=b"0123456789"):
        calls = []

        def make(output):
            calls.append(output)
            output.write_bytes(data)
            return WrittenFile(hashlib.sha256(data).hexdigest(), len(data))

        with files.open(key, make).file as file:
            return file.read(), bool(calls)

    return ask


def test_what_was_not_used_for_longest_goes_first(keep, tmp_path):
    for age, key in enumerate(["c", "b", "a"]):
        keep(key)
        (path,) = (tmp_path / "made").glob(f"{key}.*")
        os.utime(path, (1000 - age, 1000 - age))
    keep("a")

    keep("d")

    assert {path.stem for path in (tmp_path / "made").glob("*.*")} == {"a", "c", "d"}
    assert keep("a") == (b"0123456789", False)
    assert keep("b") == (b"0123456789", True)


def test_many_who_ask_at_once_have_one_file_made(tmp_path, storage):
    files = MadeFiles(tmp_path / "made", limit=1000, new_draft=storage.new_incoming)
    together, made, read = threading.Barrier(8), [], []

    def make(output):
        made.append(output)
        return write_tensors(output, {"w": np.zeros(100_000)})

    def ask():
        together.wait()
        # As another process would: nothing is shared but the folder.
        own = MadeFiles(tmp_path / "made", limit=10**9, new_draft=storage.new_incoming)
        with own.open("a" * 32, make).file as file:
            read.append(hashlib.sha256(file.read()).hexdigest())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with files.open("a" * 32, make).file as file:
        assert read == [hashlib.sha256(file.read()).hexdigest()] * 8
    assert len(made) == 1


@pytest.fixture
def being_made(tmp_path, storage):
    """The folder, while a file of the key `aa...` is being made and not ready."""
    begun, ready = threading.Event(), threading.Event()

    def make(output):
        begun.set()
        ready.wait(timeout=10)
        return write_tensors(output, {"w": np.zeros(10)})

    files = MadeFiles(tmp_path / "made", limit=10**9, new_draft=storage.new_incoming)
    maker = threading.Thread(target=lambda: files.open("a" * 32, make).file.close())
    maker.start()
    begun.wait(timeout=30)
    yield files
    assert maker.is_alive()  # nobody has waited for it
    ready.set()
    maker.join()


def test_who_would_wait_long_for_a_file_is_told_to_come_again(being_made):
    with pytest.raises(Unavailable):
        being_made.open("a" * 32, pytest.fail)


def test_nobody_waits_for_another_file_than_his_own(being_made):
    other = "a" * 31 + "b"

    being_made.open(other, lambda output: write_tensors(output, {"w": np.zeros(10)})).file.close()


def test_of_locks_nothing_stays(keep, tmp_path):
    keep("a")

    assert [*(tmp_path / "made" / "locks").iterdir()] == []


def test_who_reads_a_file_reads_on_when_it_is_removed(keep, tmp_path, storage):
    files = MadeFiles(tmp_path / "made", limit=10, new_draft=storage.new_incoming)

    def make(output):
        output.write_bytes(b"0123456789")
        return WrittenFile("0" * 64, 10)

    with files.open("a", make).file as first:
        keep("b", files=files)

        assert first.read() == b"0123456789"
    assert [path.stem for path in (tmp_path / "made").glob("*.*")] == ["b"]


def test_a_full_disk_is_made_room_on(keep, tmp_path, storage):
    files = MadeFiles(tmp_path / "made", limit=100, new_draft=storage.new_incoming)
    keep("a", files=files)

    def make(output):
        if list((tmp_path / "made").glob("*.*")):
            raise StorageFull("no space left")
        output.write_bytes(b"x")
        return WrittenFile("0" * 64, 1)

    with files.open("b", make).file as file:
        assert file.read() == b"x"


def test_a_file_that_fails_leaves_nothing_behind(tmp_path, storage):
    files = MadeFiles(tmp_path / "made", limit=100, new_draft=storage.new_incoming)

    def make(output):
        output.write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.open("a", make)

    assert list((tmp_path / "made").glob("*.*")) == []
    assert list((storage.root / "incoming").iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from folkmoot.server.storage.made import MadeFiles

folder = Path(sys.argv[1])

def make(output):
    output.write_bytes(b"half")
    os.kill(os.getpid(), 9)

MadeFiles(folder / "made", limit=100, new_draft=lambda: folder / "draft").open("a", make)
"""


def test_what_a_killed_server_was_making_is_made_again(keep, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], timeout=30, check=False)

    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "draft").read_bytes() == b"half"
    assert keep("a") == (b"0123456789", True)


# What a browser may make of it


def test_answers_of_the_api_run_nothing_in_a_browser(anonymous, make_trained, get):
    for answer in (get(make_trained()), anonymous.get("/api/models/"), anonymous.get("/api/nothing/")):
        assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("page", ["swagger-ui", "redoc"])
def test_the_pages_of_the_documentation_may_run_their_scripts(anonymous, page):
    assert "Content-Security-Policy" not in anonymous.get(f"/api/schema/{page}/")
