"""The kinds of message that the hub sends to a participant."""

from __future__ import annotations

from enum import StrEnum


class NotificationType(StrEnum):
    """Names as in the seed API."""

    TRAINING_START = "TRAINING_START"
    UPDATE_ROUND_START = "UPDATE_ROUND_START"
    MODEL_TEST_ROUND = "MODEL_TEST_ROUND"
    SWAG_ROUND_START = "SWAG_ROUND_START"
    TRAINING_FINISHED = "TRAINING_FINISHED"
    CLIENT_REMOVED = "CLIENT_REMOVED"

    @property
    def asks_for_work(self) -> bool:
        """Whether an answer is awaited: an update, metrics or moments."""
        return self in (
            NotificationType.UPDATE_ROUND_START,
            NotificationType.MODEL_TEST_ROUND,
            NotificationType.SWAG_ROUND_START,
        )


MAX_WAIT_SECONDS = 60
"""The longest that one poll for notifications is held; a longer wish counts as this."""
