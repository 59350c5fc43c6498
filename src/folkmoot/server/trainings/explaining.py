"""One sentence that says what a training is doing, and what it waits for: from facts alone, times in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from folkmoot.protocol.states import Doing, RoundState, TrainingState

MOST_NAMES = 5
PRESENT_FOR = timedelta(seconds=90)


@dataclass(frozen=True)
class Awaited:
    """A participant whose answer may still come; or who was not asked yet, as it is not online, and does nothing."""

    id: UUID
    username: str
    doing: Doing | None
    percent: float | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True)
class Step:
    """What the newest round is at. `number` counts from 1; `wanted` answers end the step, `arrived` are in.

    `least` answers suffice at the deadline, None where they must be all; `is_last_attempt` says that the training ends
    then. Of a round that waits for participants to come online `wanted` and `arrived` are such participants, and those
    are awaited who are not online.
    """

    number: int
    state: RoundState
    closes_at: datetime
    wanted: int = 0
    arrived: int = 0
    awaited: Sequence[Awaited] = ()
    least: int | None = None
    is_last_attempt: bool = False
    is_buffered: bool = False
    unnamed: int = 0
    """Further ones who are awaited, and of whom the reader is told no more."""


@dataclass(frozen=True)
class Facts:
    """All that the sentence depends on; `step` is None before the first round.

    The training has `num_rounds`, and its model had `rounds_before` when it began.
    """

    now: datetime
    state: TrainingState
    num_rounds: int
    rounds_before: int = 0
    num_participants: int = 0
    reason: str = ""
    step: Step | None = None
    stops_after_round: bool = False

    @property
    def last_round(self) -> int:
        return self.rounds_before + self.num_rounds


def code_of(facts: Facts) -> str:
    """What the training is doing, in a word for programs."""
    over = {
        TrainingState.INITIAL: "not_started",
        TrainingState.PAUSED: "paused",
        TrainingState.COMPLETED: "completed",
        TrainingState.STOPPED: "stopped",
        TrainingState.ERROR: "error",
    }
    if facts.state in over or facts.step is None:
        return over.get(facts.state, "under_way")
    if facts.step.state.is_aggregating and facts.reason:
        return "waiting_for_storage"
    return {
        RoundState.WAITING: "waiting_for_participants",
        RoundState.OPEN: "collecting",
        RoundState.AGGREGATING: "aggregating",
        RoundState.SWAG: "collecting_moments",
        RoundState.MERGING: "merging_moments",
        RoundState.TESTING: "testing",
    }.get(facts.step.state, "under_way")


def sentence_of(facts: Facts) -> str:
    """The sentence; of a training that is over, why."""
    last = f"round {facts.step.number} of {facts.last_round}" if facts.step else "before its first round"
    match facts.state:
        case TrainingState.INITIAL:
            people, rounds = _count(facts.num_participants, "participant"), _count(facts.num_rounds, "round")
            return f"Not started: {people} so far, {rounds} to go."
        case TrainingState.PAUSED:
            return f"Paused at {last}; its deadline stands still until it is resumed."
        case TrainingState.COMPLETED:
            return f"Completed{_because(facts)}"
        case TrainingState.STOPPED:
            return f"Stopped{_because(facts)}"
        case TrainingState.ERROR:
            return f"Ended with an error{_because(facts)}"
    if facts.step is None:
        return f"Under way, {last}."
    end = " Stops at the end of this round." if facts.stops_after_round else ""
    return f"{last.capitalize()}: {_what(facts, facts.step)}.{end}"


def _because(facts: Facts) -> str:
    return f": {facts.reason}" if facts.reason else f", after {_count(facts.num_rounds, 'round')}."


def _what(facts: Facts, step: Step) -> str:
    if step.state.is_aggregating and facts.reason:
        return f"waiting for storage: {facts.reason.rstrip('.')}"
    match step.state:
        case RoundState.WAITING:
            return f"{_gathering(facts, step)}; {_retry(facts, step)}"
        case RoundState.OPEN:
            return _collecting(facts, step, "update", then=_closing(facts, step))
        case RoundState.AGGREGATING:
            return "making the next model"
        case RoundState.SWAG:
            then = f"goes on without them at {_time(step.closes_at, facts.now)}"
            return _collecting(facts, step, "answer with moments", then=then)
        case RoundState.MERGING:
            return "merging the moments of the next model"
        case RoundState.TESTING:
            then = f"closes without them at {_time(step.closes_at, facts.now)}"
            return _collecting(facts, step, "answer to the test", then=then)
    return "going on"


def _gathering(facts: Facts, step: Step) -> str:
    there = f"{step.arrived or 'nobody'} {'is' if step.arrived <= 1 else 'are'} online"
    names = _names(step.awaited, facts.now, more=step.unnamed)
    wanted = _count(step.wanted, "participant")
    return f"waiting for {step.wanted - step.arrived} more of {wanted} to come online ({there}){names}"


def _collecting(facts: Facts, step: Step, what: str, *, then: str) -> str:
    lacking, might_come = max(step.wanted - step.arrived, 0), len(step.awaited) + step.unnamed
    answers = _count(step.wanted, what)
    if step.is_buffered:
        return f"waiting for {lacking} of {answers}, of whoever sends them; {then}"
    if not might_come:
        return f"{step.arrived} of {answers} came, and nobody is left to send another; {then}"
    names = _names(step.awaited, facts.now, more=step.unnamed)
    return f"waiting for {min(lacking, might_come)} of {answers}{names}; {then}"


def _closing(facts: Facts, step: Step) -> str:
    if step.least is not None:
        return f"closes at {_time(step.closes_at, facts.now)} with at least {step.least}"
    return _retry(facts, step)


def _retry(facts: Facts, step: Step) -> str:
    end = "the training ends with an error" if step.is_last_attempt else "is tried again"
    return f"at {_time(step.closes_at, facts.now)} {end}"


def _names(awaited: Sequence[Awaited], now: datetime, *, more: int) -> str:
    if not awaited:
        return ""
    shown = ", ".join(f"{each.username} ({_doing(each, now)})" for each in awaited[:MOST_NAMES])
    more += max(len(awaited) - MOST_NAMES, 0)
    return f", {shown} and {more} more" if more else f", {shown}"


def _doing(each: Awaited, now: datetime) -> str:
    if each.doing == Doing.TRAINING and each.percent is not None:
        return f"training, {each.percent:.0f} %"
    if each.doing is not None and each.doing.is_under_way:
        return each.doing.value
    if each.last_seen is None:
        return "never seen"
    ago = now - each.last_seen
    return "online" if ago <= PRESENT_FOR else f"last seen {_duration(ago)} ago"


def _duration(length: timedelta) -> str:
    """In the largest unit of which there is more than one."""
    seconds = int(length.total_seconds())
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}s"
    return f"{seconds} seconds"


def _time(moment: datetime, now: datetime) -> str:
    return moment.strftime("%H:%M UTC" if moment.date() == now.date() else "%H:%M UTC on %Y-%m-%d")


def _count(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    head, space, rest = thing.partition(" ")
    return f"{number} {head}s{space}{rest}"
