"""`folkmoot check` says in a line each what is right and what is wrong, and what to do."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from folkmoot.sandbox import Protection, protections


@pytest.fixture
def check(folkmoot):
    """A function that runs the check without what takes long to import, for what has nothing to do with it."""

    def run(*arguments, without=("numba", "onnxruntime", "torch"), **variables):
        return folkmoot("check", "--json", *arguments, without=without, **variables)

    return run


def found_by(run):
    """The findings by name; a name that comes twice keeps its last."""
    assert run.stderr == ""
    return {finding["name"]: finding for finding in json.loads(run.stdout)["findings"]}


def test_a_sound_deployment_is_a_line_for_each_thing_and_nothing_wrong(folkmoot, data):
    before = sorted(data.rglob("*"))

    run = folkmoot("check", "--data-dir", data)

    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    for thing in ("data folder", "settings", "storage", "database", "torch", "onnxruntime", "Pillow"):
        assert [line for line in lines if line.startswith(f"ok       {thing}: ")], run.stdout
    assert sorted(data.rglob("*")) == before


def test_a_program_reads_one_object_that_says_the_same(check, data):
    run = check("--data-dir", data)

    assert run.returncode == 0
    assert json.loads(run.stdout)["sound"] is True
    assert found_by(run)["database"]["status"] == "ok"


def test_where_no_hub_has_been_started_the_check_says_so_and_makes_nothing(check, tmp_path):
    run = check()

    assert run.returncode == 1
    assert json.loads(run.stdout)["sound"] is False
    for name in ("data folder", "database"):
        assert found_by(run)[name]["status"] == "wrong"
        assert "folkmoot serve" in found_by(run)[name]["remedy"]
    assert not (tmp_path / "folkmoot-data").exists()


def test_a_database_that_is_not_migrated_is_wrong(check, data):
    with closing(sqlite3.connect(data / "folkmoot.sqlite3")) as database, database:
        database.execute("delete from django_migrations where id = (select max(id) from django_migrations)")

    run = check("--data-dir", data)

    assert run.returncode == 1
    assert found_by(run)["database"] == {
        "name": "database",
        "status": "wrong",
        "detail": "migrations that are not applied: 1",
        "remedy": "start folkmoot serve once, which brings it up to date",
    }


def test_a_file_that_is_no_database_is_wrong(check, data):
    (data / "folkmoot.sqlite3").write_text("no database at all")

    run = check("--data-dir", data)

    assert run.returncode == 1
    assert found_by(run)["database"]["detail"] == "cannot be used (file is not a database)"


def test_a_database_that_does_not_answer_is_wrong(check, data):
    nobody = "postgres://nobody@127.0.0.1:1/nothing"

    run = check("--data-dir", data, FOLKMOOT_DATABASE_URL=nobody)

    assert run.returncode == 1
    assert found_by(run)["database"]["status"] == "wrong"
    assert "FOLKMOOT_DATABASE_URL" in found_by(run)["database"]["remedy"]


@pytest.mark.parametrize("folder", ["/proc", "file"])
def test_a_data_folder_that_cannot_be_written_is_wrong(check, tmp_path, folder):
    (tmp_path / "file").touch()

    run = check("--data-dir", folder)

    assert run.returncode == 1
    data_folder = found_by(run)["data folder"]
    assert data_folder["status"] == "wrong"
    assert folder in data_folder["detail"]
    assert "--data-dir" in data_folder["remedy"]


def test_little_space_is_a_warning(check, data):
    run = check("--data-dir", data, FOLKMOOT_MAX_UPLOAD_BYTES=str(2**60))

    assert run.returncode == 0
    assert found_by(run)["free space"]["status"] == "warning"


def test_a_wrong_environment_variable_is_wrong_and_the_rest_is_looked_at(check, data):
    run = check("--data-dir", data, FOLKMOOT_LEASE_SECONDS="x")

    assert run.returncode == 1
    assert "FOLKMOOT_LEASE_SECONDS" in found_by(run)["settings"]["detail"]
    assert found_by(run)["Pillow"]["status"] == "ok"


def test_what_is_risky_in_a_deployment_is_a_warning(check, data):
    run = check("--data-dir", data, FOLKMOOT_SECURE_COOKIES="false")

    assert run.returncode == 0
    assert found_by(run)["settings"]["status"] == "warning"
    assert "COOKIE_SECURE" in found_by(run)["settings"]["detail"]


def test_what_is_not_installed_is_named_with_how_to_install_it(folkmoot_without):
    found = found_by(folkmoot_without("check", "--json", missing=["numba", "torch", "onnxruntime", "PIL"]))

    for name, status, extra in [
        ("numba", "warning", "fast"),
        ("torch", "warning", "torch"),
        ("onnxruntime", "warning", "onnx"),
        ("Pillow", "wrong", "server"),
    ]:
        assert (found[name]["status"], found[name]["remedy"]) == (status, f"pip install 'folkmoot[{extra}]'")


def test_each_protection_of_the_sandbox_is_there_with_whether_it_applies(check):
    found = found_by(check())

    applying = {each for each in Protection if found[f"sandbox, {each}"]["status"] == "ok"}
    assert applying == protections()


S3 = "s3://bucket?endpoint=http://127.0.0.1:9&region=eu-1"


def test_a_store_that_does_not_answer_is_wrong(check, data):
    run = check(
        "--data-dir",
        data,
        FOLKMOOT_STORAGE_URL=S3,
        AWS_ACCESS_KEY_ID="a",
        AWS_SECRET_ACCESS_KEY="canary",
        FOLKMOOT_LOG_LEVEL="ERROR",
    )

    found = found_by(run)["storage"]
    assert (run.returncode, found["status"]) == (1, "wrong")
    assert found["detail"] == "the file store does not answer (EndpointConnectionError); try again"
    assert "FOLKMOOT_STORAGE_URL" in found["remedy"]


def test_a_store_needs_a_library_and_the_check_names_the_extra(check, data):
    run = check("--data-dir", data, without=["boto3", "torch"], FOLKMOOT_STORAGE_URL=S3)

    assert found_by(run)["storage"]["detail"] == "FOLKMOOT_STORAGE_URL names an S3 store: pip install 'folkmoot[s3]'"


def test_an_address_of_a_storage_that_cannot_be_meant_is_a_wrong_setting(check, data):
    run = check("--data-dir", data, FOLKMOOT_STORAGE_URL="ftp://host/models")

    assert "FOLKMOOT_STORAGE_URL begins with 'ftp'" in found_by(run)["settings"]["detail"]
