"""NVFlare: `InTimeAccumulateWeightedAggregator`, from Shareables with NumPy arrays to one.

It merges each update as soon as it has come, so only one at a time is decoded; NVFlare's FedAvg controller adds up by
the same helper. Timed are `accept` of every update and `aggregate`. `decoding` is what the server does before with each
one: FOBS makes a Shareable of bytes. Left out are the network and storing the new model, and as memory those bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.app_common.aggregators.intime_accumulate_model_aggregator import InTimeAccumulateWeightedAggregator
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.decomposers import common_decomposers, numpy_decomposers
from nvflare.fuel.utils import fobs

from contenders.turn import Job, Result, Stopwatch, take_turn
from contenders.update_file import mean_of, read_arrays

ROUND = 1


def prepare(job: Job) -> Callable[[], Result]:
    context = FLContext()
    context.set_prop(AppConstants.CURRENT_ROUND, ROUND)
    aggregator = InTimeAccumulateWeightedAggregator(expected_data_kind=DataKind.WEIGHTS)
    aggregator.handle_event(EventType.START_RUN, context)
    given = [fobs.dumps(shareable(path, number)) for number, path in enumerate(job["updates"], start=1)]

    def merge() -> Result:
        decoding, accepting = Stopwatch(fobs.loads), Stopwatch(aggregator.accept)
        aggregating = Stopwatch(aggregator.aggregate)
        for payload in given:
            if not accepting(decoding(payload), context):
                raise ValueError("an update was not accepted")
        mean = mean_of(from_shareable(aggregating(context)).data.values())
        seconds = accepting.seconds + aggregating.seconds
        return {"seconds": seconds, "decoding": decoding.seconds, "mean": mean, "given": sum(map(len, given))}

    return merge


def shareable(path: str, number: int) -> Shareable:
    update = DXO(DataKind.WEIGHTS, read_arrays(path), {MetaKey.NUM_STEPS_CURRENT_ROUND: number}).to_shareable()
    update.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{number}"})
    update.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)
    return update


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    for decomposers in (flare_decomposers, common_decomposers, numpy_decomposers):
        decomposers.register()
    take_turn(prepare)
