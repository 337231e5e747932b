"""In-memory stand-ins for what the account services need, and a whole set of those services.

They keep the promises of `node.services.ports`: a write takes at least one turn of the loop, then
happens at once; what is read is a copy; guards see the document as it stands.
"""

import asyncio
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from nacl.signing import SigningKey

from node.services.account_models import account_models
from node.services.identity import Identity, build_identity
from node.services.passwords import Passwords
from protocol.ids import sortable_id
from protocol.query import Query, decode_cursor, encode_cursor
from storage.errors import DocumentExists, UnknownDocument

T = TypeVar("T")
Values = dict[str, Any]

NETWORK = "ee" * 32
START_MS = 1_700_000_000_000


class Clock:
    """Wall time in milliseconds, moved by hand."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def pass_s(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


@dataclass(frozen=True, slots=True)
class FakeRecord:
    id: str
    values: Values
    created_at_ms: int
    updated_at_ms: int
    created_by: str
    version: str


class FakeRecords:
    """`node.services.ports.Records` without a disk."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._models = {model.name: model for model in account_models("default")}
        self.documents: dict[tuple[str, str, str], FakeRecord] = {}
        self.deleted: set[tuple[str, str, str]] = set()
        self.writes = 0
        self.before_write: Callable[[], None] = lambda: None  # a peer's change, at the worst moment

    def get(self, application: str, model: str, id: str, /) -> FakeRecord | None:
        return copy.deepcopy(self.documents.get((application, model, id)))

    def was_ever(self, application: str, model: str, id: str, /) -> bool:
        return (application, model, id) in {*self.documents, *self.deleted}

    def stored(self, application: str, model: str, id: str) -> FakeRecord:
        """A document that must be there."""
        return copy.deepcopy(self.documents[application, model, id])

    def put(self, application: str, model: str, id: str, values: Values, user: str = "peer") -> None:
        """What arrived from a peer."""
        old = self.documents.get((application, model, id))
        self._keep((application, model, id), values, user, old)

    async def create(
        self,
        application: str,
        model: str,
        values: Values,
        /,
        *,
        user: str,
        id: str | None = None,
        guard: Callable[[Any], None] | None = None,
    ) -> FakeRecord:
        await asyncio.sleep(0)
        self.before_write()
        key = (application, model, id or f"made{self.writes}")
        old = self.documents.get(key)
        if old is not None:
            raise DocumentExists(f"{model}/{id} exists")
        if guard is not None:
            guard(None)
        faults = self._models[model].check_record({n: v for n, v in values.items() if v is not None})
        assert not faults, faults
        return self._keep(key, values, user, None)

    async def update(
        self,
        application: str,
        model: str,
        id: str,
        values: Values,
        /,
        *,
        user: str,
        guard: Callable[[Any], None] | None = None,
    ) -> FakeRecord:
        await asyncio.sleep(0)
        self.before_write()
        old = self.documents.get((application, model, id))
        if old is None:
            raise UnknownDocument(f"{model}/{id} does not exist")
        if guard is not None:
            guard(old)
        return self._keep((application, model, id), values, user, old)

    async def delete(self, application: str, model: str, id: str, /, *, user: str) -> None:
        await asyncio.sleep(0)
        del self.documents[application, model, id]
        self.deleted.add((application, model, id))

    async def find(self, application: str, model: str, query: Query, /) -> tuple[list[Any], int, str | None]:
        await asyncio.sleep(0)
        found = [r for (a, m, _), r in self.documents.items() if (a, m) == (application, model)]
        if query.filter is not None:
            matches = query.filter.matches
            found = [record for record in found if matches({"id": record.id, **record.values})]
        found.sort(key=lambda record: (record.created_at_ms, record.id), reverse=query.descending)
        total, start = len(found), (query.page - 1) * query.per_page
        if query.cursor is not None:
            start = next(i for i, record in enumerate(found) if record.id == query.cursor.id) + 1
        page = found[start : start + query.per_page]
        cursor = None
        if start + len(page) < total:
            last = page[-1]
            cursor = encode_cursor("created_at", query.descending, last.created_at_ms, last.id)
            assert decode_cursor(cursor, self._models[model]).id == last.id
        return copy.deepcopy(page), total, cursor

    def _keep(
        self, key: tuple[str, str, str], values: Values, user: str, old: FakeRecord | None
    ) -> FakeRecord:
        self.writes += 1
        now_ms, version = self._now_ms(), f"v{self.writes}"
        if old is None:
            old = FakeRecord(key[2], {}, now_ms, now_ms, user, version)
        merged = {name: v for name, v in {**old.values, **copy.deepcopy(values)}.items() if v is not None}
        record = replace(old, values=merged, updated_at_ms=now_ms, version=version)
        self.documents[key] = record
        return copy.deepcopy(record)


class FakeLocal:
    """`node.services.ports.LocalStore` without a disk."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Values] = {}
        self.writes = 0

    def get(self, kind: str, key: str, /) -> Values | None:
        return copy.deepcopy(self.entries.get((kind, key)))

    def stored(self, kind: str, key: str) -> Values:
        """An entry that must be there."""
        return copy.deepcopy(self.entries[kind, key])

    async def put(self, kind: str, key: str, value: Values, /) -> None:
        await asyncio.sleep(0)
        self._keep(kind, key, value)

    async def delete(self, kind: str, key: str, /) -> None:
        await asyncio.sleep(0)
        self._keep(kind, key, None)

    async def transact(
        self, kind: str, key: str, fn: Callable[[Values | None], tuple[Values | None, T]], /
    ) -> T:
        await asyncio.sleep(0)
        before = self.get(kind, key)
        after, result = fn(before)
        if after != before:  # as the real one: changing `before` in place would go unnoticed
            self._keep(kind, key, after)
        return result

    def scan(self, kind: str, prefix: str = "", /) -> Iterator[tuple[str, Values]]:
        for (of_kind, key), value in sorted(self.entries.items()):
            if of_kind == kind and key.startswith(prefix):
                yield key, copy.deepcopy(value)

    def _keep(self, kind: str, key: str, value: Values | None) -> None:
        self.writes += 1
        if value is None:
            self.entries.pop((kind, key), None)
        else:
            self.entries[kind, key] = copy.deepcopy(value)


def quick_passwords() -> Passwords:
    """Real argon2id at the least cost libsodium allows."""
    return Passwords(memory_bytes=8192, passes=1)


@dataclass
class FakeNode:
    """One node's account services over fakes. Close it at the end."""

    seed: bytes = b"\x01" * 32
    clock: Clock = field(default_factory=Clock)
    roles: dict[str, str] = field(default_factory=dict)  # node id -> role, of this network's other nodes
    own_role: str = "admin"
    shared_secret: str | None = None
    records: FakeRecords = field(init=False)
    local: FakeLocal = field(default_factory=FakeLocal)
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        self.records = FakeRecords(self.clock)
        self.node_id = node_id_of(self.seed)
        self._random = random.Random(self.seed)
        self.restart()

    def restart(self) -> None:
        """The same stores under new services."""
        self.identity = build_identity(
            records=self.records,
            local=self.local,
            node_id=self.node_id,
            network_id=NETWORK,
            seed=self.seed,
            issuer_role=lambda node: self.own_role if node == self.node_id else self.roles.get(node),
            new_id=lambda: sortable_id(self.clock.now_ms, self._random.getrandbits(80)),
            random_bytes=self._random.randbytes,
            now_ms=self.clock,
            shared_secret=self.shared_secret,
            passwords=quick_passwords(),
        )

    def close(self) -> None:
        self.identity.close()


def node_id_of(seed: bytes) -> str:
    return bytes(SigningKey(seed).verify_key).hex()
