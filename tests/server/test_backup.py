"""A hub in one file: made while it runs, restored into an empty one."""

from __future__ import annotations

import stat

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.db import transaction

from folkmoot.errors import InvalidFile, Misconfigured
from folkmoot.server.backup import rows, services
from folkmoot.server.storage import get_storage

pytestmark = pytest.mark.django_db(transaction=True)


def quietly(done: int, of: int) -> None:
    """No progress is shown."""


def keys():
    return {kind: sorted(map(str, kind._default_manager.values_list("pk", flat=True))) for kind in rows._kinds()}


def back_up(folder, name="hub.tar"):
    assert services.back_up(folder / name, progress=quietly) == set()
    return folder / name


@transaction.atomic
def forget_everything():
    for model in reversed(rows._kinds()):
        model._default_manager.all().delete()


@pytest.fixture
def scene(make_scene, work):
    """A training of two rounds, the first of which is over."""
    scene = make_scene(target_num_updates=2, options={"tests": "never"})
    for participant in scene.participants:
        scene.send_update(participant)
    work()
    return scene


@pytest.fixture
def emptied(settings, tmp_path_factory):
    """A function: from now on this is a new hub, without rows or blobs."""

    def empty():
        forget_everything()
        settings.DATA_DIR = tmp_path_factory.mktemp("new")
        get_storage.cache_clear()
        get_storage().prepare()

    return empty


def test_a_restored_hub_has_every_row_and_every_file_and_goes_on(scene, tmp_path, emptied, work):
    shown, weights = scene.shown, scene.weights()
    before = keys()
    file = back_up(tmp_path)
    emptied()

    services.restore(file, progress=quietly)

    assert keys() == before
    assert (scene.shown, scene.weights()) == (shown, weights)
    for participant in scene.participants:
        assert scene.send_update(participant, round=1).status_code == 201
    work()
    assert scene.state == "C"


def test_permissions_that_django_numbers_otherwise_are_still_the_same(make_user, tmp_path, emptied):
    user = make_user("operator", is_staff=True)
    permission = Permission.objects.get(codename="view_training")
    user.user_permissions.add(permission)
    file = back_up(tmp_path)
    emptied()
    key = permission.content_type
    permission.delete()
    moved = Permission.objects.create(codename="view_training", content_type=key, name="again", pk=10**6)

    services.restore(file, progress=quietly)

    assert list(type(user).objects.get().user_permissions.all()) == [moved]


def test_a_backup_is_for_its_owners_eyes_only(scene, tmp_path):
    assert stat.S_IMODE(back_up(tmp_path).stat().st_mode) == 0o600


def test_nothing_is_overwritten(tmp_path):
    back_up(tmp_path)

    with pytest.raises(Misconfigured, match="is there already"):
        back_up(tmp_path)


def test_a_backup_that_cannot_be_written_leaves_nothing_behind(scene, tmp_path):
    with pytest.raises(Misconfigured, match="No such file or directory"):
        back_up(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_hub_has_lost_is_named_and_the_rest_is_saved(scene, tmp_path, emptied):
    model = apps.get_model("registry", "Checkpoint").objects.latest("round")
    with get_storage().file(model.sha256) as path:
        path.unlink()

    assert services.back_up(tmp_path / "hub.tar", progress=quietly) == {model.sha256}

    emptied()
    services.restore(tmp_path / "hub.tar", progress=quietly)
    assert scene.state == "O"


def test_a_hub_that_has_users_is_not_restored_over(scene, tmp_path):
    with pytest.raises(Misconfigured, match="already"):
        services.restore(back_up(tmp_path), progress=quietly)
    assert scene.state == "O"


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.6, 0.9, 1])
def test_a_backup_that_ends_early_restores_nothing(scene, tmp_path, emptied, part):
    file = back_up(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * content.index(b"end.json"))])
    emptied()

    with pytest.raises(InvalidFile):
        services.restore(file, progress=quietly)
    assert not rows.any_there()


def test_a_backup_with_another_byte_in_a_file_restores_nothing(scene, tmp_path, emptied):
    file = back_up(tmp_path)
    content = file.read_bytes()
    at = content.index(b"blobs/") + 512 + 20  # behind the member's head
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    emptied()

    with pytest.raises(InvalidFile, match="other bytes"):
        services.restore(file, progress=quietly)
    assert not rows.any_there()


@pytest.mark.parametrize("content", [b"", b"\0" * 10240, b"PK\3\4" + b"\0" * 100, b"x" * 2000])
def test_what_is_no_backup_is_said_to_be_none(tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(InvalidFile, match="no backup of a hub"):
        services.restore(tmp_path / "file", progress=quietly)
