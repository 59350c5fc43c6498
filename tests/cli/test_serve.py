"""`folkmoot serve`: a hub in one process, from its first start to its clean end."""

from __future__ import annotations

import json
import resource
import signal
import ssl
import stat
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

from folkmoot.client import Hub
from folkmoot.tensors import write_tensors


def get(url, **options):
    with urllib.request.urlopen(url, timeout=30, **options) as answer:
        return answer.status, json.load(answer)


@pytest.fixture
def hub(serve, data):
    return serve("--data-dir", data)


def stopped_by(process, number):
    """The exit code, and what the process said in the end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out + err


def test_a_hub_answers_once_it_says_so_and_stops_cleanly(serve, tmp_path):
    data = tmp_path / "data"
    process, url = serve("--data-dir", data)

    assert get(f"{url}/healthz") == (200, {"status": "ok"})
    assert get(f"{url}/readyz")[0] == 200
    # As little as possible may be read by others.
    assert stat.S_IMODE((data / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stopped_by(process, signal.SIGTERM) == (0, "")


def test_ctrl_c_stops_it_without_a_traceback(hub):
    process, _ = hub

    code, said = stopped_by(process, signal.SIGINT)

    assert code in (0, 130)
    assert "Traceback" not in said


def test_a_data_folder_belongs_to_one_server(hub, folkmoot, data):
    run = folkmoot("serve", "--port", "0", "--data-dir", data)

    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert "another Folkmoot server uses the data folder" in run.stderr
    # The first one is as it was.
    assert get(f"{hub[1]}/readyz")[0] == 200


def register(url):
    body = json.dumps({"username": "ada", "password": "correct horse battery"}).encode()
    return get(urllib.request.Request(f"{url}/api/users/", body, {"Content-Type": "application/json"}))


def test_what_was_made_is_there_after_a_restart(serve, tmp_path):
    first, url = serve("--data-dir", tmp_path / "data")
    status, ada = register(url)
    key = (tmp_path / "data" / "secret_key").read_text()
    stopped_by(first, signal.SIGTERM)

    _, url = serve("--data-dir", tmp_path / "data")

    assert status == 201
    myself = urllib.request.Request(f"{url}/api/users/myself/", headers={"Authorization": f"Token {ada['token']}"})
    assert get(myself)[1]["username"] == "ada"
    assert (tmp_path / "data" / "secret_key").read_text() == key


def test_a_hub_that_others_can_reach_registers_nobody_unless_it_is_told_to(serve, data):
    _, url = serve("--data-dir", data, "--host", "0.0.0.0")

    with pytest.raises(urllib.error.HTTPError) as caught:
        register(url.replace("0.0.0.0", "127.0.0.1"))
    caught.value.close()
    assert caught.value.code == 403


def test_with_a_certificate_it_speaks_https(serve, data, certificate):
    cert, key = certificate

    process, url = serve("--data-dir", data, "--tls-cert", cert, "--tls-key", key)

    assert url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=cert)
    assert get(f"{url}/healthz", context=trusting) == (200, {"status": "ok"})
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        get(f"{url}/healthz")
    # The server may say that somebody did not trust it; it stops cleanly all the same.
    assert stopped_by(process, signal.SIGTERM)[0] == 0


def test_large_files_come_and_go_over_https(serve, data, certificate, tmp_path):
    cert, key = certificate
    _, url = serve("--data-dir", data, "--tls-cert", cert, "--tls-key", key)
    file, back = tmp_path / "model.safetensors", tmp_path / "back.safetensors"
    write_tensors(file, {"w": np.arange(1_500_000, dtype="f4")})
    with Hub(url, ca_file=cert) as visitor:
        token = visitor.register("ada", "correct horse battery", actor=True)["token"]

    with Hub(url, token, ca_file=cert, chunked_from=1, chunk_bytes=4_000_000) as hub:
        hub.download_model(hub.upload_model("m", "d", file), back)

    assert back.read_bytes() == file.read_bytes()


def test_a_port_of_ones_own_and_an_ipv6_address(serve, data):
    _, url = serve("--data-dir", data, "--host", "::1")

    assert url.startswith("http://[::1]:")
    assert get(f"{url}/healthz")[0] == 200


def test_it_may_hold_as_many_lines_as_the_system_lets_it(serve, data):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        process, _ = serve("--data-dir", data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (before[1], before[1])


def test_where_that_is_few_it_says_how_to_get_more():
    raise_limit = "from folkmoot.server.process import raise_file_limit; raise_file_limit()"
    command = f'ulimit -n 500; exec {sys.executable} -c "{raise_limit}"'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert result.stderr.startswith("at most 500 files may be open here")
    assert "raise the hard limit to 16000" in result.stderr
