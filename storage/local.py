"""Records that belong to this node and never replicate: refresh families, lock-outs, settings made by the user.

Room: the only place that knows the `local` table. A kind is a short word of the
service that owns it; keys and values are the service's.
"""

from collections.abc import Callable, Iterator
from typing import Any

from protocol.encoding import decode, encode
from storage.kv import ReadTransaction, Table, WriteTransaction, after

Value = dict[str, Any]
_KEY_MAX_BYTES = 400  # LMDB takes keys up to 511 bytes


def _key(kind: str, key: str) -> bytes:
    encoded = kind.encode() + b"\0" + key.encode()
    if len(encoded) > _KEY_MAX_BYTES:
        raise ValueError(f"a local key of {len(encoded)} bytes, limit {_KEY_MAX_BYTES}")
    return encoded


class LocalReader:
    """Local records within one transaction."""

    def __init__(self, transaction: ReadTransaction) -> None:
        self._transaction = transaction

    def get(self, kind: str, key: str) -> Value | None:
        value = self._transaction.get(Table.LOCAL, _key(kind, key))
        return None if value is None else decode(value)

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Value]]:
        """Pairs of key and value in the order of the keys."""
        start = _key(kind, prefix)
        for key, value in self._transaction.scan(Table.LOCAL, start, after(start)):
            yield key[len(kind) + 1 :].decode(), decode(value)


class LocalWriter(LocalReader):
    """Local records within the one write transaction."""

    _transaction: WriteTransaction

    def __init__(self, transaction: WriteTransaction) -> None:
        super().__init__(transaction)
        self._before: list[tuple[bytes, bytes | None]] = []

    def put(self, kind: str, key: str, value: Value) -> None:
        stored, encoded = _key(kind, key), encode(value)
        self._before.append((stored, self._transaction.get(Table.LOCAL, stored)))
        self._transaction.put(Table.LOCAL, stored, encoded)

    def delete(self, kind: str, key: str) -> bool:
        stored = _key(kind, key)
        self._before.append((stored, self._transaction.get(Table.LOCAL, stored)))
        return self._transaction.delete(Table.LOCAL, stored)

    def mark(self) -> None:
        """Begin a request that may have to be undone."""
        self._before.clear()

    def undo(self) -> None:
        """Put everything back as it was at the last `mark`."""
        for key, value in reversed(self._before):
            if value is None:
                self._transaction.delete(Table.LOCAL, key)
            else:
                self._transaction.put(Table.LOCAL, key, value)
        self._before.clear()

    def run(self, change: "Callable[[LocalWriter], Any]") -> Any:
        """What a change gives; if it raises, nothing of it is kept."""
        self.mark()
        try:
            return change(self)
        except Exception:
            self.undo()
            raise
