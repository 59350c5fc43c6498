"""The key that signs sessions: from the environment, or made once and kept in the data folder."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from folkmoot.errors import Misconfigured
from folkmoot.server import environment as env

FILE_NAME = "secret_key"


def from_environment_or_folder(data_dir: Path) -> str:
    """Return FOLKMOOT_SECRET_KEY, else the key kept in `data_dir`, else a passing one.

    Only `make` writes a key: importing the settings must not create folders.
    """
    given = env.text("FOLKMOOT_SECRET_KEY", "")
    if given:
        return given
    try:
        return (data_dir / FILE_NAME).read_text().strip() or secrets.token_urlsafe(50)
    except FileNotFoundError:
        return secrets.token_urlsafe(50)
    except OSError as error:
        raise Misconfigured(f"cannot read {data_dir / FILE_NAME}: {error.strerror}") from error


def make(data_dir: Path) -> None:
    """Write a new key, readable by its owner alone, unless one is there; two processes at once agree on one."""
    draft = data_dir / f"{FILE_NAME}.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(50))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, data_dir / FILE_NAME)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
