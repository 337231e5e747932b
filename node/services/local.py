"""Durable records of this node alone, for services: read on the loop, written through the one writer.

Room: the typed door to storage's local records. They never replicate.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from node.writer import Writer
from storage.local import LocalWriter
from storage.store import Store

T = TypeVar("T")
Value = dict[str, Any]


class LocalStore:
    """Kinds are short words, one per owner; keys are text of at most 300 bytes."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    def get(self, kind: str, key: str) -> Value | None:
        with self._store.read() as snapshot:
            return snapshot.local.get(kind, key)

    def scan(self, kind: str, prefix: str = "") -> list[tuple[str, Value]]:
        """All pairs of a kind whose key begins with `prefix`, in order."""
        with self._store.read() as snapshot:
            return list(snapshot.local.scan(kind, prefix))

    async def put(self, kind: str, key: str, value: Value) -> None:
        """Durable when it returns."""
        await self._writer.submit(lambda local: local.put(kind, key, value))

    async def delete(self, kind: str, key: str) -> None:
        """Durable when it returns."""
        await self._writer.submit(lambda local: local.delete(kind, key))

    async def transact(
        self, kind: str, key: str, step: Callable[[Value | None], tuple[Value | None, T]]
    ) -> T:
        """Read, change and write one record atomically; `step` runs on the writer thread and must not block.

        It returns the new value (None deletes the record) and a result, which is durable when this returns.
        """

        def change(local: LocalWriter) -> T:
            after, result = step(local.get(kind, key))
            if after is None:
                local.delete(kind, key)
            else:
                local.put(kind, key, after)
            return result

        result: T = await self._writer.submit(change)
        return result

    async def change(self, step: Callable[[LocalWriter], T]) -> T:
        """Read and write several records atomically; as `transact`, for a `step` that is given all of them."""
        result: T = await self._writer.submit(step)
        return result
