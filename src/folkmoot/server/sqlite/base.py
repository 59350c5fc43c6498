"""Django's SQLite backend, in which the transactions of this process wait for one another in turn.

SQLite itself makes a second writer sleep and look again, at first after 1 ms, later after 100; a thread that waits
for a lock goes on at once. Other processes are still kept out, and waited for, by SQLite.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base

_turn = threading.Lock()


# Any: django-stubs leave out the methods that open and end a transaction.
_DatabaseWrapper: Any = base.DatabaseWrapper


class DatabaseWrapper(_DatabaseWrapper):
    """Holds the turn from BEGIN to the end of the transaction, however that comes about."""

    _has_turn = False

    def _start_transaction_under_autocommit(self) -> None:
        if not _turn.acquire(timeout=self.settings_dict["OPTIONS"]["timeout"]):
            raise OperationalError("database is locked")
        self._has_turn = True
        try:
            super()._start_transaction_under_autocommit()
        except BaseException:
            self._pass_turn()
            raise

    def _commit(self) -> None:
        try:
            super()._commit()
        finally:
            self._pass_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()
        finally:
            self._pass_turn()

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            self._pass_turn()

    def _pass_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _turn.release()
