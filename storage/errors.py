"""Every way in which keeping data can fail, in words that say what to do.

Room: one root, `StorageError`. Exceptions of LMDB, SQLite and the operating
system stop at the wall of this package and come out as one of these.
"""

import errno
from os import PathLike, fspath


class StorageError(Exception):
    """Data could not be read or kept."""


class StorageFull(StorageError):
    """The disk, a quota or the map is full. Nothing of the failed write was kept; writes resume when space returns."""


class StorageFailed(StorageError):
    """The disk failed a write or a flush. The node takes no more writes: what reached the disk is unknown."""


class StoreDamaged(StorageError):
    """The record is truncated, emptied or altered. Opened no further; the message names the repair."""


class StoreLocked(StorageError):
    """Another process holds this data directory."""

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class NewerFormat(StorageError):
    """The data directory was written by a newer release, which this one does not read."""

    def __init__(self, *, found: int, readable: int) -> None:
        super().__init__(f"data format {found}, this release reads up to {readable}: upgrade civicnode")
        self.found = found
        self.readable = readable


class UnknownDocument(StorageError):
    """There is no such document, or it is deleted."""


class DocumentExists(StorageError):
    """A document of this id is there already."""


class DocumentErased(DocumentExists):
    """There was a document of this id, which nothing can bring back."""


class VersionMismatch(StorageError):
    """The document is not at the version that the writer named."""

    def __init__(self, *, current: str) -> None:
        super().__init__(f"the document is at version {current}")
        self.current = current


class ConflictChanged(StorageError):
    """The values that stand side by side in a field are not those that the resolution speaks of."""


class ConflictOpen(StorageError):
    """An edit would end a conflict that only a resolution may end. `fields` names each with its conflict's id."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(f"in conflict: {', '.join(sorted(fields))}")
        self.fields = fields


class RecordRefused(StorageError):
    """An edit would leave a record that its model does not allow. `faults` by field."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__(f"not allowed: {', '.join(sorted(faults))}")
        self.faults = faults


class DocumentQuarantined(StorageError):
    """A document is kept and not shown, because of what was written elsewhere, and would be so after the edit.

    `faults` by field; none if what is in it could not be merged on this node.
    """

    def __init__(self, name: str, faults: dict[str, str]) -> None:
        super().__init__(f"{name} is quarantined: it is kept, and not shown")
        self.faults = faults


class NotUnique(StorageError):
    """A value of a unique field is taken by another document."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(f"taken: {', '.join(sorted(fields))}")
        self.fields = fields


class UnknownModel(StorageError):
    """There is no model of this name in the application."""


class IndexDamaged(StorageError):
    """The query index cannot be read. It is disposable: delete it and it is rebuilt from the record."""


class IndexUnavailable(StorageError):
    """The query index is behind the record and being rebuilt. Reads by id go on; ask again shortly."""


class IndexBehind(StorageError):
    """The query index does not know a model or field yet; it will once it has caught up."""


class SqlRefused(StorageError):
    """A statement is not a single SELECT, is wrong, or took too long. The text says which."""


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def os_failure(error: OSError, path: str | PathLike[str]) -> StorageError:
    """What an error of the operating system at a file of ours means for this node."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFull(f"no space left for {fspath(path)} ({reason}): free some and try again")
    if error.errno in _FORBIDDEN:
        return StorageError(f"{fspath(path)} cannot be used ({reason}): run this as the owner of the data")
    if error.errno == errno.EIO:
        return StorageFailed(f"the disk failed at {fspath(path)} ({reason})")
    return StorageError(f"{fspath(path)} cannot be used ({reason})")
