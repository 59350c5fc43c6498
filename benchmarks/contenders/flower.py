"""Flower: a strategy's `aggregate_train`, from messages to a record.

The messages are as its server has them when the aggregation begins: in memory, each array as the bytes that came.
Timed are the checking of the replies, deserializing, merging and serializing the new model. `decoding` is what the
server does before with each message that comes: it is inflated out of chunks. Left out are the network and storing the
new model. Counted as memory are the messages, too, since Flower needs them all at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, Strategy
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from contenders.turn import Job, Result, take_turn
from contenders.update_file import mean_of, read_arrays

STRATEGIES: dict[str, Callable[[dict[str, Any]], Strategy]] = {
    "FedAvg": lambda options: FedAvg(),
    "Median": lambda options: FedMedian(),
    "TrimmedMean": lambda options: FedTrimmedAvg(beta=options["trim"]),
    "Krum": lambda options: Krum(num_malicious_nodes=options["num_byzantine"]),
}


def prepare(job: Job) -> Callable[[], Result]:
    strategy = STRATEGIES[job["strategy"]](job["options"])
    messages, decoding = [], 0.0
    for number, path in enumerate(job["updates"], start=1):
        name, chunks = deflated(message(path, number))
        started = time.perf_counter()
        messages.append(inflate_object_from_contents(name, chunks))
        decoding += time.perf_counter() - started

    def merge() -> Result:
        started = time.perf_counter()
        model, _ = strategy.aggregate_train(1, messages)
        seconds = time.perf_counter() - started
        mean = mean_of(array.numpy() for array in model.values())
        return {"seconds": seconds, "decoding": decoding, "mean": mean}

    return merge


def message(path: str, number: int) -> Message:
    arrays = ArrayRecord({name: Array(array) for name, array in read_arrays(path).items()})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": number})})
    return Message(content, dst_node_id=number, message_type=MessageType.TRAIN)


def deflated(message: Message) -> tuple[str, dict[str, bytes]]:
    """Return the message's id, and by their ids the pieces in which it crosses the wire."""
    pieces = {name: piece.deflate() for name, piece in get_all_nested_objects(message).items()}
    return message.object_id, pieces


if __name__ == "__main__":
    logging.disable(logging.INFO)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # no message can be made before
    take_turn(prepare)
