"""What has become of a document, write by write: who, where, when, and between which versions.

Room: the bodies of a document in the log as JSON (CONTRACT, "S1"). A version here is that of the writer's own
node, before and after: the same whichever node is asked. Who may read it is asked by the caller.
"""

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from node.services.records import Records, vector_to_json
from node.services.sealing import shown
from protocol.ancestor import Reach
from protocol.body import Dot, Kind, Operation
from protocol.clock import Hlc, ms_of_hlc
from protocol.document import Document
from protocol.errors import QueryFault
from protocol.ids import NODE_ID_BYTES
from protocol.integrate import Verdict
from protocol.schema import Model
from protocol.shared import values_of
from protocol.times import datetime_from_ms
from protocol.yjs_update import decode_update
from storage.ancestry import StoredPast, told_at
from storage.documents import BodyAddress
from storage.store import Snapshot, Store

BODIES_READ_MAX = 100_000  # the newest to arrive; of a document with more, what is older is not listed
_CURSOR_SIZE_MAX = 300


class History(NamedTuple):
    """One page, the newest first by the writers' clocks, and where the document stands."""

    items: list[dict[str, Any]]
    total: int
    next_cursor: str | None
    version: str
    version_vector: dict[str, int]


class _Place(NamedTuple):
    hlc: Hlc
    dot: Dot
    address: BodyAddress


class Histories:
    """Use it on the event loop; reading is done on a thread."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records

    async def page(
        self, model: Model, id: str, *, page: int = 1, per_page: int = 20, cursor: str | None = None
    ) -> History | None:
        """None if there never was such a document. Raises `QueryFault` for a cursor that is none."""
        after = None if cursor is None else _decode_cursor(cursor)
        found: History | None = await self._records.in_pool(self._read, model, id, page, per_page, after)
        return found

    def _read(
        self, model: Model, id: str, page: int, per_page: int, after: tuple[Hlc, Dot] | None
    ) -> History | None:
        space = self._store.space(model.application)
        with self._store.read() as snapshot:
            document = snapshot.documents.get(space, model.id, id)
            if document is None:
                return None
            places = _places(snapshot, snapshot.documents.history_backwards(space, model.id, id))
            by_author: dict[bytes, list[Reach]] = {}
            for place in places:
                by_author.setdefault(place.dot.author, []).append(place.dot[1:])
            for reaches in by_author.values():
                reaches.sort()
            rest = places if after is None else [place for place in places if place[:2] < after]
            start = (page - 1) * per_page
            shown = rest[start : start + per_page]
            past = StoredPast(snapshot, space, None, document)
            items = [_item(model, snapshot, past, by_author, document, place) for place in shown]
            more = len(rest) > start + per_page
            return History(
                [item for item in items if item is not None],
                len(places),
                _encode_cursor(shown[-1]) if more and shown else None,
                document.version,
                vector_to_json(document.vector),
            )


def _places(snapshot: Snapshot, addresses: Iterable[BodyAddress]) -> list[_Place]:
    """Where the applied bodies are, the newest first."""
    log, names = snapshot.log, snapshot.names
    hlcs: dict[tuple[int, int], Hlc] = {}
    found: list[_Place] = []
    for at in islice(addresses, BODIES_READ_MAX):
        if log.verdict(at.chain, at.seq, at.index) is not Verdict.APPLIED:
            continue
        hlc = hlcs.get((at.chain, at.seq))
        if hlc is None:
            hlc = hlcs[at.chain, at.seq] = log.header_fields(at.chain, at.seq).hlc
        found.append(_Place(hlc, Dot(names.author(at.chain), at.seq, at.index), at))
    found.sort(reverse=True, key=lambda place: place[:2])
    return found


def _item(
    model: Model,
    snapshot: Snapshot,
    past: StoredPast,
    by_author: Mapping[bytes, Sequence[Reach]],
    document: Document,
    place: _Place,
) -> dict[str, Any] | None:
    told = told_at(snapshot, place.address)
    if told is None:
        return None
    dot = place.dot
    before: dict[bytes, Reach] = {}
    for author, reaches in by_author.items():
        count = bisect_right(reaches, past.reach(dot, author))
        if count:
            before[author] = reaches[count - 1]
    after = {**before, dot.author: dot[1:]}
    kinds = {operation[0] for operation in told.body.operations}
    if Kind.ERASE in kinds:
        action = "erased"
    elif Kind.DELETE in kinds and Kind.RESTORE not in kinds:
        action = "deleted"
    elif Kind.RESTORE in kinds and before:
        action = "restored"
    else:
        action = "updated" if before else "created"
    return {
        "action": action,
        "version": _version(document, after),
        "previous_version": _version(document, before) if before else None,
        "node": dot.author[:NODE_ID_BYTES].hex(),
        "user": told.body.user,
        "at": datetime_from_ms(ms_of_hlc(told.hlc)),
        "operations": [_operation(model, operation) for operation in told.body.operations],
        "version_vector": vector_to_json(after),
    }


def _version(document: Document, vector: Mapping[bytes, Reach]) -> str:
    state = Document(document.model, document.id)
    state.vector = dict(vector)
    return state.version


def _operation(model: Model, operation: Operation) -> dict[str, Any]:
    match operation:
        case [Kind.SET, values]:
            return {"op": "set", "values": shown(model, values)}
        case [Kind.ADD, field, elements]:
            return {"op": "add", "field": field, "elements": elements}
        case [Kind.REMOVE, field, elements]:
            return {"op": "remove", "field": field, "elements": elements}
        case [Kind.INCREMENT, field, delta]:
            return {"op": "increment", "field": field, "by": delta}
        case [Kind.DELETE]:
            return {"op": "delete"}
        case [Kind.RESTORE]:
            return {"op": "restore"}
        case [Kind.ERASE]:
            return {"op": "erase"}
        case [Kind.TEXT | Kind.ARRAY as kind, field, _, data]:
            return {"op": _name(kind), "field": field, **_edit(kind, field, data)}
        case [kind, str() as field, *_]:
            return {"op": _name(kind), "field": field}
        case [kind, *_]:
            return {"op": _name(kind)}
    return {"op": "unknown"}


def _edit(kind: int, field: str, data: bytes) -> dict[str, Any]:
    """What an update of a collaborative field inserted, and how many characters or elements it deleted."""
    update = decode_update(data, field, is_text=kind == Kind.TEXT)
    contents = [struct.content for struct in update.structs if struct.content is not None]
    inserted = [content if isinstance(content, str) else values_of(content) for content in contents]
    deleted = sum(length for _, ranges in update.deletes for _, length in ranges)
    return {"inserted": inserted, "deleted": deleted}


def _name(kind: int) -> str:
    try:
        return Kind(kind).name.lower()
    except ValueError:
        return f"kind {kind}"


def _encode_cursor(place: _Place) -> str:
    author, seq, index = place.dot
    packed = json.dumps([place.hlc, author.hex(), seq, index], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode_cursor(text: str) -> tuple[Hlc, Dot]:
    fault = QueryFault({"cursor": "Not a cursor of this list"})
    if len(text) > _CURSOR_SIZE_MAX or not text.isascii():
        raise fault
    try:
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        match parts:
            case [int() as hlc, str() as author, int() as seq, int() as index]:
                return hlc, Dot(bytes.fromhex(author), seq, index)
    except (ValueError, binascii.Error, RecursionError):
        pass
    raise fault
