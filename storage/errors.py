"""What can go wrong in `storage`, one class for each fact.

Room: the root of the package's errors. A library's exception never passes this
wall: it is turned into one of these where it happens.
"""


class StorageError(Exception):
    """What was asked of the store could not be done."""


class StorageFull(StorageError):
    """There is no room left for a write; nothing of it was kept."""


class IndexDamaged(StorageError):
    """The query index cannot be trusted: delete its files and build it again from the record."""


class IndexBehind(StorageError):
    """The query index does not know a model or field yet; it will once it has caught up."""


class SqlRefused(StorageError):
    """A statement given to `Index.sql` is not allowed, is wrong, or took too long. The text says which."""
