"""The store: log, documents and local records in one transaction, whatever keeps the bytes.

Room: joins the typed tables over a `KeyValueStore` and holds what is true of the
store as a whole: its id, its epoch, its network. `Snapshot` is what integration
reads (`protocol.integrate.View`). Knows neither LMDB nor threads.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from protocol.commit import DEP_HASH_BYTES, Commit, Dep, Header
from protocol.document import Document
from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import SYSTEM_SPACE_NAME, Author, NetworkId, SpaceId, application_space_name, space_id
from protocol.integrate import Head, Integrated, Outcome, integrate
from protocol.membership import Members, Role, decode_genesis
from storage.documents import DocumentReader, DocumentWriter
from storage.errors import NewerFormat, StoreDamaged
from storage.kv import KeyValueStore, ReadTransaction, Table, WriteTransaction
from storage.local import LocalReader, LocalWriter
from storage.log import Arrival, LogReader, LogWriter
from storage.names import Names

FORMAT = 1  # of the layouts in `kv`; a release reads all formats up to its own


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store is: `store_id` and `epoch` are drawn when it is made; a restored or cloned one draws anew."""

    store_id: bytes
    epoch: str
    network_id: NetworkId
    genesis: bytes
    author: Author


class Snapshot:
    """One consistent state of the store. Valid inside the `with` block that gave it."""

    def __init__(self, transaction: ReadTransaction, names: Names, members: Members | None) -> None:
        self.transaction = transaction
        self.names = names
        self.log = LogReader(transaction, names)
        self.documents = DocumentReader(transaction, names)
        self.local = LocalReader(transaction)
        self._members = members

    # -- protocol.integrate.View

    def head(self, space: SpaceId, author: Author) -> Head | None:
        return self.log.head(space, author)

    def header_hash(self, space: SpaceId, author: Author, seq: int) -> bytes | None:
        return self.log.header_hash(space, author, seq)

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        return self.log.knows(space, author, seq, other)

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterable[tuple[Author, int]]:
        return self.log.known_by(space, author, seq)

    def role_of(self, node: bytes) -> Role | None:
        return self._members.role_of(node) if self._members else None

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        return self.documents.get(space, model, id)

    # -- of the store as a whole

    def meta(self, name: str) -> Any:
        value = self.transaction.get(Table.META, name.encode())
        return None if value is None else decode(value)

    def heads(self) -> Iterator[tuple[Author, Head]]:
        """The newest commit of every chain, with its author."""
        for number, author in self.names.authors():
            head = self.log.head(self.names.space_of_chain(number), author)
            if head is not None:
                yield author, head

    def frontier(self, space: SpaceId) -> tuple[tuple[Author, int, bytes], ...]:
        """Heads of the space's commit graph: author, seq and hash prefix of what no integrated commit builds on."""
        return tuple(
            (Author(a), seq, prefix) for a, seq, prefix in self.meta("frontier " + space.hex()) or ()
        )

    def applications(self) -> list[str]:
        """Names of the applications that have a space here, in the order of their first use."""
        return list(self.meta("applications") or ())


class Batch(Snapshot):
    """The one write transaction."""

    transaction: WriteTransaction

    def __init__(
        self,
        transaction: WriteTransaction,
        names: Names,
        members: Members | None,
        author: Author | None,
        system: SpaceId | None,
    ) -> None:
        """`author` is who this store writes as and `system` the space of its statements; None before it has begun."""
        super().__init__(transaction, names, members)
        self._author = author
        self._system = system
        self._last_asked: tuple[str, str, SpaceId] | None = None
        self._last_found: Document | None = None
        self.log: LogWriter = LogWriter(transaction, names)
        self.documents: DocumentWriter = DocumentWriter(transaction, names)
        self.local: LocalWriter = LocalWriter(transaction)

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        """As `View` says. Planning asks twice in a row for each document."""
        wanted = model, id, space
        if self._last_asked != wanted:
            self._last_found = self.documents.get(space, model, id)
            self._last_asked = wanted
        return self._last_found

    def put_meta(self, name: str, value: Any) -> None:
        self.transaction.put(Table.META, name.encode(), encode(value))

    def integrate(self, commit: Commit) -> Outcome:
        """The verdict on a verified commit, and what it changes; `keep` what is integrated."""
        assert self._system is not None
        return integrate(commit, self, system=self._system)

    def keep(self, done: Integrated) -> Arrival:
        """Store an integrated commit: log, documents, history, frontier and order of arrival."""
        self._last_asked = None
        arrival = self.log.append(done)
        self.documents.store(done, arrival)
        header = done.commit.header
        built_on = {(d.author, d.seq) for d in header.deps if not d.in_system} | {
            (header.author, header.seq - 1)
        }
        heads = [h for h in self.frontier(header.space) if (h[0], h[1]) not in built_on]
        heads.append((header.author, header.seq, done.commit.hash[:DEP_HASH_BYTES]))
        self.put_meta("frontier " + header.space.hex(), heads)
        if header.author == self._author and any(dep.in_system for dep in header.deps):
            self._keep_named(header)
        return arrival

    def _keep_named(self, header: Header) -> None:
        """Remember which heads of `system` our chain names by now: what it reaches already is not named again."""
        assert self._system is not None
        named = self._named(header.space) | {(dep.author, dep.seq) for dep in header.deps if dep.in_system}
        heads = [[author, seq] for author, seq, _ in self.frontier(self._system) if (author, seq) in named]
        self.put_meta("named " + header.space.hex(), [header.author, heads])

    def _named(self, space: SpaceId) -> set[tuple[bytes, int]]:
        author, heads = self.meta("named " + space.hex()) or (None, ())
        return {(named, seq) for named, seq in heads} if author == self._author else set()

    def deps(self, space: SpaceId) -> tuple[Dep, ...]:
        """What our next commit builds on besides our own chain, in the order that the header wants."""
        heads = [Dep(False, a, seq, prefix) for a, seq, prefix in self.frontier(space) if a != self._author]
        if self._system is not None and space != self._system:
            named = self._named(space)
            heads += [
                Dep(True, a, s, prefix) for a, s, prefix in self.frontier(self._system) if (a, s) not in named
            ]
        return tuple(sorted(heads))

    def add_application(self, application: str) -> None:
        known = self.applications()
        if application not in known:
            self.put_meta("applications", [*known, application])


class Store:
    """The record of one node: LMDB in a daemon, memory in tests and simulations."""

    def __init__(self, keys: KeyValueStore) -> None:
        """Raises `NewerFormat`, or `StoreDamaged` if the record is there but not its identity."""
        self._keys = keys
        self.identity: Identity | None = None
        self._members: Members | None = None
        self._system: SpaceId | None = None
        with keys.read() as transaction:
            format = transaction.get(Table.META, b"format")
            if format is not None and (found := decode(format)) > FORMAT:
                raise NewerFormat(found=found, readable=FORMAT)
            self.names = Names(transaction)
            if format is not None:
                self._load(Snapshot(transaction, self.names, None))
            elif transaction.count(Table.HEADERS):
                raise StoreDamaged("the record has commits but no identity: run `civicnode doctor`")

    def _load(self, snapshot: Snapshot) -> None:
        try:
            store_id, epoch, network_id, genesis, author = snapshot.meta("identity")
            self._adopt(Identity(store_id, epoch, NetworkId(network_id), genesis, Author(author)))
        except (TypeError, ValueError, ProtocolError) as error:
            raise StoreDamaged("the record's identity cannot be read: run `civicnode doctor`") from error

    def _adopt(self, identity: Identity) -> None:
        self._members = Members.of_genesis(decode_genesis(identity.genesis))
        self.identity = identity
        self._system = space_id(identity.network_id, SYSTEM_SPACE_NAME)

    @property
    def is_new(self) -> bool:
        return self.identity is None

    @property
    def members(self) -> Members:
        assert self._members is not None, "a store without an identity has no members"
        return self._members

    def space(self, application: str) -> SpaceId:
        """The space of an application in this store's network."""
        assert self.identity is not None
        return space_id(self.identity.network_id, application_space_name(application))

    @property
    def system(self) -> SpaceId:
        assert self._system is not None
        return self._system

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        with self._keys.read() as transaction:
            yield Snapshot(transaction, self.names, self._members)

    @contextmanager
    def write(self) -> Iterator[Batch]:
        """Durable once the block ends; if it raises, nothing is kept. Blocks; one thread only."""
        try:
            with self._keys.write() as transaction:
                author = self.identity.author if self.identity else None
                yield Batch(transaction, self.names, self._members, author, self._system)
        except BaseException:
            self.names.settle(kept=False)
            raise
        self.names.settle(kept=True)

    def begin(self, identity: Identity, *, founding: Commit | None) -> None:
        """Write the identity of a store: with its founding commit when new, alone when it starts a new life."""
        with self.write() as batch:
            batch.put_meta("format", FORMAT)
            batch.put_meta("identity", [identity.store_id, identity.epoch, identity.network_id, identity.genesis,
                                        identity.author])  # fmt: skip
            if founding is not None:
                outcome = integrate(founding, batch, system=founding.header.space)
                assert isinstance(outcome, Integrated), outcome
                batch.keep(outcome)
        self._adopt(identity)

    def counts(self) -> dict[str, int]:
        """`documents` (deleted ones included) and `commits` in the record."""
        with self._keys.read() as transaction:
            return {
                "documents": transaction.count(Table.DOCUMENTS),
                "commits": transaction.count(Table.HEADERS),
            }

    def statistics(self) -> dict[str, int]:
        """`commits`, `flushes` and `used_bytes` of the key-value store."""
        return self._keys.statistics()

    @property
    def keys(self) -> KeyValueStore:
        return self._keys

    def close(self) -> None:
        self._keys.close()
