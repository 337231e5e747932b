"""What the account services need of storage, as types.

Room: shapes only. `node.services.records` and the node-local store provide them; tests provide
in-memory ones. Nothing here runs.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from protocol.query import Query

T = TypeVar("T")

Values = dict[str, Any]


class Record(Protocol):
    """One document as the services see it."""

    @property
    def id(self) -> str: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def created_at_ms(self) -> int: ...
    @property
    def updated_at_ms(self) -> int: ...
    @property
    def created_by(self) -> str | None: ...
    @property
    def version(self) -> str: ...


Guard = Callable[[Any], None]


class Records(Protocol):
    """Replicated documents. A write is durable when it returns."""

    def get(self, application: str, model: str, id: str, /) -> Record | None: ...

    def was_ever(self, application: str, model: str, id: str, /) -> bool:
        """Whether there is such a document, or was one before it was deleted."""

    async def create(
        self,
        application: str,
        model: str,
        values: Values,
        /,
        *,
        user: str,
        id: str | None = None,
        guard: Guard | None = None,
    ) -> Record: ...

    async def update(
        self,
        application: str,
        model: str,
        id: str,
        values: Values,
        /,
        *,
        user: str,
        guard: Guard | None = None,
    ) -> Record: ...

    async def delete(self, application: str, model: str, id: str, /, *, user: str) -> None: ...

    async def find(
        self, application: str, model: str, query: Query, /
    ) -> tuple[list[Any], int, str | None]: ...


class LocalStore(Protocol):
    """Records of this node alone: durable, never replicated."""

    def get(self, kind: str, key: str, /) -> dict[str, Any] | None: ...

    async def put(self, kind: str, key: str, value: dict[str, Any], /) -> None: ...

    async def delete(self, kind: str, key: str, /) -> None: ...

    async def transact(
        self,
        kind: str,
        key: str,
        fn: Callable[[dict[str, Any] | None], tuple[dict[str, Any] | None, T]],
        /,
    ) -> T: ...

    def scan(self, kind: str, prefix: str = "", /) -> Iterable[tuple[str, dict[str, Any]]]: ...


Changed = Callable[[str, str], None]
"""Called with (model id, document id) after that document changed here or arrived from elsewhere."""
