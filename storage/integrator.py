"""The one write path: changes asked for here and commits from elsewhere, into log, documents and index.

Room: runs `protocol.integrate` inside one write transaction, then brings the
query index up to it. The daemon's writer is a thread and a queue around this
class; a simulation calls it directly. Nothing here waits for anything but the
disk, and clock and randomness are handed in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappush
from typing import Any

from protocol.ancestor import PastOf
from protocol.body import ERASURE, SALT_BYTES, body_hash
from protocol.building import CommitBuilder
from protocol.changes import DocumentChange, Edit, EditKind, Record
from protocol.clock import Hlc, HybridClock, due_ms, is_due, last_due
from protocol.commit import NO_PREVIOUS, Commit, Header, sign_commit
from protocol.document import Document
from protocol.errors import NotPermitted, TooLarge
from protocol.ids import Author, SpaceId, node_of
from protocol.integrate import Change, Integrated, Known, Outcome
from protocol.keys import KeyPair
from protocol.limits import BODIES_PER_COMMIT_MAX, DEPS_PER_COMMIT_MAX
from protocol.planning import plan_delete, plan_write
from protocol.reissue import Again, Lost, plan_again, plan_carried
from protocol.resolution import live_dots, plan_resolution
from storage.admission import (
    check_definition,
    check_references,
    raise_if_broken,
    raise_if_open,
    raise_if_refused,
)
from storage.ancestry import KnownOrigins, past_in
from storage.arrivals import Arrival, Rejudgement
from storage.catalog import MODEL, RIGHTS, Catalog, definition_ids
from storage.changes import AnyChange, Forked, Received, Said, SayAgain, Shared, Written
from storage.errors import (
    ConflictChanged,
    DocumentErased,
    DocumentExists,
    UnknownDocument,
    VersionMismatch,
)
from storage.feed_entry import FeedEntry, feed_entry, rejudged_entry
from storage.first_sync import FirstSyncs
from storage.heads import plain
from storage.index import Index
from storage.indexer import Indexer, Records
from storage.kinds import KindsOfModels
from storage.log import TIME_KEPT_EVERY_MS
from storage.names import Chain
from storage.reissue import DocumentName, Reissue, settle, unsaid
from storage.store import Batch, Store
from storage.uniqueness import Claims, Uniqueness
from storage.voided import Voided, settle_voided, voided

MUCH = 16  # commits; fewer are stored sooner than anybody would notice
_DEFINITIONS = (f"{MODEL}_", f"{RIGHTS}_")  # how the ids of the models of definitions begin
# What `CommitBuilder` calls it.
_COMMIT_FULL = frozenset({"bodies in a commit", "commit in bytes", "deps of a commit"})


@dataclass(slots=True)
class _Group:
    """Changes that are planned together, into one transaction."""

    batch: Batch
    now_ms: int
    salts: Iterator[bytes]  # one for each edit
    builders: dict[str, CommitBuilder] = field(default_factory=dict)  # by application
    done: list[tuple[str, Integrated, Arrival]] = field(default_factory=list)
    received: list[tuple[Integrated, Arrival]] = field(default_factory=list)
    latest: Hlc = 0  # timestamp of those that are due
    early: list[tuple[Hlc, Chain, int]] = field(default_factory=list)  # of those that are not
    said: list[tuple[Integrated, Arrival]] = field(default_factory=list)
    met: list[str] = field(default_factory=list)  # applications of spaces that came from peers
    caught_up: list[str] = field(default_factory=list)
    is_plain: bool = True  # every commit counts, and rests on others that do
    failure: Exception | None = None  # of storing a commit, whoever caught it
    claims: Claims = field(default_factory=Claims)
    records: Records = field(default_factory=dict)  # as the last edit of each left them
    pasts: dict[str, PastOf] = field(default_factory=dict)  # by application


class Integrator:
    """Owns every write to one store. Not thread-safe: it belongs to the one writer."""

    def __init__(self, store: Store, index: Index | None, catalog: Catalog, keys: KeyPair, clock: HybridClock,
                 random_bytes: Callable[[int], bytes], on_stored: Callable[[SpaceId, int], None],
                 on_step: Callable[[], None] = lambda: None) -> None:  # fmt: skip
        """`on_stored(space, seq)` is called after a commit of our own is durable and before anyone hears of it.

        It must not raise: the commit stands. `on_step` is called again and again while much is taken in from peers.
        """
        assert store.identity is not None
        self._store = store
        self._catalog = catalog
        self._keys = keys
        self._clock = clock
        self._random_bytes = random_bytes
        self._on_stored = on_stored
        self._on_step = on_step
        self._author = store.identity.author
        self._kinds = KindsOfModels()
        self._applications: dict[SpaceId, str] = {}  # those that are stored, by space
        self._unobserved: list[Hlc] = []  # timestamps of others, until we are told the time
        self._early: list[tuple[Hlc, Chain, int]] = []  # a heap
        # Of each author the last commit that our own chain has named, since we began: by space.
        self._named: dict[SpaceId, dict[Author, int]] = {}
        self._timed_ms = 0  # when the time of an arrival was last kept
        self._origins = KnownOrigins()
        self.indexer = Indexer(store, index, catalog, self._origins)
        self._uniqueness = Uniqueness(index, self.indexer)
        with store.read() as snapshot:
            log = snapshot.log
            for application in snapshot.applications():
                self._applications[store.space(application)] = application
            for author, head in snapshot.heads():
                if author == self._author:
                    clock.last = max(clock.last, head.hlc)
                else:
                    self._unobserved.append(head.hlc)
            early = ((log.header_fields(c, s).hlc, c, s) for c, s, at in log.early() if not at)
            self._early = sorted(early)
            is_joined = node_of(self._author) != store.members.genesis.founder
            self._first_syncs = FirstSyncs(snapshot, self._applications, is_joined=is_joined)

    # -- changes asked for here ----------------------------------------------------------------------------

    def write(
        self,
        changes: Sequence[AnyChange],
        now_ms: int,
        on_durable: Callable[[Written], None] = lambda written: None,
    ) -> Written:
        """Sign and store a group of changes: one commit a space (more where one would not do), then the index.

        Durable when it returns. A change that fails leaves no trace and its error in `results`; a `StorageError`
        of the disk itself is raised, and then nothing of the group was kept. Guards may be asked twice. Blocks.
        `on_durable` is called before the index follows, if that is `plain` and of our own: peers need not wait for it.
        It must not raise, and sees nothing but `plain` and `arrival`.
        """
        self._observe_others(now_ms)
        self._first_syncs.open()
        members_before = self._store.members
        written = Written([])
        with self._store.write() as batch:
            if now_ms >= self._timed_ms + TIME_KEPT_EVERY_MS:
                batch.log.mark_time(now_ms)
            group = _Group(batch, now_ms, self._salts(changes))
            due = self._due(now_ms)
            if due:
                batch.materialise(due, now_ms)
            received = [self._take_in(c, group) for c in changes if isinstance(c, Received | Forked)]
            outcomes = iter(received)
            for change in changes:
                try:
                    if isinstance(change, DocumentChange):
                        written.results.append(self._plan(change, group))
                    elif isinstance(change, Received | Forked):
                        written.results.append(next(outcomes))
                    elif isinstance(change, Said):
                        written.results.append(self._say(change, group))
                    elif isinstance(change, SayAgain):
                        written.results.append(self._say_again(group))
                    elif isinstance(change, Shared):
                        self._note_shared(change, group)
                        written.results.append(None)
                    else:
                        written.results.append(batch.local.run(change))
                except Exception as error:  # of a guard, of a plan: it belongs to this change alone
                    written.results.append(error)
            for application in list(group.builders):
                self._seal(application, group)
            if group.failure is not None:
                raise group.failure
        self._first_syncs.keep()
        self._timed_ms = max(self._timed_ms, now_ms - now_ms % TIME_KEPT_EVERY_MS)
        done = group.said + [(finished, arrival) for _, finished, arrival in group.done]
        for finished, _ in done:
            header = finished.commit.header
            self._on_stored(header.space, header.seq)
            named = {dep.author: dep.seq for dep in header.deps if not dep.in_system}
            self._named.setdefault(header.space, {}).update(named)
        for application in dict.fromkeys([*group.met, *(application for application, _, _ in group.done)]):
            self._meet(application)
        if due:
            self._early = sorted(early for early in self._early if early[1:] not in due)
        if group.received:
            self._clock.observe(group.latest, now_ms)
        for early in group.early:
            heappush(self._early, early)
        done = group.received + done
        for finished, arrival in done:
            written.entries += self._feed_entries(finished, arrival)
            written.arrival = max(written.arrival, arrival.number)
        for rejudgement in batch.rejudgements:
            written.entries += self._entries_of(rejudgement)
            written.arrival = max(written.arrival, rejudgement.number)
        if batch.rejudgements:
            written.entries.sort(key=lambda entry: (entry.arrival, entry.index))
        if group.is_plain and not (group.said or batch.rejudgements):
            written.plain = plain(done, self._applications)
            if group.done and written.plain:
                on_durable(written)
        self._after_commit(done, group.records, batch.rejudgements)
        for told in (told for rejudgement in batch.rejudgements for told in rejudgement.documents):
            group.records.pop((told.model, told.id), None)  # made before it was judged again
        for entry in written.entries:
            entry.record = group.records.get((entry.model, entry.id))
        written.conflicts = self.indexer.take_news()
        written.caught_up = group.caught_up
        written.has_new_members = self._store.members is not members_before
        return written

    def write_one(self, change: AnyChange, now_ms: int) -> Any:
        """The result of a change that goes alone. Raises what it failed with."""
        (result,) = self.write([change], now_ms).results
        if isinstance(result, Exception):
            raise result
        return result

    def _salts(self, changes: Sequence[AnyChange]) -> Iterator[bytes]:
        """A salt for each edit, drawn all at once: asking the system for each costs a microsecond more.

        Those that are planned a second time get theirs one by one.
        """
        count = sum(len(change.edits) for change in changes if isinstance(change, DocumentChange))
        drawn = self._random_bytes(SALT_BYTES * count)
        for n in range(0, len(drawn), SALT_BYTES):
            yield drawn[n : n + SALT_BYTES]
        while True:  # for what had to be planned again
            yield self._random_bytes(SALT_BYTES)

    def _observe_others(self, now_ms: int) -> None:
        for hlc in self._unobserved:
            self._clock.observe(hlc, now_ms)
        self._unobserved = []

    def _meet(self, application: str) -> None:
        """An application has been stored: remember it, and make its built-in models known to the index."""
        space = self._store.space(application)
        if space not in self._applications:
            self._applications[space] = application
            self.indexer.models_added(self._catalog.add_application(application))

    def _builder(self, application: str, group: _Group) -> CommitBuilder:
        builder = group.builders.get(application)
        if builder is None:
            space, batch, now_ms = self._store.space(application), group.batch, group.now_ms
            group.pasts[application] = past_in(batch, space, self._origins)
            deps = batch.deps(space)
            while len(deps) > DEPS_PER_COMMIT_MAX:
                fold = CommitBuilder(batch, space=space, author=self._author, hlc=self._clock.tick(now_ms),
                                     deps=deps[:DEPS_PER_COMMIT_MAX])  # fmt: skip
                batch.keep(fold.sign(self._keys))
                deps = batch.deps(space)
            hlc = self._clock.tick(now_ms)
            builder = CommitBuilder(batch, space=space, author=self._author, hlc=hlc, deps=deps,
                                    named=self._named.get(space, {}))  # fmt: skip
            group.builders[application] = builder
        return builder

    def _plan(self, change: DocumentChange, group: _Group) -> list[Any]:
        if len(change.edits) > BODIES_PER_COMMIT_MAX:
            raise TooLarge("edits in a change", size=len(change.edits), size_max=BODIES_PER_COMMIT_MAX)
        if change.is_atomic:
            return self._plan_fitting(change.edits, change, group)
        results: list[Any] = []
        for edit in change.edits:
            try:
                results += self._plan_fitting([edit], change, group)
            except Exception as error:  # it belongs to this edit alone
                results.append(error)
        return results

    def _plan_fitting(
        self, edits: Sequence[Edit], change: DocumentChange, group: _Group
    ) -> list[Record | None]:
        """Plan edits into the commit that is being made, or into another if they do not fit into it any more."""
        builder = self._builder(change.application, group)
        try:
            return self._plan_all(edits, change, builder, group)
        except TooLarge as error:
            if error.what not in _COMMIT_FULL or not len(builder):
                raise
        self._seal(change.application, group)
        return self._plan_all(edits, change, self._builder(change.application, group), group)

    def _seal(self, application: str, group: _Group) -> None:
        """Sign what has been planned for an application, and store it."""
        builder = group.builders.pop(application)
        try:
            if len(builder):
                group.batch.add_application(application)
                finished = builder.sign(self._keys)
                group.done.append((application, finished, group.batch.keep(finished)))
                group.is_plain &= finished.counts
        except Exception as error:
            group.failure = error  # half of a commit may be stored: no change of the group can stand
            raise

    def _plan_all(
        self, edits: Sequence[Edit], change: DocumentChange, builder: CommitBuilder, group: _Group
    ) -> list[Record | None]:
        """Plan edits that stand together: if one fails, none is left in the commit."""
        mark = builder.mark()
        group.claims.begin()
        try:
            records = []
            for change.reached, edit in enumerate(edits):
                records.append(self._plan_edit(edit, change, builder, group))
        except Exception:
            builder.rollback(mark)
            group.claims.undo()
            raise
        for edit, record in zip(edits, records, strict=True):
            group.records[edit.model.id, edit.id] = record
        return records

    def _plan_edit(
        self, edit: Edit, change: DocumentChange, builder: CommitBuilder, group: _Group
    ) -> Record | None:
        model, current = edit.model, builder.document(edit.model.id, edit.id)
        exists, past_of = current is not None and current.exists, group.pasts[change.application]
        if current is not None and current.is_erased and edit.kind not in (EditKind.UPDATE, EditKind.DELETE):
            if edit.kind is EditKind.ERASE:
                return None
            raise DocumentErased(f"{model.name}/{edit.id} was erased: its id cannot be used again")
        if edit.kind is EditKind.CREATE and exists:
            raise DocumentExists(f"{model.name}/{edit.id} exists")
        is_known = current is not None if edit.kind is EditKind.ERASE else exists
        if edit.kind in (EditKind.UPDATE, EditKind.DELETE, EditKind.ERASE) and not is_known:
            raise UnknownDocument(f"{model.name}/{edit.id} does not exist")
        if edit.if_match is not None and (current is None or current.version != edit.if_match):
            raise VersionMismatch(current=current.version if current and exists else "")
        before = None
        if current is not None and exists and (edit.guard is not None or edit.kind is not EditKind.DELETE):
            before = Record.of(model, current, past_of)
        if edit.guard is not None:
            edit.guard(before)
        if edit.kind is EditKind.ERASE:
            builder.add(change.user, model.id, edit.id, (), ERASURE, next(group.salts))
            return None
        if edit.kind is EditKind.DELETE:
            assert current is not None
            plan = plan_delete(current, self._author)
        else:
            check_definition(self._catalog, change.application, edit)
            raise_if_broken(edit, current if exists else None)
            kinds = self._kinds.of(model)
            if kinds.unique:
                self._uniqueness.check(
                    edit, current if exists else None, kinds.unique, group.claims, document=builder.document,
                    past_of=past_of, is_stored=self._store.space(change.application) in self._applications,
                )  # fmt: skip
            if kinds.references and change.checks_references:
                check_references(edit, before, kinds.references, partial(self._catalog.find, change.application),
                                 builder.document)  # fmt: skip
            if current is None and kinds.shared:
                current = Document(model.id, edit.id)
            if edit.ends is not None:
                if current is None or live_dots(current, edit.ends.field) != edit.ends.dots:
                    raise ConflictChanged(f"{edit.ends.field} of {model.name}/{edit.id}")
                plan = plan_resolution(current, edit.ends, edit.values, sets=kinds.sets, counters=kinds.counters,
                                       shared=kinds.shared, author=self._author, known_of=builder.known_of)  # fmt: skip
            else:
                plan = plan_write(current, edit.values, sets=kinds.sets, counters=kinds.counters,
                                  shared=kinds.shared, author=self._author, known_of=builder.known_of)  # fmt: skip
            if not plan.operations:
                return Record.of(model, current, past_of) if current is not None else None
        if edit.ends is None and current is not None and model.rules.is_manual:
            raise_if_open(self._store.space(change.application), edit, current, past_of)
        builder.add(change.user, model.id, edit.id, plan.seen, plan.operations, next(group.salts))
        document = builder.document(model.id, edit.id)
        assert document is not None
        if not document.exists:
            return None
        record = Record.of(model, document, past_of)
        raise_if_refused(edit, before, record)
        return record

    # -- commits from elsewhere ----------------------------------------------------------------------------

    def receive(self, commit: Commit, now_ms: int) -> tuple[Outcome, list[FeedEntry]]:
        """Integrate one verified commit of another author. Durable when it returns. Blocks."""
        written = self.write([Received([commit])], now_ms)
        return written.results[0][0], written.entries

    def _take_in(self, change: Received | Forked, group: _Group) -> list[Outcome]:
        """Integrate commits from a peer into the transaction. Whatever fails, fails the whole group."""
        batch = group.batch
        if isinstance(change, Forked):
            batch.keep_fork(change.run, change.seq)
            return []
        for application in change.applications:
            batch.add_application(application)
            group.met.append(application)
            self._first_syncs.begin(batch, self._store.space(application), group.now_ms, is_met=True)
        for told in change.quarantine:
            batch.quarantine(told)
        outcomes: list[Outcome] = []
        due_until, system = last_due(group.now_ms), self._store.system
        is_much = len(change.commits) >= MUCH
        for commit in change.commits:
            if is_much:
                self._on_step()
            header = commit.header
            outcome = batch.integrate(commit, is_early=header.hlc > due_until)
            if isinstance(outcome, Known):
                batch.fill(commit)
            if isinstance(outcome, Integrated):
                if header.space != system:
                    self._first_syncs.begin(batch, header.space, group.now_ms, is_met=False)
                arrival = batch.keep(outcome)
                group.received.append((outcome, arrival))
                if header.hlc > due_until:
                    group.early.append((header.hlc, arrival.chain, arrival.seq))
                elif header.hlc > group.latest:
                    group.latest = header.hlc
                if group.is_plain:
                    group.is_plain = outcome.counts and batch.rests_on_counting(header)
            outcomes.append(outcome)
        if change.local is not None:
            change.local(batch.local)
        return outcomes

    def _say(self, change: Said, group: _Group) -> Commit:
        """Sign a statement and store it. If `make` raises, nothing was said."""
        batch, system = group.batch, self._store.system
        head = batch.head(system, self._author)
        header = Header(system, self._author, head.seq + 1 if head else 1, head.hash if head else NO_PREVIOUS,
                        self._clock.tick(group.now_ms), batch.deps(system)[:DEPS_PER_COMMIT_MAX], ())  # fmt: skip
        assert batch.members is not None
        body = change.make(batch.members, header)
        for application in list(group.builders):  # what is planned already was planned without it
            self._seal(application, group)
        commit = sign_commit(self._keys, replace(header, body_hashes=(body_hash(body),)), [body])
        outcome = batch.integrate(commit)
        assert isinstance(outcome, Integrated), outcome
        group.said.append((outcome, batch.keep(outcome)))
        return commit

    # -- what was written on branches of our own chain -----------------------------------------------------

    def has_lost_anything(self) -> bool:
        """Whether `SayAgain` would say something. From any thread."""
        with self._store.read() as snapshot:
            if any(space in self._applications for (space, _), _ in unsaid(snapshot)):
                return True  # of statements nothing is said again
            return next(voided(snapshot.local), None) is not None

    def _say_again(self, group: _Group) -> int:
        documents = 0
        for key, state in unsaid(group.batch):
            application = self._applications.get(key[0])
            if application is None or not self._builder(application, group).may_write:
                continue  # put out, or a reader: perhaps later
            for name, lost, salts in Reissue(group.batch, self._keys).of(key):
                documents += self._add_again(application, name, lost, salts, group)
            settle(group.batch.local, key, state)
        for told in list(voided(group.batch.local)):
            application = self._applications.get(told.space)
            if application is not None and self._builder(application, group).may_write:
                documents += self._add_voided(application, told, group)
                settle_voided(group.batch.local, told)
        return documents

    def _add_voided(self, application: str, told: Voided, group: _Group) -> bool:
        digest = group.batch.header_hash(told.space, Author(told.at.author), told.at.seq)
        salts = Reissue(group.batch, self._keys).salts(told.space, told.name, digest or b"")
        if salts is None or not told.is_void(group.batch):
            return False

        def plan(builder: CommitBuilder) -> Iterator[Again]:
            yield from told.again
            now = builder.document(*told.name) or Document(*told.name)
            said = [plan_carried(now, each, self._author, builder.known_of) for each in told.carried]
            if any(said):
                yield Again(told.user, (), [operation for operations in said for operation in operations])

        return self._add_bodies(application, told.name, plan, salts, group)

    def _add_again(
        self, application: str, name: DocumentName, lost: Lost, salts: Iterator[bytes], group: _Group
    ) -> bool:
        def plan(builder: CommitBuilder) -> Iterable[Again]:
            return plan_again(builder.document(*name), lost, self._author, builder.known_of)

        return self._add_bodies(application, name, plan, salts, group)

    def _add_bodies(
        self,
        application: str,
        name: DocumentName,
        plan: Callable[[CommitBuilder], Iterable[Again]],
        salts: Iterator[bytes],
        group: _Group,
    ) -> bool:
        """Add the bodies planned for one document, to the next commit if they do not fit into this one any more."""
        for _ in range(2):
            builder = self._builder(application, group)
            mark = builder.mark()
            try:
                for again in plan(builder):
                    seen = tuple(dot for dot in again.seen if builder.is_past(dot))
                    builder.add(again.user, *name, seen, again.operations, next(salts))
                return len(builder) > mark
            except NotPermitted:  # of an administrator who is none any more
                builder.rollback(mark)
                return False
            except TooLarge as error:
                builder.rollback(mark)
                if error.what not in _COMMIT_FULL or not len(builder):
                    raise
            self._seal(application, group)
        return False

    # -- what was there before this node -------------------------------------------------------------------

    def unshared(self, applications: Iterable[str]) -> list[str]:
        """Those of these applications for which `Shared` would say something new. From any thread."""
        return [a for a in applications if self._first_syncs.is_unshared(self._store.space(a))]

    def _note_shared(self, change: Shared, group: _Group) -> None:
        for application in change.applications:
            if self._first_syncs.end(group.batch, self._store.space(application), group.now_ms):
                group.caught_up.append(application)

    # -- commits that came too early -----------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """When a commit that came too early is due: write anything then. From any thread."""
        early = self._early
        return due_ms(early[0][0]) if early else None

    def _due(self, now_ms: int) -> set[tuple[Chain, int]]:
        if not self._early or not is_due(self._early[0][0], now_ms):
            return set()
        return {(chain, seq) for hlc, chain, seq in self._early if is_due(hlc, now_ms)}

    # -- after a commit ------------------------------------------------------------------------------------

    def _feed_entries(self, done: Integrated, arrival: Arrival) -> list[FeedEntry]:
        header = done.commit.header
        application = self._applications.get(header.space)
        if application is None:
            return []
        is_old = self._first_syncs.brought(header.space, arrival.number, header.hlc)
        return [feed_entry(entry, arrival.number, application, header.author, header.hlc, is_old=is_old)
                for entry in done.entries if entry.change is not Change.NONE]  # fmt: skip

    def _entries_of(self, rejudgement: Rejudgement) -> list[FeedEntry]:
        return [
            entry
            for index, told in enumerate(rejudgement.documents)
            if (application := self._applications.get(told.space)) is not None
            and (entry := rejudged_entry(
                told, rejudgement.number, index, application,
                is_old=self._first_syncs.brought(told.space, rejudgement.number, told.hlc),
            )) is not None
        ]  # fmt: skip

    def _after_commit(
        self, done: list[tuple[Integrated, Arrival]], records: Records, rejudgements: Sequence[Rejudgement]
    ) -> None:
        """Bring catalog and index up to what was just stored. Never raises: the write stands."""
        rejudged = {told[:3]: None for each in rejudgements for told in each.documents}
        written = ((each.commit.header.space, *name) for each, _ in done for name in each.documents)
        defined = {
            (application, id): None
            for space, model_id, id in (*written, *rejudged)
            if model_id.startswith(_DEFINITIONS)
            and (application := self._applications.get(space)) is not None
            and model_id in definition_ids(application)
        }
        others: dict[tuple[SpaceId, str, str], Document | None] = {}
        if rejudged or defined:
            with self._store.read() as snapshot:
                others = {key: snapshot.documents.get(*key) for key in rejudged}
                for application, id in defined:
                    self.indexer.model_changed(*self._catalog.update(application, id, snapshot))
        numbers = [arrival.number for _, arrival in done] + [each.number for each in rejudgements]
        if numbers:
            on_step = self._on_step if len(done) >= MUCH else None
            self.indexer.follow(done, records, others, min(numbers), max(numbers), on_step)
