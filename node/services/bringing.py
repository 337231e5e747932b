"""The documents of a record that was moved aside, issued again in the network that the node has joined.

Room: which documents, in which order, and what is left behind and why. They go the way of every other write:
checked against the model in force here, signed by this node, under their own ids and as their own users. Begun
after the first sync, so that what the network has already is seen; carried on after a restart from where it was.

Models come first, then accounts (their second factors before them), what applications keep of them, and everything
else. What the network has under the same id stays as it is there. An account whose e-mail address exists there is
listed, not merged. Roles are not brought: rights in a network are given by its own administrators. API keys and
deleted documents are not brought either.

    local "bring" "job"      {aside, state, place, models, accounts, documents, left}
    local "bring" "left NNNNNN"  {application, model, id, reason}, of the first `LISTED_MAX`
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from node.services.account_models import ACCOUNT, MFA, USERDATA
from node.services.builtin import builtin_models
from node.services.local import LocalStore
from node.services.records import Records
from node.writer import Writer, WriterOverloaded
from protocol.changes import DocumentChange, Edit, EditKind, Record
from protocol.document import Document
from protocol.errors import NotPermitted, TooLarge
from protocol.ids import builtin_model_id
from protocol.schema import Model
from protocol.verdicts import PERMISSIONS
from storage.catalog import MODEL, Catalog
from storage.errors import DocumentExists, IndexUnavailable, NotUnique, StorageError, UnknownModel
from storage.lmdb_kv import LmdbKeyValueStore
from storage.local import LocalWriter
from storage.store import Store

LISTED_MAX = 1_000
SLICE_DOCUMENTS = 100  # written at a time, so that what is asked for here gets in between
RETRY_S = 1.0  # while the index is being rebuilt, or the queue is full
_KIND, _JOB = "bring", "job"
_EXISTS = "the network has a document of this id"


class Found(NamedTuple):
    """A document of the old record; `rank` and `place` say how far one has come."""

    place: str
    application: str
    model: str  # its name, as it was
    model_id: str
    kind: str  # "models", "accounts" or "documents"
    document: Document
    permissions: dict[str, Any] | None = None  # of a model that was understood: those in force


@dataclass(slots=True)
class Progress:
    """How far the job has come."""

    aside: str
    state: str = "waiting"
    place: str = ""
    models: int = 0
    accounts: int = 0
    documents: int = 0
    left: int = 0


def bring_job(local: LocalWriter, aside: str) -> None:
    """Note, in a new record, that the documents of the old one are to be brought."""
    local.put(_KIND, _JOB, asdict(Progress(aside)))


@dataclass(frozen=True, slots=True)
class BringingParts:
    """What the service is handed."""

    directory: Path
    records: Records
    writer: Writer
    local: LocalStore
    has_email: Callable[
        [str, str], Awaitable[bool]
    ]  # whether an application has an account with this address
    find_model: Callable[[str, str], Model | None]  # in force here, by its id
    wait_synced: Callable[[], Awaitable[None]]
    log: logging.Logger


class Bringing:
    """Use it on the event loop. `run` it in the background; it ends at once if there is nothing to bring."""

    def __init__(self, parts: BringingParts) -> None:
        self._parts = parts

    def report(self) -> dict[str, Any] | None:
        """How far it has come, and what was left behind; None if nothing was ever to be brought."""
        value = self._parts.local.get(_KIND, _JOB)
        if value is None:
            return None
        progress = Progress(**value)
        listed = [entry for key, entry in self._parts.local.scan(_KIND, "left ")]
        return {
            "from": str(self._parts.directory / progress.aside),
            "state": progress.state,
            "models": progress.models,
            "accounts": progress.accounts,
            "documents": progress.documents,
            "left": progress.left,
            "left_behind": listed,
        }

    async def run(self) -> None:
        """Bring what is to be brought. May be cancelled anywhere, and run again."""
        value = self._parts.local.get(_KIND, _JOB)
        if value is None or value["state"] == "done":
            return
        progress = Progress(**value)
        await self._parts.wait_synced()
        try:
            await self._bring(progress)
        except StorageError as error:
            self._parts.log.warning("bringing documents has stopped: %s", error)
            return
        self._parts.log.info(
            "brought %d models, %d accounts and %d documents; %d were left behind",
            progress.models, progress.accounts, progress.documents, progress.left,
        )  # fmt: skip

    async def _bring(self, progress: Progress) -> None:
        path = self._parts.directory / progress.aside
        keys = await asyncio.to_thread(lambda: LmdbKeyValueStore(str(path), read_only=True))
        with closing(keys):
            slices = _slices(documents_of(Store(keys), progress.place))
            while some := await asyncio.to_thread(next, slices, None):
                reasons = await asyncio.gather(*map(self._reason, some))  # so that they share a commit
                for one, reason in zip(some, reasons, strict=True):
                    await self._note(one, reason, progress)
                progress.place = some[-1].place
                progress.state = "running"
                await self._keep(progress)
        progress.state = "done"
        await self._keep(progress)

    async def _keep(self, progress: Progress) -> None:
        await self._parts.local.put(_KIND, _JOB, asdict(progress))

    async def _reason(self, one: Found) -> str | None:
        """Why a document is left behind; None if it is brought."""
        while True:
            try:
                return await self._issue(one)
            except (IndexUnavailable, WriterOverloaded) as error:
                self._parts.log.debug("bringing waits: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _note(self, one: Found, reason: str | None, progress: Progress) -> None:
        if reason is None:
            setattr(progress, one.kind, getattr(progress, one.kind) + 1)
            return
        progress.left += 1
        if progress.left <= LISTED_MAX:
            entry = {
                "application": one.application,
                "model": one.model,
                "id": one.document.id,
                "reason": reason,
            }
            await self._parts.local.put(_KIND, f"left {progress.left:06}", entry)

    async def _issue(self, one: Found) -> str | None:
        """Write one document. Returns why it was left behind, if it was."""
        model = self._model(one)
        if model is None:
            return "its model is not defined in the network"
        shown = one.document.values()
        # A null that stands for no default is said again.
        fields = model.fields
        values = {
            n: v for n, v in shown.items() if n in fields and (v is not None or fields[n].default is not None)
        }
        if one.kind == "models":
            values = {name: value for name, value in shown.items() if value is not None}
            if one.permissions is not None:
                values[PERMISSIONS] = one.permissions
        else:
            faults = dict.fromkeys(shown.keys() - fields.keys(), "Unknown field") | model.check_record(shown)
            if faults:
                return "its model in the network does not allow it: " + ", ".join(sorted(faults))
        if one.model == ACCOUNT and await self._parts.has_email(one.application, str(values.get("email"))):
            here = self._parts.records.get(model, one.document.id)
            return None if here is not None and here.values == values else "its e-mail address exists there"
        edit = Edit(EditKind.CREATE, model, one.document.id, values)
        change = DocumentChange(one.application, one.document.created_user, [edit], checks_references=False)
        try:
            await self._parts.writer.submit(change)
        except DocumentExists:
            here = self._parts.records.get(model, one.document.id)
            return None if here is not None and _is_same(here, values) else _EXISTS
        except NotUnique:
            return "a value that must be unique is taken there"
        except NotPermitted:
            return "this device may not write there"
        except (TooLarge, UnknownModel) as error:
            return str(error)
        return None

    def _model(self, one: Found) -> Model | None:
        if one.model.startswith("$"):
            return self._parts.records.builtin(one.application, one.model)
        return self._parts.find_model(one.application, one.model_id)


def _is_same(here: Record, values: dict[str, Any]) -> bool:
    """Whether it was brought already, before the node was stopped."""
    return {name: value for name, value in here.values.items() if value is not None} == values


def _slices(found: Iterator[Found]) -> Iterator[list[Found]]:
    """Some at a time, all of one kind: what comes after models is checked against them."""
    some: list[Found] = []
    for one in found:
        if some and (len(some) >= SLICE_DOCUMENTS or one.kind != some[0].kind):
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def documents_of(store: Store, after_place: str) -> Iterator[Found]:
    """What of a record is to be brought, in order, after a place. Blocks on the disk while it is read."""
    catalog = Catalog(store)
    for model in builtin_models():
        catalog.add_builtin(model)
    with store.read() as snapshot:
        catalog.load(snapshot)
        applications = sorted(snapshot.applications())
        for rank, kind in enumerate((MODEL, MFA, ACCOUNT, USERDATA, "")):
            for application in applications:
                space = store.space(application)
                if kind:
                    chosen = [(kind, builtin_model_id(application, kind))]
                else:
                    chosen = [(model.name, model.id) for model in catalog.models_of(application)]
                for name, model_id in sorted(chosen, key=lambda pair: pair[1]):
                    place = f"{rank} {application} {model_id} "
                    if after_place > place + "\x7f":
                        continue
                    after_id = after_place[len(place) :] if after_place.startswith(place) else ""
                    for document in snapshot.documents.all_of(space, model_id, after_id=after_id):
                        if document.exists:
                            word = {MODEL: "models", ACCOUNT: "accounts"}.get(kind, "documents")
                            defined = catalog.find(application, document.id) if kind == MODEL else None
                            yield Found(
                                place + document.id, application, name, model_id, word, document.copy(),
                                None if defined is None else defined.permissions,
                            )  # fmt: skip
