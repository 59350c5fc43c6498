"""All that can be done to a training, in any order, against a model of what it does then."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Training

pytestmark = pytest.mark.django_db

ROUNDS, RETRIES = 2, 1
PEOPLE = st.integers(0, 2)


@dataclass
class Expected:
    """What a training of three participants and two rounds without tests is to be like. Statuses are those of HTTP."""

    state: str = "I"
    members: set[int] = field(default_factory=lambda: {0, 1, 2})
    number: int = 0
    is_open: bool = False
    is_full: bool = False
    cohort: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    declined: set[int] = field(default_factory=set)
    tries: int = 0
    stops: bool = False
    models: list[set[int]] = field(default_factory=list)
    """Whose updates each of them was made of."""

    @property
    def is_begun(self) -> bool:
        return self.state in "OP"

    def start(self) -> int:
        if self.state != "I" or not self.members:
            return 400
        self.state = "O"
        self._open(self.number)
        return 202

    def pause(self) -> int:
        return self._move("O", "P")

    def resume(self) -> int:
        status = self._move("P", "O")
        self._fill_if_complete()
        return status

    def stop(self, *, at_end: bool) -> int:
        if self.state in "CX" or (at_end and self.is_begun and self.stops):
            return 400
        if at_end and self.is_begun:
            self.stops = True
        else:
            self._end("X")
        return 202

    def retry(self) -> int:
        if self.state != "E":
            return 400
        self.state = "O"
        # One that was never opened, since nobody was left, opens now.
        answered = self.sent & self.members
        self._open(self.number, sent=self.sent, cohort=self.members | answered)
        self._fill_if_complete()
        return 202

    def clone(self) -> int:
        return 201 if len(self.models) < ROUNDS else 400

    def decline(self, who: int) -> set[int]:
        if who not in self.members:
            return {403}
        if not (self.is_begun and self.is_open and who in self.cohort):
            return {400, 409}
        self.declined.add(who)
        self._fill_if_complete()
        return {204}

    def send(self, who: int, number: int) -> set[int]:
        if who not in self.members:
            return {403, 200}
        if number == self.number and who in self.sent:
            return {200}
        if number < self.number and number < len(self.models) and who in self.models[number]:
            return {200}
        if not (self.is_begun and self.is_open and number == self.number and who in self.cohort):
            return {400, 409}
        self.sent.add(who)
        self._fill_if_complete()
        return {201}

    def add(self, who: int) -> int:
        if self.state in "CX":
            return 400
        self.members.add(who)
        return 202

    def remove(self, who: int) -> None:
        if who not in self.members:
            return
        self.members.remove(who)
        if self.is_begun:
            self.cohort.discard(who)
            self._fill_if_complete()

    def pass_deadline(self) -> None:
        if self.state == "O" and self.is_open:
            self.tries, self.declined = self.tries + 1, set()
            if self.tries > RETRIES:
                self._end("E")

    def work(self) -> None:
        """What is full is aggregated, but not in a pause."""
        if self.state != "O" or not self.is_full:
            return
        self.models.append(set(self.sent))
        self.number, self.is_full, self.sent = self.number + 1, False, set()
        if self.number == ROUNDS:
            self._end("C")
        elif self.stops:
            self._end("X")
        else:
            self._open(self.number)

    def _open(self, number: int, *, sent: Collection[int] = (), cohort: Collection[int] = ()) -> None:
        if not self.members:
            self._end("E")
            return
        self.is_open, self.is_full, self.tries = True, False, 0
        self.cohort, self.sent, self.declined = set(cohort or self.members), set(sent), set()

    def _fill_if_complete(self) -> None:
        if self.state != "O" or not self.is_open or self.cohort - self.sent - self.declined:
            return
        if self.sent:
            self.is_open, self.is_full = False, True
        elif not self.cohort:  # where all have declined, the deadline is waited for
            self._end("E")

    def _end(self, state: str) -> None:
        self.state, self.is_open, self.is_full = state, False, False

    def _move(self, source: str, target: str) -> int:
        if self.state != source:
            return 400
        self.state = target
        return 202


class Machine(RuleBasedStateMachine):
    """Does it to a training of a hub, and has the model do the same."""

    def __init__(self, make_scene, scene_of, as_, work):
        super().__init__()
        self._scene_of, self._as, self._handle_events = scene_of, as_, work
        options = {"tests": "never", "round_retries": RETRIES}
        self.scene = make_scene(started=False, participants=3, target_num_updates=ROUNDS, options=options)
        self.expected = Expected()

    def command(self, name, body=None):
        return self._as(self.scene.actor).send("POST", f"/api/trainings/{self.scene.id}/{name}/", body).status_code

    @rule()
    def start(self):
        assert self.command("start") == self.expected.start()

    @rule()
    def pause(self):
        assert self.command("pause") == self.expected.pause()

    @rule()
    def resume(self):
        assert self.command("resume") == self.expected.resume()

    @rule(when=st.sampled_from(["now", "end_of_round"]))
    def stop(self, when):
        assert self.command("stop", {"when": when}) == self.expected.stop(at_end=when == "end_of_round")

    @rule()
    def retry(self):
        assert self.command("retry") == self.expected.retry()

    @rule()
    def clone(self):
        answer = self._as(self.scene.actor).send("POST", f"/api/trainings/{self.scene.id}/clone/")
        assert answer.status_code == self.expected.clone()
        if answer.status_code == 201:
            clone = self._scene_of(Training.objects.get(pk=answer.json()["training_id"]))
            assert (clone.state, clone.weights()) == ("I", self.scene.weights())

    @rule(who=PEOPLE)
    def decline(self, who):
        body = {"round": self.expected.number, "state": "declined"}
        participant = self._as(self.scene.participants[who])
        answer = participant.send("POST", f"/api/trainings/{self.scene.id}/progress/", body)
        assert answer.status_code in self.expected.decline(who), answer.content

    @rule(who=PEOPLE, ahead=st.sampled_from([0, 0, 0, 0, -1, 1]))
    def send(self, who, ahead):
        number = max(self.expected.number + ahead, 0)
        answer = self.scene.send_update(self.scene.participants[who], round=number, w=(who + 1, number))
        assert answer.status_code in self.expected.send(who, number), answer.content

    @rule(who=PEOPLE)
    def add(self, who):
        assert self.scene.add(self.scene.participants[who]).status_code == self.expected.add(who)

    @rule(who=PEOPLE)
    def remove(self, who):
        assert self.scene.remove(self.scene.participants[who]).status_code == 200
        self.expected.remove(who)

    @rule()
    def pass_deadline(self):
        if self.scene.training.rounds.exists():
            current = self.scene.training.rounds.latest("number")
            lifecycle.close_if_overdue(current, current.closes_at + timedelta(seconds=1))
        self.expected.pass_deadline()

    @rule()
    def work(self):
        self._handle_events()
        self.expected.work()

    @invariant()
    def is_as_expected(self):
        shown = self.scene.shown
        assert shown["state"] == self.expected.state, shown["reason"]
        assert bool(shown["reason"]) == (self.expected.state in "XE")
        assert self.scene.training.model.round == len(self.expected.models)
        for number, senders in enumerate(self.expected.models):
            expected = [sum(who + 1 for who in senders) / len(senders), number]
            assert self.scene.weights(number + 1) == pytest.approx(expected)

    def teardown(self):
        self.check_updates()
        self.delete()

    def check_updates(self):
        """Whatever was taken is in an aggregate, or waits for one, or there is a reason."""
        path = f"/api/trainings/{self.scene.id}/updates/"
        updates = self._as(self.scene.actor).get(path).json()
        counted = [each for each in updates if each["status"] == "accepted"]
        assert len(counted) == sum(map(len, self.expected.models))
        for each in updates:
            may_wait = self.expected.state not in "CX"
            assert each["status"] == "accepted" or each["reason"] or may_wait, each

    def delete(self):
        """In whatever state: nothing comes of the training after that, and its model stays."""
        weights, actor = self.scene.weights(), self._as(self.scene.actor)
        assert actor.delete(f"/api/trainings/{self.scene.id}/").status_code == 200
        self._handle_events()
        assert {self.command(each) for each in ("start", "pause", "resume", "stop", "retry", "clone")} == {404}
        assert self.scene.weights() == weights


@pytest.mark.parametrize("examples", [15, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_whatever_is_done_in_whatever_order_a_training_does_what_its_rules_say(
    make_scene, scene_of, as_, work, examples
):
    settings = hypothesis_settings(max_examples=examples, stateful_step_count=30, deadline=None)

    run_state_machine_as_test(lambda: Machine(make_scene, scene_of, as_, work), settings=settings)
