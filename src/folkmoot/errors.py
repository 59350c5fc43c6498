"""Every error that Folkmoot raises on purpose: one class for each way to react, one stable code for each on the wire.

FolkmootError
├── InvalidInput                    what came cannot be used; sending it again will not help
│   ├── InvalidFile                     the bytes are no model file that can be read safely
│   │   ├── UnsupportedContainer            a kind of file that is not taken
│   │   ├── UnsafePickle                    a pickle that names something outside the short list of what is taken
│   │   │   └── UnknownClass                    a whole module of a class that only its author has
│   │   ├── ExternalData                    a file that leaves its tensors to other files
│   │   └── TooLarge                        over a limit of bytes, tensors or names
│   ├── SchemaMismatch                  tensors with other names, dtypes or shapes than the model's
│   ├── NonFinite                       NaN or infinity in a tensor
│   ├── InvalidValue                    a field or an option outside its range
│   ├── DigestMismatch                  the bytes that arrived are not those that were sent
│   ├── IncompleteRequest               the request broke off before its end
│   └── NotAvailableYet                 a documented part that this version does not have
├── NotAuthenticated                who you are is not known
├── NotAllowed                      you are known, and may not
├── NotFound                        no such thing
│   └── Removed                         it was there, and is kept no longer
├── Conflict                        right in itself, at the wrong moment
│   ├── WrongState                      the training is in a state that does not take this
│   ├── RoundClosed                     the round no longer takes updates
│   ├── RoundNotOpen                    the round has not begun
│   ├── AlreadySubmitted                another update of this participant counts in this round
│   ├── InUse                           something else needs it as it is
│   ├── MadeOfModels                    a model that has no tensors of its own, but members
│   ├── WrongOffset                     an upload goes on at another byte
│   └── TooManyUploads                  more unfinished uploads than a user may have
├── AggregationFailed               the updates of a round cannot be made into a model
│   └── DamagedUpdate                   one of them is not what it was when it came in
├── ModelFailed                     a model that crashes, takes too much or does what it may not, when it is asked
├── Unavailable                     for the moment; try again
│   ├── TooSlow                         the request's body did not come in time
│   └── StorageFull                     no space left where models are kept
├── NotInstalled                    a part that this server does not have
├── Internal                        a fault of the server's own
└── Misconfigured                   a setting, an argument or an environment variable is wrong
"""

from __future__ import annotations


class FolkmootError(Exception):
    """The base of all errors that are raised on purpose; its text is meant for a person."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInput(FolkmootError):
    code = "invalid_input"


class InvalidFile(InvalidInput):
    code = "invalid_file"


class UnsupportedContainer(InvalidFile):
    code = "unsupported_container"


class UnsafePickle(InvalidFile):
    code = "unsafe_pickle"


class UnknownClass(UnsafePickle):
    code = "unknown_class"


class ExternalData(InvalidFile):
    code = "external_data"


class TooLarge(InvalidFile):
    code = "too_large"


class SchemaMismatch(InvalidInput):
    code = "schema_mismatch"


class NonFinite(InvalidInput):
    code = "non_finite"


class InvalidValue(InvalidInput):
    code = "invalid_value"


class DigestMismatch(InvalidInput):
    code = "digest_mismatch"


class IncompleteRequest(InvalidInput):
    code = "incomplete_request"


class NotAvailableYet(InvalidInput):
    code = "not_available_yet"


class NotAuthenticated(FolkmootError):
    code = "not_authenticated"


class NotAllowed(FolkmootError):
    code = "permission_denied"


class NotFound(FolkmootError):
    code = "not_found"


class Removed(NotFound):
    code = "removed"


class Conflict(FolkmootError):
    code = "conflict"


class WrongState(Conflict):
    code = "wrong_state"


class RoundClosed(Conflict):
    code = "round_closed"


class RoundNotOpen(Conflict):
    code = "round_not_open"


class AlreadySubmitted(Conflict):
    code = "already_submitted"


class InUse(Conflict):
    code = "in_use"


class MadeOfModels(Conflict):
    code = "made_of_models"


class WrongOffset(Conflict):
    """`offset` is where the upload goes on, where that is known."""

    code = "wrong_offset"

    def __init__(self, message: str, *, offset: int | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.offset = offset


class TooManyUploads(Conflict):
    code = "too_many_uploads"


class AggregationFailed(FolkmootError):
    code = "aggregation_failed"


class DamagedUpdate(AggregationFailed):
    """`update_id` says which one; the others can still be aggregated."""

    code = "damaged_update"

    def __init__(self, message: str, *, update_id: str = "", code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.update_id = update_id


class ModelFailed(FolkmootError):
    code = "model_failed"


class Unavailable(FolkmootError):
    code = "unavailable"


class TooSlow(Unavailable):
    code = "too_slow"


class StorageFull(Unavailable):
    code = "storage_full"


class NotInstalled(FolkmootError):
    code = "not_installed"


class Internal(FolkmootError):
    code = "internal"


class Misconfigured(FolkmootError):
    code = "misconfigured"


def _family(error: type[FolkmootError]) -> list[type[FolkmootError]]:
    return [error, *(member for child in error.__subclasses__() for member in _family(child))]


# Codes are unique, so that a client can raise the very class that the server raised.
BY_CODE: dict[str, type[FolkmootError]] = {error.code: error for error in _family(FolkmootError)}
