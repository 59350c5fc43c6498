"""Raw bodies and uploads in chunks, by plain HTTP."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx2
from harness import Account, Outgoing, World

BYTES = {"Content-Type": "application/octet-stream"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(world: World, update: Outgoing, **request: Any) -> httpx2.Response:
    """Send an update as a raw body; what is answered with 2xx is remembered, to be looked for afterwards."""
    query = {"round": update.round, "sample_size": update.num_examples}
    request = {"content": update.file, "headers": BYTES} | request
    answer = world.call(update.sender, "PUT", f"/api/models/{update.model_id}/update/", params=query, **request)
    remember(world, update, answer)
    return answer


def remember(world: World, update: Outgoing, answer: httpx2.Response) -> None:
    if answer.is_success:
        facts = {"training": update.training_id, "round": update.round, "participant": update.sender.id}
        world.place.accepted.append({**facts, "update_id": answer.json()["update_id"]})


class Upload:
    """One upload in chunks, by its sender."""

    def __init__(self, world: World, sender: Account, target: str, fields: dict[str, Any], size: int) -> None:
        self._world, self._sender = world, sender
        body = {"target": target, "fields": fields, "size": size}
        answer = world.call(sender, "POST", "/api/uploads/", json=body)
        assert answer.status_code == 201, answer.text
        self.path = f"/api/uploads/{answer.json()['id']}/"

    @classmethod
    def of_model(cls, world: World, size: int) -> Upload:
        return cls(world, world.actor, "/api/models/", {"name": "m", "description": "d"}, size)

    @classmethod
    def of_update(cls, world: World, update: Outgoing) -> Upload:
        fields = {"round": update.round, "sample_size": update.num_examples}
        return cls(world, update.sender, f"/api/models/{update.model_id}/", fields, len(update.file))

    def call(self, method: str, path: str = "", **request: Any) -> httpx2.Response:
        return self._world.call(self._sender, method, self.path + path, **request)

    def offset(self) -> int:
        answer = self.call("HEAD")
        assert answer.status_code == 200
        return int(answer.headers["Upload-Offset"])

    def send(self, data: bytes, *, at: int) -> httpx2.Response:
        headers = BYTES | {"Upload-Offset": str(at), "X-Content-SHA256": digest(data)}
        return self.call("PATCH", content=data, headers=headers)

    def send_from(self, offset: int, data: bytes, *, chunk: int) -> None:
        for start in range(offset, len(data), chunk):
            assert self.send(data[start : start + chunk], at=start).status_code == 204

    def commit(self, data: bytes) -> httpx2.Response:
        return self.call("POST", "commit/", json={"sha256": digest(data)})
