"""What came of the demo, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.demo.timing import Timing


@dataclass(frozen=True)
class Outcome:
    """`accuracy` after each round and `alone` for each participant, all on the held-out digits."""

    state: str
    training_id: str
    accuracy: Sequence[float]
    alone: Sequence[float]
    timings: Sequence[Timing]
    seconds: float

    def as_json(self) -> str:
        return json.dumps(
            {
                "state": self.state,
                "rounds": len(self.accuracy),
                "participants": len(self.alone),
                "accuracy": [round(accuracy, 4) for accuracy in self.accuracy],
                "alone": [round(accuracy, 4) for accuracy in self.alone],
                "seconds": round(self.seconds, 2),
                "round_seconds": [round(timing.total, 3) for timing in self.timings],
                "idle_seconds": [round(timing.idle, 3) for timing in self.timings],
                "training_id": self.training_id,
            }
        )

    def comparison(self) -> str:
        alone = ", ".join(f"{accuracy:.3f}" for accuracy in self.alone)
        return f"Accuracy on held-out digits: {self.accuracy[-1]:.3f} together; each participant alone: {alone}."

    def durations(self) -> str:
        total, idle = (_mean([getattr(timing, part) for timing in self.timings]) for part in ("total", "idle"))
        return (
            f"A round took {total:.2f} s; {idle:.2f} s of it nobody trained, which is the server's and the client's"
            f" own share. All in all {self.seconds:.1f} s."
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
