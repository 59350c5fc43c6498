"""A hub with one of everything, and who there is to ask it for something."""

from __future__ import annotations

from django.db import transaction
from valid_requests import FILE, MODEL, is_done, prepare, request_for

from folkmoot.server.accounts.services import create_group, issue_token
from folkmoot.server.uploads.services import open_upload


class Questions:
    """One of everything, and a valid request for each operation, put by whoever asks."""

    def __init__(self, scene, people, callers):
        self.scene, self._people, self._callers = scene, people, callers

    def verdict(self, operation, who):
        """`yes`, or the status of the refusal; what was done is undone."""
        with transaction.atomic():
            status = self.ask(operation, who).status_code
            transaction.set_rollback(True)
        return "yes" if is_done(status) else str(status)

    def caller(self, who):
        return self._callers[who]

    def ask(self, operation, who, *, pk=None):
        method, path = operation.split(" ")
        if "<id>" in path:
            thing = self.thing_of(path)
            prepare(operation, thing)
            path = path.replace("<id>", pk or str(thing.pk))
        request = request_for(operation, scene=self.scene, owner=self._people["owner"])
        return self._callers[who].generic(method, path + request.pop("query", ""), **request)

    def thing_of(self, path):
        """One of what the id in the path stands for."""
        owner = self._people["owner"]
        match path.split("/")[2]:
            case "users":
                return owner
            case "tokens":
                return issue_token(owner)[0]
            case "groups":
                group = create_group("hospitals", creator=owner)
                group.user_set.add(self._people["participant"])
                return group
            case "uploads":
                return open_upload(owner, target="/api/models/", fields=MODEL, size=len(FILE))[0]
            case "models":
                return self.scene.training.model
        return self.scene.training
