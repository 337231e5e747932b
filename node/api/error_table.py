"""Which reply each error of storage and protocol is.

Room: one table for `errors.from_exception`, joined with that of the account services. Handlers never catch
these errors to build a reply by hand.
"""

from node.api import errors
from node.api.errors import ErrorTable
from node.api.refusals import REFUSALS
from node.services.conflicts import UnknownConflict
from node.writer import WriterOverloaded
from protocol.errors import (
    BaseMoved,
    EditFault,
    InvalidId,
    ModelFault,
    NotPermitted,
    QueryFault,
    TooLarge,
    UnknownPlace,
    Unmergeable,
)
from protocol.limits import BODY_SIZE_MAX_BYTES
from storage import errors as storage

_FAILED = "The disk failed; the node takes no more writes until it is restarted"
_DAMAGED = "Part of the record cannot be read: run `civicnode doctor`"


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _conflict_open(error: storage.ConflictOpen) -> errors.ApiError:
    """Under `manual`: which field is in which conflict, to be resolved first."""
    details = {field: f"In conflict {id}: resolve it first" for field, id in error.fields.items()}
    message = "Under the strategy manual only a resolution ends a conflict"
    return errors.ApiError(
        409, "CONFLICT", message, details, extra={"conflicts": list(error.fields.values())}
    )


ERROR_TABLE: ErrorTable = {
    **REFUSALS,
    ModelFault: lambda error: errors.ValidationFailed(error.details),
    EditFault: lambda error: errors.ValidationFailed(error.details),
    BaseMoved: lambda error: errors.Conflict(str(error)),
    UnknownPlace: lambda error: errors.Conflict(str(error)),
    Unmergeable: lambda error: errors.Conflict(str(error)),
    QueryFault: lambda error: errors.ValidationFailed(error.details),
    TooLarge: lambda error: errors.PayloadTooLarge(size_max_bytes=BODY_SIZE_MAX_BYTES),
    InvalidId: lambda error: errors.BadRequest(str(error)),
    NotPermitted: lambda error: errors.Forbidden(_sentence(error)),
    UnknownConflict: lambda refusal: errors.NotFound(str(refusal)),
    storage.UnknownModel: lambda error: errors.NotFound(str(error)),
    storage.UnknownDocument: lambda error: errors.NotFound(str(error)),
    storage.DocumentExists: lambda error: errors.Conflict(str(error)),
    storage.NotUnique: lambda error: errors.Conflict("A value that must be unique is taken", error.fields),
    storage.RecordRefused: lambda error: errors.ValidationFailed(error.faults),
    storage.DocumentQuarantined: lambda error: errors.Conflict(_sentence(error), error.faults or None),
    storage.ConflictOpen: _conflict_open,
    storage.ConflictChanged: lambda error: errors.Conflict("The conflict is another one by now"),
    storage.VersionMismatch: lambda error: errors.PreconditionFailed(),
    storage.IndexUnavailable: lambda error: errors.Unavailable(str(error)),
    storage.IndexBehind: lambda error: errors.Unavailable("The query index is catching up, try again"),
    storage.IndexDamaged: lambda error: errors.Unavailable("The query index is being rebuilt, try again"),
    storage.SqlRefused: lambda error: errors.BadRequest(str(error)),
    storage.StorageFull: lambda error: errors.StorageFull(),
    storage.StorageFailed: lambda error: errors.Unavailable(_FAILED, retry_after_s=60),
    storage.StoreDamaged: lambda error: errors.Unavailable(_DAMAGED, retry_after_s=60),
    WriterOverloaded: lambda error: errors.Unavailable(str(error)),
}
