"""The store: log, documents and local records in one transaction, whatever keeps the bytes.

Room: joins the typed tables over a `KeyValueStore` and holds what is true of the
store as a whole: its id, its epoch, its network. `Snapshot` is what integration
reads (`protocol.integrate.View`). Knows neither LMDB nor threads.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from protocol.body import decode_body, document_named, name_in
from protocol.clock import hlc_of_ms, ms_of_hlc
from protocol.commit import DEP_HASH_BYTES, Commit, Dep, Header
from protocol.document import Document
from protocol.encoding import decode, encode
from protocol.errors import LocalMisuse, ProtocolError
from protocol.ids import (
    SYSTEM_SPACE_NAME,
    Author,
    NetworkId,
    SpaceId,
    application_space_name,
    node_of,
    space_id,
)
from protocol.integrate import Head, Integrated, Outcome, integrate
from protocol.membership import (
    Genesis,
    Judgement,
    Link,
    Members,
    SystemCommit,
    decode_genesis,
    read_system_commit,
)
from protocol.window import Run, decode_run
from storage.arrivals import Arrival, Rejudgement
from storage.documents import DocumentReader, DocumentWriter, LiveDocuments
from storage.ends import Ends
from storage.erasures import note_due
from storage.errors import NewerFormat, StoreDamaged
from storage.judging import (
    Basis,
    DocumentKey,
    Rebuilder,
    blind_from,
    compare_bases,
    counting_heads,
    documents_of,
    judge,
)
from storage.kv import KeyValueStore, ReadTransaction, Table, WriteTransaction
from storage.local import LocalReader, LocalWriter
from storage.log import LogReader, LogWriter
from storage.names import Chain, Names
from storage.pasts import see_again
from storage.quarantine import Quarantined, forget, note
from storage.reissue import drop_from_branches
from storage.voided import drop_voided

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

    def __init__(self, transaction: ReadTransaction, names: Names, basis: Basis | None) -> None:
        """`basis` is what verdicts depend on; None before the store has begun."""
        self.transaction = transaction
        self.names = names
        self.log = LogReader(transaction, names)
        self.documents = DocumentReader(transaction, names)
        self.local = LocalReader(transaction)
        self.basis = basis

    # -- protocol.integrate.View

    def head(self, space: SpaceId, author: Author) -> Head | None:
        return self.log.head(space, author)

    def header_hash(self, space: SpaceId, author: Author, seq: int) -> bytes | None:
        return self.log.header_hash(space, author, seq)

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        return self.log.knows(space, author, seq, other)

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterable[tuple[Author, int]]:
        return self.log.known_by(space, author, seq)

    def blind_from(self, space: SpaceId, author: Author) -> int | None:
        return blind_from(self, self.basis, (space, author)) if self.basis and self.basis.forks else None

    def forked_at(self, space: SpaceId, author: Author) -> int | None:
        return self.basis.forks.get((space, author)) if self.basis else None

    @property
    def members(self) -> Members | None:
        return self.basis.members if self.basis else None

    def system_past(self, space: SpaceId, author: Author, seq: int) -> frozenset[Link]:
        chain = self.names.chain(space, author)
        return frozenset() if chain is None else self.log.system_past(chain, seq)

    def system_heads(self, links: frozenset[Link]) -> frozenset[Link]:
        assert self.basis is not None
        members = self.basis.members
        return frozenset(members.at(link for link in links if members.knows(link)).heads)

    def judge(
        self, space: SpaceId, author: Author, seq: int, digest: bytes, past: frozenset[Link]
    ) -> Judgement:
        assert self.basis is not None
        return judge(self, self.basis, (space, author), seq, digest, past)

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        return self.documents.get(space, model, id)

    def written_by(self, space: SpaceId, model: str, id: str) -> Iterable[tuple[Author, int]]:
        return ((self.names.author(at.chain), at.seq) for at in self.documents.history(space, model, id))

    def holds_branch(self, run: Run) -> bool:
        """Whether all of a run of a forked chain is here, in the log or beside it."""
        key = run.commits[-1].header.space, run.commits[-1].header.author
        held = {commit.hash for branch in self.log.branches(*key) for commit in branch.commits}
        return all(
            commit.hash in held or self.header_hash(*key, commit.header.seq) == commit.hash
            for commit in run.commits
        )

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
        basis: Basis | None,
        author: Author | None,
        system: SpaceId | None,
        ends: Ends,
        live: LiveDocuments,
    ) -> None:
        """`author` is who this store writes as and `system` the space of its statements; None before it has begun."""
        super().__init__(transaction, names, basis)
        self.rejudgements: list[Rejudgement] = []
        self._author = author
        self._system = system
        self._ends = ends
        self._last_asked: tuple[str, str, SpaceId] | None = None
        self._last_found: Document | None = None
        self._frontiers: dict[SpaceId, tuple[tuple[Author, int, bytes], ...]] = {}  # written by `finish`
        self._judged: dict[
            tuple[SpaceId, Author, frozenset[Link]], Judgement
        ] = {}  # of chains that nothing cuts
        self.log: LogWriter = LogWriter(transaction, names, ends)
        self.documents: DocumentWriter = DocumentWriter(transaction, names, live)
        self.local: LocalWriter = LocalWriter(transaction)

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        """As `View` says. Planning asks twice in a row for each document."""
        wanted = model, id, space
        if self._last_asked != wanted:
            self._last_found = self.documents.get(space, model, id)
            self._last_asked = wanted
        return self._last_found

    def frontier(self, space: SpaceId) -> tuple[tuple[Author, int, bytes], ...]:
        known = self._frontiers.get(space)
        return known if known is not None else super().frontier(space)

    def judge(
        self, space: SpaceId, author: Author, seq: int, digest: bytes, past: frozenset[Link]
    ) -> Judgement:
        key = space, author, past
        known = self._judged.get(key)
        if known is None:
            known = super().judge(space, author, seq, digest, past)
            assert self.basis is not None
            if (space, author) not in self.basis.forks and not self.basis.members.cuts_of(node_of(author)):
                self._judged[key] = known  # it depends on nothing else
        return known

    def finish(self) -> None:
        """Write what was put off: the transaction is about to end."""
        self.log.finish()
        for space, heads in self._frontiers.items():
            self.put_meta("frontier " + space.hex(), heads)

    def put_meta(self, name: str, value: Any) -> None:
        self.transaction.put(Table.META, name.encode(), encode(value))

    @property
    def author(self) -> Author | None:
        """Who this store writes as."""
        return self._author

    @property
    def system(self) -> SpaceId:
        assert self._system is not None
        return self._system

    def integrate(self, commit: Commit, *, is_early: bool = False) -> Outcome:
        """The verdict on a verified commit, and what it changes; `keep` what is integrated."""
        return integrate(commit, self, system=self.system, is_early=is_early)

    def keep(self, done: Integrated) -> Arrival:
        """Store an integrated commit: log, documents, history, frontier and order of arrival.

        If it is of `system`, what it says counts from now on, here and for what is here already.
        """
        self._last_asked = None
        arrival = self.log.append(done)
        self.documents.store(done, arrival)
        header = done.commit.header
        for (model, id), document in done.documents.items():
            if document.is_erased:
                self.drop_bodies((header.space, model, id))
        while self.log.late:  # it may have waited here with a commit whose causes were missing
            note_due(self.local, *self.log.late.pop())
        if done.counts:  # of what does not count nothing needs to be named
            heads = [head for head in self.frontier(header.space) if not self._is_past(head, done)]
            heads.append((header.author, header.seq, done.commit.hash[:DEP_HASH_BYTES]))
            self._put_frontier(header.space, heads)
        if header.author == self._author and any(dep.in_system for dep in header.deps):
            self._keep_named(header)
        if done.members is not None:
            self._learn(done.members, header.author, header.hlc)
        return arrival

    def rests_on_counting(self, header: Header) -> bool:
        """Whether all that a commit builds on in its space is known to count. False where it must be looked up."""
        if self.forked_at(header.space, header.author) is not None:
            return False
        for dep in header.deps:
            if not dep.in_system:
                chain = self.names.chain(header.space, dep.author)
                known = None if chain is None else self._ends.commit(chain, dep.seq)
                if known is None or not known.counts or known.hash[:DEP_HASH_BYTES] != dep.hash_prefix:
                    return False
        return True

    def _is_past(self, head: tuple[Author, int, bytes], done: Integrated) -> bool:
        """Whether a commit that was just stored has another in its past."""
        author, seq, _ = head
        header = done.commit.header
        if author == header.author:
            return seq < header.seq
        known = done.knowledge.get(author)
        if known is None:
            known = self.log.knows(header.space, header.author, header.seq, author)
        return seq <= known

    def drop_bodies(self, key: DocumentKey) -> None:
        """A document is erased: of what was ever written of it only erasures are kept, and stubs.

        What else this node holds of it is to be dropped by who finds it in `erasures.due`.
        """
        name = None
        for at in list(self.documents.history(*key)):
            data = self.log.body(at.chain, at.seq, at.index)
            if data is not None and _is_erasure(data, self.names.author(at.chain)):
                name = name_in(data)
            else:
                self.log.drop(at.chain, at.seq, at.index, at.arrival)
        assert name is not None, "what erases a document is among its bodies"
        self.log.forget_rejudged(*key)
        self.log.drop_from_forks(key[0], name)
        drop_from_branches(self.local, key[0], name)
        drop_voided(self.local, *key)
        forget(self.local, *key)
        note_due(self.local, *key)

    def fill(self, commit: Commit) -> None:
        """A commit that is here has come again: bodies that are missing here are put where they belong."""
        space, author = commit.header.space, commit.header.author
        chain = self.names.chain(space, author)
        filled = [] if chain is None else self.log.fill(chain, commit)
        named = [document_named(name_in(commit.bodies[index] or b"")) for index in filled]
        found = {(space, *document): author for document in named if document is not None}
        if found:
            self._rebuild(found, commit.header.hlc)

    def fill_again(self, filled: Iterable[tuple[Chain, int, int]], read: LogReader) -> None:
        """As `fill`, of what another record once filled in: for the doctor's replay."""
        for chain, seq in sorted({(chain, seq) for chain, seq, _ in filled}):
            commit = read.commit(chain, seq)
            if commit is not None:
                self.fill(commit)

    def quarantine(self, told: Quarantined) -> None:
        """Have nothing merged in a document any more, on this node."""
        self._last_asked = None
        stored = self.documents.get(told.space, told.model, told.id)
        document = stored.copy() if stored is not None else Document(told.model, told.id)
        document.quarantine()
        self.documents.put(told.space, document)
        note(self.local, told)

    # -- when more becomes known

    def _learn(self, members: Members, author: Author, hlc: int) -> None:
        assert self.basis is not None
        self._judged.clear()
        self._ends.clear()  # what counts is about to be found out again
        before, self.basis = self.basis, Basis(self._with_branches(members), self.basis.forks)
        found = self._judge_again(before)
        if found:
            self._rebuild(dict.fromkeys(found, author), hlc)

    def _judge_again(self, before: Basis) -> Iterable[DocumentKey]:
        """The documents that may change with the basis; what commits have seen, and heads, are brought up to it."""
        assert self.basis is not None
        seen_again = see_again(self, before, self.basis)
        found = compare_bases(self, before, self.basis)
        for space, places in seen_again.items():
            found.spaces[space] = None
            for chain, seq in places if space != self.system else ():
                found.documents.update(dict.fromkeys(documents_of(self, chain, seq)))
        for space in found.spaces:
            heads = counting_heads(self, space, self.basis)
            pairs = [(a, s, self.header_hash(space, a, s) or b"") for a, s in heads]
            self._put_frontier(space, [(a, s, digest[:DEP_HASH_BYTES]) for a, s, digest in pairs])
        return found.documents

    def _put_frontier(self, space: SpaceId, heads: Sequence[tuple[Author, int, bytes]]) -> None:
        self._frontiers[space] = tuple(heads)

    def keep_fork(self, run: Run, seq: int) -> None:
        """An author has signed another commit of this seq than is here; `run` has it. Nothing above counts now.

        Of a chain of `system` more may come: what its branches say is kept. And of one whose causes are missing, so
        that none of its branches is in the log, two runs are the proof.
        """
        assert self.basis is not None
        header = run.commits[0].header
        key = header.space, header.author
        known = self.basis.forks.get(key)
        if known is not None and seq >= known:
            is_in_log = self.header_hash(*key, known) is not None
            if (header.space != self.system and is_in_log) or self.holds_branch(run):
                return
            seq = known
        self.names.give_chain(self.transaction, *key)
        self._judged.clear()
        self._ends.clear()  # what counts is about to be found out again
        before, self.basis = self.basis, Basis(self.basis.members, {**self.basis.forks, key: seq})
        self.log.put_fork(*key, seq, run.encode())
        self.basis = Basis(self._with_branches(self.basis.members), self.basis.forks)
        found = self._judge_again(before)
        self._rebuild(dict.fromkeys(found, header.author), run.commits[-1].header.hlc)

    def _with_branches(self, members: Members) -> Members:
        """What one knows who has seen all branches of chains of `system`, as far as their causes are here."""
        assert self.basis is not None
        authors = sorted(author for space, author in self.basis.forks if space == self.system)
        runs = [run for author in authors for run in self.log.branches(self.system, author)]
        return members.with_placed(_statements_of(runs, members.genesis))

    def materialise(self, due: Iterable[tuple[Chain, int]], at_ms: int) -> None:
        """Commits that came too early are due: apply their bodies."""
        found: dict[DocumentKey, Author] = {}
        for chain, seq in sorted(due):  # in one order, whoever asks: the doctor replays it
            self.log.settle_early(chain, seq)
            found.update(dict.fromkeys(documents_of(self, chain, seq), self.names.author(chain)))
        self._rebuild(found, hlc_of_ms(at_ms))

    def _rebuild(self, found: Mapping[DocumentKey, Author], hlc: int) -> None:
        """Make documents anew; with each goes who gave the reason."""
        assert self.basis is not None
        self._last_asked = None
        rebuilder = Rebuilder(self, self.basis)
        all_told = (rebuilder.rebuild(key, author, hlc) for key, author in found.items())
        told = [rejudged for rejudged in all_told if rejudged is not None]
        self.rejudgements.append(self.log.append_rejudgement(told, ms_of_hlc(hlc)))

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
        self._basis: Basis | None = None
        self._damage: Exception | None = None  # why the statements of the network could not be read
        self._system: SpaceId | None = None
        self._ends = Ends()
        self._live = LiveDocuments()
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
        genesis = decode_genesis(identity.genesis)
        self.identity = identity
        self._system = space_id(identity.network_id, SYSTEM_SPACE_NAME)
        self._basis, self._damage = Basis(Members.of_genesis(genesis), {}), None
        try:
            with self._keys.read() as transaction:
                self._basis = self._read_basis(LogReader(transaction, self.names), genesis)
        except (StoreDamaged, LocalMisuse) as error:  # documents can be read all the same
            self._damage = error

    def _read_basis(self, log: LogReader, genesis: Genesis) -> Basis:
        chains = [chain for chain, _ in self.names.chains_of(self.system)]
        said = [read_system_commit(commit, genesis) for chain in chains for commit in log.commits(chain)]
        runs = [decode_run(fork.run) for (space, _), fork in log.all_forks() if space == self.system]
        members = Members.of_genesis(genesis).with_placed([*said, *_statements_of(runs, genesis)])
        members = members.with_commits(said)  # their causes are here, unless something is damaged
        return Basis(members, {key: fork.seq for key, fork in log.forks().items()})

    @property
    def is_new(self) -> bool:
        return self.identity is None

    @property
    def members(self) -> Members:
        """Those of the network, by all statements that are here. From any thread."""
        return self.basis.members

    @property
    def basis(self) -> Basis:
        """What verdicts on commits depend on. From any thread."""
        assert self._basis is not None, "a store without an identity has no members"
        return self._basis

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
            yield Snapshot(transaction, self.names, self._basis)

    @contextmanager
    def write(self) -> Iterator[Batch]:
        """Durable once the block ends; if it raises, nothing is kept. Blocks; one thread only.

        Raises `StoreDamaged` if the statements of the network could not be read: verdicts would be guesses.
        """
        if self._damage is not None:
            message = "the statements of the network cannot be read: run `civicnode doctor`"
            raise StoreDamaged(message) from self._damage
        try:
            with self._keys.write() as transaction:
                author = self.identity.author if self.identity else None
                batch = Batch(
                    transaction, self.names, self._basis, author, self._system, self._ends, self._live
                )
                yield batch
                batch.finish()
        except BaseException:
            self.names.settle(kept=False)
            self._ends.clear()
            self._live.clear()
            raise
        self.names.settle(kept=True)
        self._basis = batch.basis

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


def _is_erasure(data: bytes, author: bytes) -> bool:
    try:
        return decode_body(data, author).is_erasure
    except ProtocolError:
        return False


def _statements_of(runs: Iterable[Run], genesis: Genesis) -> list[SystemCommit]:
    return [read_system_commit(commit, genesis) for run in runs for commit in run.commits]
