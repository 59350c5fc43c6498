"""A hub with one of everything, and for each operation of its API a request that it answers with 2xx."""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from typing import Any

from harness import Account, World, as_file, initial_model, wait_until

import warm
from folkmoot.uncertainty import RegressionStatistics, to_json

PASSWORD = "correct horse battery staple"
MODEL = {"name": "m", "description": "d"}
Request = dict[str, Any]


def encoded(data: bytes) -> dict[str, str]:
    """Bytes, as they stand in the file that the hooks read."""
    return {"base64": b64encode(data).decode()}


RECORDS = ("events", "explain", "manifest", "participants", "rounds")


class DescribedWorld:
    """What `boss` has made: who may do everything, being staff, actor, owner and the only participant at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.boss = self._superuser()
        self.file = as_file(initial_model())
        self.digest = hashlib.sha256(self.file).hexdigest()

    def schema(self) -> dict[str, Any]:
        return dict(self._call("GET", "schema/?format=json"))

    def requests(self) -> dict[str, Request]:
        """By the name of the operation; `ids` may stand for the id in the path, the first is that of the request."""
        own_token = self._call("GET", "tokens/")[0]["id"]
        return {
            "spared": {"ids": [own_token]},
            **self._of_accounts(),
            **self._of_models(),
            **self._of_uploads(),
            **self._of_trainings(),
        }

    def _of_accounts(self) -> dict[str, Request]:
        users = [self._made("users", {"username": f"user-{number}", "password": PASSWORD}) for number in range(3)]
        groups = [self._made("groups", {"name": f"group-{number}"}) for number in range(3)]
        tokens = [self._made("tokens", {"name": f"token-{number}"}) for number in range(3)]
        name, members = {"body": {"name": "clinics"}}, {"body": {"users": users}}
        return {
            "POST /api/users/": {"body": {"username": "new", "password": PASSWORD}},
            "GET /api/users/{id}/": {"ids": users},
            "PATCH /api/users/myself/": {"body": {"first_name": "Ada"}},
            "PUT /api/users/{id}/password/": {"ids": users, "body": {"password": PASSWORD}},
            "DELETE /api/users/{id}/password/": {"ids": users, "body": {}},
            "POST /api/groups/": name,
            "GET /api/groups/{id}/": {"ids": groups},
            "PUT /api/groups/{id}/": {"ids": groups, "body": {"name": "hospitals"}},
            "PATCH /api/groups/{id}/": {"ids": groups, "body": {"name": "practices"}},
            "DELETE /api/groups/{id}/": {"ids": groups[::-1]},
            "PUT /api/groups/{id}/members/": {"ids": groups, **members},
            "DELETE /api/groups/{id}/members/": {"ids": groups, **members},
            "POST /api/tokens/": name,
            "GET /api/tokens/{id}/": {"ids": tokens},
            "DELETE /api/tokens/{id}/": {"ids": tokens[::-1]},
        }

    def _of_models(self) -> dict[str, Request]:
        model = self._model()
        training = self._training(model)
        self._call("POST", f"trainings/{training}/start/")
        preprocessing = {"model_preprocessing_file": _module()}
        self._call("POST", f"models/{model}/preprocessing/", files=preprocessing)
        self._wait_for_notification(training)
        form = {"round": 0, "sample_size": 1, "model_file": encoded(self.file)}
        raw = {"query": {"round": 0, "sample_size": 1}, "body": encoded(self.file)}
        metrics = {"metric_names": ["loss"], "metric_values": [1]}
        calibration = {"round": 0, "statistics": to_json(RegressionStatistics.of([1.0, 2.0], [1.5, 2.0]))}
        self._call("POST", f"models/{model}/calibration/", json=calibration)
        seen = ("", "metadata/", "metrics/", "checkpoints/", "lineage/", "preprocessing/")
        return {
            **{f"GET /api/models/{{id}}/{each}": {"ids": [model]} for each in seen},
            # By its number: an update that is sent meanwhile makes another checkpoint the latest.
            "GET /api/models/{id}/calibration/": {"ids": [model], "query": {"round": 0}},
            "POST /api/models/": {"body": {**MODEL, "model_file": encoded(self.file)}, "type": "multipart/form-data"},
            "DELETE /api/models/{id}/": {"ids": [self._model(), self._model()]},
            "POST /api/inference/": {
                "body": {"model_id": self._model(_module(layers=True)), "model_input": [[1, 2]]},
                "type": "application/json",
            },
            "POST /api/models/{id}/": {"ids": [model], "body": form},
            "PUT /api/models/{id}/update/": {"ids": [model], **raw},
            "POST /api/models/{id}/metrics/": {"ids": [model], "body": metrics},
            "POST /api/models/{id}/calibration/": {"ids": [model], "body": calibration},
            "POST /api/models/{id}/preprocessing/": {
                "ids": [model],
                "body": {"model_preprocessing_file": encoded(_module())},
            },
            "POST /api/models/{id}/swag/": {"ids": [self._awaiting_moments()], "body": {"round": 1, "sample_size": 0}},
        }

    def _of_uploads(self) -> dict[str, Request]:
        opened = {"target": "/api/models/", "fields": MODEL, "size": len(self.file)}
        reading, removed, sent = (
            self._made("uploads", opened | {"sha256": hashlib.sha256(each.encode()).hexdigest()}) for each in "abc"
        )
        return {
            "POST /api/uploads/": {"body": opened},
            "GET /api/uploads/{id}/": {"ids": [reading]},
            "DELETE /api/uploads/{id}/": {"ids": [removed]},
            "PATCH /api/uploads/{id}/": {
                "ids": [sent],
                "headers": {"Upload-Offset": "0", "X-Content-SHA256": self.digest},
                "body": encoded(self.file),
            },
            "POST /api/uploads/{id}/commit/": {"ids": [self._filled()], "body": {"sha256": self.digest}},
        }

    def _of_trainings(self) -> dict[str, Request]:
        model = self._model()
        trainings = [self._training(model) for _ in range(4)]
        clients = {"body": {"clients": []}}
        creation = {"model_id": model, "target_num_updates": 1, "aggregation_method": "FedAvg"}
        return {
            "POST /api/trainings/": {"body": creation, "type": "application/json"},
            "GET /api/trainings/{id}/": {"ids": trainings},
            "DELETE /api/trainings/{id}/": {"ids": trainings[3:]},
            "POST /api/trainings/{id}/start/": {"ids": trainings},
            "PUT /api/trainings/{id}/clients/": {"ids": trainings, **clients},
            "POST /api/trainings/{id}/clients/": {"ids": trainings, **clients},
            "DELETE /api/trainings/{id}/clients/": {"ids": trainings, **clients},
            "GET /api/trainings/{id}/models/": {"ids": trainings},
            "GET /api/trainings/{id}/models/latest/": {"ids": trainings},
            "GET /api/trainings/{id}/updates/": {"ids": trainings},
            **{f"GET /api/trainings/{{id}}/{each}/": {"ids": trainings} for each in RECORDS},
        }

    def _superuser(self) -> Account:
        place = self._world.place
        command = ["user", "add", "boss", "--superuser", "--data-dir", str(place.data_dir)]
        printed = warm.run(command, env=place.environment(), folder=place.folder)
        boss = Account("boss", "", printed.stdout.split()[-1])
        return Account("boss", self._world.call(boss, "GET", "/api/users/myself/").json()["id"], boss.token)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        answer = self._world.call(self.boss, method, f"/api/{path}", **request)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _made(self, resource: str, fields: dict[str, Any]) -> str:
        return str(self._call("POST", f"{resource}/", json=fields)["id"])

    def _model(self, file: bytes | None = None) -> str:
        return str(self._call("POST", "models/", data=MODEL, files={"model_file": file or self.file})["model_id"])

    def _training(self, model: str, **fields: Any) -> str:
        wanted = {"model_id": model, "target_num_updates": 1000, "aggregation_method": "FedAvg"}
        return str(
            self._call("POST", "trainings/", json={**wanted, "clients": [self.boss.id], **fields})["training_id"]
        )

    def _awaiting_moments(self) -> str:
        model = self._model()
        training = self._training(model, uncertainty_method="SWAG")
        self._call("POST", f"trainings/{training}/start/")
        self._wait_for_notification(training)
        form = {"round": "0", "sample_size": "1"}
        self._call("POST", f"models/{model}/", data=form, files={"model_file": self.file})
        wait_until(lambda: self._call("GET", f"trainings/{training}/")["state"] == "S", "the round of moments")
        return model

    def _wait_for_notification(self, training: str) -> None:
        wait_until(lambda: self._call("GET", f"trainings/{training}/")["rounds"], "the first round")

    def _filled(self) -> str:
        upload = self._made("uploads", {"target": "/api/models/", "fields": MODEL, "size": len(self.file)})
        headers = {"Upload-Offset": "0", "X-Content-SHA256": self.digest, "Content-Type": "application/octet-stream"}
        self._call("PATCH", f"uploads/{upload}/", content=self.file, headers=headers)
        return upload


def _module(*, layers: bool = False) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2) if layers else torch.nn.Flatten(), file)
    return file.getvalue()
