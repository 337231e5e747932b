"""Erasing, and the proof of it: that no file of this node holds what was erased is said only once it is so.

Room: everything between the commit that erases a document and this node's confirmation. The commit takes the document
out of the record; what this node holds of it elsewhere goes here: records of services (`listen`), the log of the
query index, deleted bytes in the record's file. Only then does the node say so, in a document that replicates
(`$erased`). All of it begins again where a process that was killed left it: `storage.erasures` lists what is due.

Compacting copies the whole record, while reads and writes go on, so it is collected: at most once a minute, and no
oftener than keeps it below a twentieth of the time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from node.services.account_models import ACCOUNT
from node.services.privacy_models import ERASED, ERASURE
from node.services.records import Records
from node.writer import Writer, WriterOverloaded
from protocol.body import document_named, name_in
from protocol.changes import Edit, EditKind
from protocol.document import Document
from protocol.errors import NotPermitted
from protocol.ids import NodeId, SpaceId, builtin_model_id, node_of
from protocol.integrate import Change
from protocol.membership import Role
from protocol.schema import Model
from storage.compacting import Compaction
from storage.erasures import Due, due, settle
from storage.errors import StorageError
from storage.feed_entry import FeedEntry
from storage.index import Index
from storage.indexer import Indexer
from storage.local import LocalWriter
from storage.runs import WaitingRoom
from storage.store import Snapshot, Store

COLLECT_S = 0.2  # erasures that come together share a copy of the record
INTERVAL_S = 60.0
LOAD_MAX = 20  # times as long as the last copy took
RETRY_S = 1.0
FAILED_RETRY_S = 30.0  # a full disk is not helped by trying at once
ITEMS_MAX = 5_000  # of one erasure: its list fits a body, its erasures a commit

Item = tuple[str, str]  # model id, document id
# Drops what a service of this node keeps of a document: application, model id, document id.
OnErased = Callable[[str, str, str], Awaitable[object]]
# Called once after all documents that go together.
AfterErased = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class ErasingParts:
    """What is handed in. `user` is who this node writes as by itself."""

    store: Store
    writer: Writer
    records: Records
    indexer: Indexer
    index: Index
    compaction: Compaction
    user: str
    log: logging.Logger


@dataclass(frozen=True, slots=True)
class NodeErasure:
    """How it stands with an erasure on one node. `state` is `confirmed`, `pending`, or `reader`: it cannot say."""

    node: NodeId
    state: str
    confirmed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ErasureView:
    """An erasure as this node knows it. `left` are items that nobody with the right has erased yet."""

    id: str
    kind: str
    at_ms: int
    node: str
    items: tuple[Item, ...]
    left: tuple[Item, ...]
    nodes: tuple[NodeErasure, ...]


class Erasing:
    """Use it on the event loop: `start` it once the writer runs, `stop` it before the writer does."""

    def __init__(self, parts: ErasingParts) -> None:
        assert parts.store.identity is not None
        self._parts = parts
        self._store = parts.store
        self._node = node_of(parts.store.identity.author)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[OnErased] = []
        self._after: list[AfterErased] = []
        self.interval_s = INTERVAL_S  # at least, between two copies of the record
        self._next_at = 0.0  # of the loop's time: when the record may be copied again
        self._confirmed: set[tuple[str, str]] = set()  # application, erasure
        self._has_looked = False
        self._gone: set[tuple[str, str]] = set()  # application, user: accounts that were erased
        self._late: set[tuple[str, str, str]] = (
            set()
        )  # application, model id, document id: perhaps of one of those

    def start(self) -> None:
        self._woken.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def listen(self, on_erased: OnErased, after: AfterErased | None = None) -> None:
        """Have a service drop what it keeps of a document that was erased. Called again if it was cut short.

        `after` is for what is costly, and done once for many documents.
        """
        self._listeners.append(on_erased)
        if after is not None:
            self._after.append(after)

    def look_again(self) -> None:
        """For a timer: what came too late to change anything may have left something behind."""
        self._woken.set()

    def on_entries(self, entries: Sequence[FeedEntry]) -> None:
        """Documents have changed, here or elsewhere."""
        if self._gone:
            late = [e for e in entries if (e.application, e.created_by or e.user) in self._gone]
            self._late.update((e.application, e.model, e.id) for e in late)
        if self._late or any(e.change is Change.DELETED or e.model.startswith(ERASURE) for e in entries):
            self._woken.set()

    # -- asking for it

    async def erase(self, application: str, kind: str, items: Sequence[Item], *, user: str) -> list[str]:
        """Erase documents as far as this node may; ids of the erasures, each of `ITEMS_MAX` documents at most.

        Durable here when it returns. What an administrator's node has to erase is `left` in the erasure's view.
        """
        ids: list[str] = []
        for start in range(0, max(1, len(items)), ITEMS_MAX):
            some = items[start : start + ITEMS_MAX]
            id = self._parts.records.new_id()
            model = self._parts.records.builtin(application, ERASURE)
            self._gone |= {(application, user) for user in _accounts_in(application, some)}
            values = {"node": self._node.hex(), "kind": kind, "items": [list(item) for item in some]}
            asked = Edit(EditKind.CREATE, model, id, values)
            await self._erase_all(application, some, user, asked)
            ids.append(id)
        return ids

    async def complete(self, application: str, id: str, *, user: str) -> bool:
        """Erase what is left of an erasure, which another node could not; False if there is no such erasure."""
        view = self.view(application, id)
        if view is None:
            return False
        if view.left:
            await self._erase_all(application, view.left, user, None)
        self._woken.set()
        return True

    async def _erase_all(
        self, application: str, items: Sequence[Item], user: str, asked: Edit | None
    ) -> None:
        may_all = self.may_erase_all(application)
        edits = [asked] if asked is not None else []
        with self._store.read() as snapshot:
            for model_id, id in items:
                if may_all or self._is_ours(snapshot, application, model_id, id):
                    model = Model(id=model_id, application=application, name=model_id, fields={})
                    edits.append(Edit(EditKind.ERASE, model, id, {}))  # its definition may be gone
        if edits:
            await self._parts.records.apply(application, user, edits)

    def _is_ours(self, snapshot: Snapshot, application: str, model_id: str, id: str) -> bool:
        """Whether no other node has written to a document."""
        written = snapshot.written_by(self._store.space(application), model_id, id)
        return all(node_of(author) == self._node for author, _ in written)

    def may_erase_all(self, application: str) -> bool:
        """Whether this node may erase what others wrote."""
        return self._role(application) is Role.ADMIN

    def _role(self, application: str) -> Role | None:
        return self._store.members.role_of(self._node, self._store.space(application))

    def created_by(self, application: str, *users: str) -> list[Item]:
        """Everything of users: what they created, deleted or not, and what is kept about them. Blocks."""
        space, found, of = self._store.space(application), list[Item](), frozenset(users)
        kept = {self._parts.records.builtin(application, name).id for name in (ERASURE, ERASED)}
        with self._store.read() as snapshot:
            for _, model_id in self._store.names.collections_of(space):
                for document in snapshot.documents.all_of(space, model_id) if model_id not in kept else ():
                    if not document.is_erased and _is_of(document, of):
                        found.append((model_id, document.id))
        return found

    # -- how it stands

    def view(self, application: str, id: str) -> ErasureView | None:
        """An erasure, and how it stands on every node; None if there is none of this id."""
        space, records = self._store.space(application), self._parts.records
        with self._store.read() as snapshot:
            asked = snapshot.documents.get(space, records.builtin(application, ERASURE).id, id)
            if asked is None or not asked.exists:
                return None
            values, items = asked.values(), _items(asked)
            left = [item for item in items if not _is_erased(snapshot, space, item)]
            nodes = []
            confirmations = records.builtin(application, ERASED).id
            for node, role in self._members(space):
                told = snapshot.documents.get(space, confirmations, f"{id}.{node.hex()}")
                by_itself = told is not None and any(
                    node_of(author) == node for author in told.vector
                )  # what others say of it proves nothing
                at = told.created_hlc >> 16 if told is not None and by_itself and told.exists else None
                state = "confirmed" if at is not None else "reader" if role is Role.READER else "pending"
                nodes.append(NodeErasure(node, state, at))
        return ErasureView(
            id, str(values.get("kind")), asked.created_hlc >> 16, str(values.get("node")), tuple(items),
            tuple(left), tuple(nodes),
        )  # fmt: skip

    def _members(self, space: SpaceId) -> list[tuple[NodeId, Role]]:
        members = self._store.members
        found = ((node, members.role_of(node, space)) for node in sorted(members.nodes))
        return [(node, role) for node, role in found if role is not None]

    # -- what comes too late

    async def _look_for_late(self) -> None:
        """At the start: which accounts were erased, and what of them has come since without being erased."""
        records = self._parts.records
        with self._store.read() as snapshot:
            applications = snapshot.applications()
            for application in applications:
                model = records.builtin(application, ERASURE).id
                for asked in snapshot.documents.all_of(self._store.space(application), model):
                    self._gone |= {(application, user) for user in _accounts_in(application, _items(asked))}
        for application in applications:
            users = [user for of, user in self._gone if of == application]
            if users and self.may_erase_all(application):
                items = await records.in_pool(partial(self.created_by, application, *users))
                self._late.update((application, *item) for item in items)

    async def _erase_late(self) -> None:
        """Erase what was written for an erased account where nobody knew of that yet. For administrators' nodes."""
        late = frozenset(self._late)
        for application in {of for of, _, _ in late}:
            if not self.may_erase_all(application):
                continue
            space, users = (
                self._store.space(application),
                {user for of, user in self._gone if of == application},
            )
            with self._store.read() as snapshot:
                documents = [snapshot.documents.get(space, *item) for of, *item in late if of == application]
            items = [
                (document.model, document.id)
                for document in documents
                if document is not None and not document.is_erased and _is_of(document, users)
            ]
            if items:
                await self.erase(application, "account", items, user=self._parts.user)
        self._late -= late

    # -- carrying it out

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(COLLECT_S)
            self._woken.clear()
            try:
                again_after_s = await self._carry_out()
            except (StorageError, NotPermitted) as error:
                if not isinstance(error, WriterOverloaded):
                    self._parts.log.warning("erasing goes on later", extra={"data": {"reason": str(error)}})
                again_after_s = FAILED_RETRY_S
            except Exception:  # a bug, of a service perhaps: what is erased is still to go
                self._parts.log.exception("erasing failed, and goes on later")
                again_after_s = FAILED_RETRY_S
            if again_after_s:
                await asyncio.sleep(again_after_s)
                self._woken.set()

    async def _carry_out(self) -> float:
        """Leave nothing of what is due, and say so. After how many seconds to try again, 0 if all is done."""
        if not self._has_looked:
            await self._look_for_late()
            self._has_looked = True
        await self._erase_late()
        with self._store.read() as snapshot:
            names = {self._store.space(name): name for name in snapshot.applications()}
            all_due = list(due(snapshot.local))
            waiting = _waiting(snapshot) if all_due else set()
        ready = [one for one in all_due if one not in waiting]
        if ready:
            for one in ready:
                for drop in self._listeners:
                    await drop(names.get(one.space, ""), one.model, one.id)
            for finish in self._after:
                await finish()
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._next_at - loop.time()))
            started = loop.time()
            if not await self._parts.writer.between(self._begin):
                return RETRY_S
            await self._copy()
            await self._parts.writer.between(self._parts.compaction.finish)
            self._next_at = loop.time() + max(self.interval_s, LOAD_MAX * (loop.time() - started))
            await self._parts.writer.submit(partial(_settle_all, ready))
        for application in names.values():
            await self._confirm(application)
        return 0 if len(ready) == len(all_due) else FAILED_RETRY_S

    def _begin(self) -> bool:
        """On the writer's thread: no file beside the record holds deleted bytes any more, and the next copy of the
        record will hold none. False if the query index is not ready."""
        if self._parts.indexer.is_stale or not self._parts.index.truncate_log():
            return False
        self._parts.compaction.begin()
        return True

    async def _copy(self) -> None:
        copying = asyncio.ensure_future(asyncio.to_thread(self._parts.compaction.copy))
        try:
            await asyncio.shield(copying)
        except BaseException:
            await asyncio.wait({copying})  # the record is not closed before
            with contextlib.suppress(StorageError):  # the next start clears away what is left of it
                await self._parts.writer.between(self._parts.compaction.give_up)
            raise

    async def _confirm(self, application: str) -> None:
        """Say of every erasure that nothing of it is left here, as soon as that is so."""
        if self._role(application) not in (Role.ADMIN, Role.MEMBER):
            return
        space, records = self._store.space(application), self._parts.records
        model, edits = records.builtin(application, ERASED), list[Edit]()
        with self._store.read() as snapshot:
            still_due = {(one.model, one.id) for one in due(snapshot.local) if one.space == space}
            for asked in snapshot.documents.all_of(space, records.builtin(application, ERASURE).id):
                if (application, asked.id) in self._confirmed or not asked.exists:
                    continue
                id, items = f"{asked.id}.{self._node.hex()}", _items(asked)
                told = snapshot.documents.get(space, model.id, id)
                if told is not None and told.exists:
                    self._confirmed.add((application, asked.id))
                elif all(_is_erased(snapshot, space, i) for i in items) and still_due.isdisjoint(items):
                    values = {"erasure": asked.id, "node": self._node.hex()}
                    edits.append(Edit(EditKind.PUT, model, id, values))
        if edits:
            await records.apply(application, self._parts.user, edits)


def _settle_all(done: Sequence[Due], local: LocalWriter) -> None:
    for one in done:
        settle(local, one)


def _items(asked: Document) -> list[Item]:
    """The documents that an erasure names, as far as it is of the right form."""
    items: Any = asked.values().get("items")
    found: list[Item] = []
    for pair in items if isinstance(items, list) else ():  # a peer may have written anything
        match pair:
            case [str() as model_id, str() as id]:
                found.append((model_id, id))
    return found


def _is_erased(snapshot: Snapshot, space: SpaceId, item: Item) -> bool:
    document = snapshot.documents.get(space, *item)
    return document is not None and document.is_erased


def _is_of(document: Document, users: Container[str]) -> bool:
    """Whether a document is a user's. Of the program's own models what is about the user counts, whoever wrote it."""
    if not document.model.startswith("$"):
        return document.created_user in users
    user = document.values().get("user")
    return document.id in users or (isinstance(user, str) and user in users)


def _accounts_in(application: str, items: Iterable[Item]) -> Iterator[str]:
    """The users whose accounts are among these documents."""
    accounts = builtin_model_id(application, ACCOUNT)
    return (id for model_id, id in items if model_id == accounts)


def _waiting(snapshot: Snapshot) -> set[Due]:
    """Documents of which a body waits, with a commit that came before its causes."""
    found: set[Due] = set()
    for (space, _), run in WaitingRoom(snapshot).runs.items():
        for body in (body for commit in run.commits for body in commit.bodies if body is not None):
            named = document_named(name_in(body))
            if named is not None:
                found.add(Due(space, *named))
    return found
