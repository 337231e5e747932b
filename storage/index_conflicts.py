"""Which conflicts there are: a table of the query index beside the rows.

Room: every statement about it, on a connection and in a transaction of `index`.
It is derived as all of the index is: open conflicts are found again when the index
is filled anew. What has ended is remembered here alone, the last
`ENDED_KEPT_MAX` of it, until then.

    "$conflicts"  id (see `Conflict.id_in`), application, model_id, instance_id, field; created_by: the
                  document's; at: when its newest value was written, ms; dots (JSON): of its values;
                  state: see `State`; opened, ended: the arrivals after which it was here, and was no more;
                  ended_at (ms), ended_by (a user), ending (JSON): the dot of the body that ended it
"""

import base64
import binascii
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from protocol.body import Dot
from protocol.clock import ms_of_hlc
from protocol.conflict import DELETED, Conflict
from protocol.document import Document, Layer
from protocol.errors import QueryFault

ENDED_KEPT_MAX = 10_000
_ENDED_SLACK = 1_000  # so many more before the oldest are dropped, all at once
_CURSOR_SIZE_MAX = 200
PLACE_DIGITS = 10  # of an id, by which news of one arrival are ordered

CREATE = (
    'CREATE TABLE "$conflicts" (id TEXT PRIMARY KEY NOT NULL, application TEXT NOT NULL, model_id TEXT NOT NULL,'
    " instance_id TEXT NOT NULL, field TEXT NOT NULL, created_by TEXT NOT NULL, at INTEGER NOT NULL,"
    " dots TEXT NOT NULL, state INTEGER NOT NULL, opened INTEGER NOT NULL, ended INTEGER,"
    " ended_at INTEGER, ended_by TEXT, ending TEXT) WITHOUT ROWID",
    'CREATE INDEX "$conflicts_of" ON "$conflicts" (model_id, instance_id)',
    'CREATE INDEX "$conflicts_listed" ON "$conflicts" (state, at, id)',
    'CREATE INDEX "$conflicts_opened" ON "$conflicts" (opened)',
    'CREATE INDEX "$conflicts_ended" ON "$conflicts" (ended) WHERE ended IS NOT NULL',
)
_ROW = (
    "id, application, model_id, instance_id, field, created_by, at, dots, state, ended_at, ended_by, ending"
)


class State(IntEnum):
    OPEN = 0
    RESOLVED = 1
    REPLACED = 2  # a value has joined or gone, and the conflict goes on under another id


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with the conflicts of a document: `found` are the open ones, by their ids.

    Of one that is not `is_shown`, because its model does not allow it, there are none.
    """

    application: str
    model_id: str
    document: Document
    found: tuple[tuple[str, Conflict], ...]
    is_shown: bool = True


@dataclass(frozen=True, slots=True)
class ConflictNews:
    """A conflict has appeared with an arrival, or has ended with it."""

    id: str
    application: str
    model_id: str
    instance_id: str
    arrival: int
    is_open: bool


class NewsPlace(NamedTuple):
    """A place in the order of news: by arrival, those of ends first, then by the first digits of the id."""

    arrival: int
    is_open: bool
    digits: str


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A conflict as it is remembered. `dots` are those of the values that it lists."""

    id: str
    application: str
    model_id: str
    instance_id: str
    field: str
    created_by: str
    at_ms: int
    dots: tuple[Dot, ...]
    state: State
    ended_at_ms: int | None
    ended_by: str | None
    ending: Dot | None


@dataclass(frozen=True, slots=True)
class ConflictQuery:
    """Open or resolved conflicts, or both (None), the newest first.

    Of models in `models` all, of those in `own_models` those of documents that `user` has created, of those in
    `judged_models` those of documents for which `is_allowed(model id, id)` is true.
    """

    application: str
    models: Sequence[str]
    own_models: Sequence[str] = ()
    user: str = ""
    judged_models: Sequence[str] = ()
    is_allowed: Callable[[str, str], bool] = lambda model_id, id: False
    instance_id: str | None = None
    is_open: bool | None = True
    page: int = 1
    per_page: int = 20
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ConflictPage:
    rows: list[ConflictRow]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What bringing the table up to documents came to: take it over once the transaction is kept."""

    news: list[ConflictNews]
    opened: dict[str, int]  # how many more are open, by model
    ended: int  # how many more are remembered


class ConflictTable:
    """The table on whichever connection is handed in. Counts are of what is kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute(
            'SELECT model_id, count(*) FROM "$conflicts" WHERE state = 0 GROUP BY model_id'
        )
        self._open: dict[str, int] = dict(rows.fetchall())
        self._ended: int = connection.execute('SELECT count(*) FROM "$conflicts" WHERE state > 0').fetchone()[
            0
        ]

    def has_open(self, model_id: str) -> bool:
        """Whether any document of the model is in conflict. From any thread."""
        return self._open.get(model_id, 0) > 0

    # -- keeping it up -------------------------------------------------------------------------------------

    def settle(
        self, connection: sqlite3.Connection, standings: Iterable[Standing], arrival: int, *, is_news: bool
    ) -> Settled:
        """Bring the table up to documents as they stand after an arrival.

        Without `is_news` nothing has happened, it only looks different now: what is gone was never there.
        """
        settled = Settled([], {}, 0)
        ended = 0
        for standing in standings:
            ended += _settle_one(connection, standing, arrival, settled, is_news=is_news)
        if self._ended + ended > ENDED_KEPT_MAX + _ENDED_SLACK:
            ended -= connection.execute(
                'DELETE FROM "$conflicts" WHERE ended <= (SELECT ended FROM "$conflicts" WHERE ended IS NOT NULL'
                " ORDER BY ended DESC LIMIT 1 OFFSET ?)",
                [ENDED_KEPT_MAX],
            ).rowcount
        return Settled(settled.news, settled.opened, ended)

    def take_over(self, settled: Settled) -> None:
        self._ended += settled.ended
        for model_id, more in settled.opened.items():
            self._open[model_id] = self._open.get(model_id, 0) + more

    def clear(self, connection: sqlite3.Connection) -> None:
        connection.execute('DELETE FROM "$conflicts"')
        self._open, self._ended = {}, 0

    def drop(self, connection: sqlite3.Connection, model_id: str) -> None:
        """Forget a model's conflicts."""
        connection.execute('DELETE FROM "$conflicts" WHERE model_id = ?', [model_id])
        self._open.pop(model_id, None)
        self._ended = connection.execute('SELECT count(*) FROM "$conflicts" WHERE state > 0').fetchone()[0]


def _settle_one(
    connection: sqlite3.Connection, standing: Standing, arrival: int, settled: Settled, *, is_news: bool
) -> int:
    """Returns how many more have ended and are remembered."""
    document, model_id = standing.document, standing.model_id
    held: dict[str, str] = dict(
        connection.execute(
            'SELECT id, field FROM "$conflicts" WHERE model_id = ? AND instance_id = ? AND state = 0',
            [model_id, document.id],
        ).fetchall()
    )
    found = dict(standing.found)
    fields = {conflict.field for conflict in found.values()}
    ended = 0

    def tell(id: str, is_open: bool) -> None:
        if is_news:
            news = ConflictNews(id, standing.application, model_id, document.id, arrival, is_open)
            settled.news.append(news)

    if document.is_erased:  # what has ended, and who ended it, is not remembered either
        for id in held:
            tell(id, False)
        gone = connection.execute(
            'DELETE FROM "$conflicts" WHERE model_id = ? AND instance_id = ?', [model_id, document.id]
        ).rowcount
        settled.opened[model_id] = settled.opened.get(model_id, 0) - len(held)
        return len(held) - gone
    for id, field in held.items():
        if id in found:
            continue
        if not is_news or not standing.is_shown:
            connection.execute('DELETE FROM "$conflicts" WHERE id = ?', [id])
            continue
        state = State.REPLACED if field in fields else State.RESOLVED
        layer = _ending_of(document, field)
        connection.execute(
            'UPDATE "$conflicts" SET state = ?, ended = ?, ended_at = ?, ended_by = ?, ending = ? WHERE id = ?',
            [state, arrival, *_ending(layer), id],
        )
        ended += 1
        if state is State.RESOLVED:
            tell(id, False)
    for id, conflict in found.items():
        if id in held:
            continue
        values: list[Any] = [
            id,
            standing.application,
            model_id,
            document.id,
            conflict.field,
            document.created_user,
        ]
        values += [ms_of_hlc(max(value.hlc for value in conflict.values))]
        values += [_dots_text(value.dot for value in conflict.values), State.OPEN, arrival]
        ended -= connection.execute('DELETE FROM "$conflicts" WHERE id = ?', [id]).rowcount  # it comes back
        connection.execute(
            f'INSERT INTO "$conflicts" VALUES ({", ".join("?" * len(values))}, NULL, NULL, NULL, NULL)',
            values,
        )
        tell(id, True)
    connection.execute(
        'UPDATE "$conflicts" SET created_by = ? WHERE model_id = ? AND instance_id = ? AND created_by <> ?',
        [document.created_user, model_id, document.id, document.created_user],
    )
    settled.opened[model_id] = settled.opened.get(model_id, 0) + len(found) - len(held)
    return ended


def _ending_of(document: Document, field: str) -> Layer | None:
    """What of a document ended a conflict of the field."""
    layers = document.layers
    if not document.exists:
        layers = [layer for layer in layers if layer.is_delete]
    elif field != DELETED:
        layers = [layer for layer in layers if field in layer.registers]
    return layers[-1] if layers else None


def _ending(layer: Layer | None) -> tuple[int | None, str | None, str | None]:
    if layer is None:
        return None, None, None
    return ms_of_hlc(layer.hlc), layer.user, _dots_text([layer.dot])


def _dots_text(dots: Iterable[Dot]) -> str:
    return json.dumps([[dot.author.hex(), dot.seq, dot.index] for dot in dots], separators=(",", ":"))


# -- reading ---------------------------------------------------------------------------------------------------


def read_page(connection: sqlite3.Connection, query: ConflictQuery) -> ConflictPage:
    """One page. Raises `QueryFault` for a cursor that is none. The connection knows `civic_allowed`: see `allowing`."""
    conditions = [
        "application = ?",
        "(model_id IN (SELECT value FROM json_each(?))"
        " OR (created_by = ? AND model_id IN (SELECT value FROM json_each(?)))"
        " OR (model_id IN (SELECT value FROM json_each(?)) AND civic_allowed(model_id, instance_id)))",
    ]
    values: list[Any] = [
        query.application,
        json.dumps(query.models),
        query.user,
        json.dumps(query.own_models),
        json.dumps(query.judged_models),
    ]
    if query.is_open is None:
        conditions.append(f"state IN ({State.OPEN:d}, {State.RESOLVED:d})")
    else:
        conditions.append(f"state = {(State.OPEN if query.is_open else State.RESOLVED):d}")
    if query.instance_id is not None:
        conditions.append("instance_id = ?")
        values.append(query.instance_id)
    where = " AND ".join(conditions)
    total = connection.execute(f'SELECT count(*) FROM "$conflicts" WHERE {where}', values).fetchone()[0]
    if query.cursor is not None:
        where += " AND (at, id) < (?, ?)"
        values += _decode_cursor(query.cursor)
    offset = (query.page - 1) * query.per_page
    rows = connection.execute(
        f'SELECT {_ROW} FROM "$conflicts" WHERE {where} ORDER BY at DESC, id DESC LIMIT ? OFFSET ?',
        [*values, query.per_page + 1, offset],
    ).fetchall()
    found = [_row(row) for row in rows[: query.per_page]]
    cursor = _encode_cursor(found[-1]) if len(rows) > query.per_page else None
    return ConflictPage(found, int(total), cursor)


def read_one(connection: sqlite3.Connection, id: str) -> ConflictRow | None:
    row = connection.execute(f'SELECT {_ROW} FROM "$conflicts" WHERE id = ?', [id]).fetchone()
    return None if row is None else _row(row)


def read_open_ids(connection: sqlite3.Connection, model_id: str) -> set[str]:
    rows = connection.execute('SELECT id FROM "$conflicts" WHERE state = 0 AND model_id = ?', [model_id])
    return {str(row[0]) for row in rows}


def read_news(connection: sqlite3.Connection, after: NewsPlace, upto: int, limit: int) -> list[ConflictNews]:
    """What has appeared and ended, in the order of places, after one and up to an arrival."""
    rows = connection.execute(
        "SELECT id, application, model_id, instance_id, arrival, is_open FROM ("
        "SELECT id, application, model_id, instance_id, ended AS arrival, 0 AS is_open"
        f' FROM "$conflicts" WHERE ended >= ? AND ended <= ? AND state = {State.RESOLVED:d} UNION ALL '
        'SELECT id, application, model_id, instance_id, opened, 1 FROM "$conflicts"'
        f" WHERE opened >= ? AND opened <= ? AND state <> {State.REPLACED:d})"
        f" WHERE (arrival, is_open, substr(id, 1, {PLACE_DIGITS})) > (?, ?, ?)"
        " ORDER BY arrival, is_open, id LIMIT ?",
        [after.arrival, upto, after.arrival, upto, after.arrival, int(after.is_open), after.digits, limit],
    )
    return [
        ConflictNews(id, app, model, at, arrival, bool(is_open))
        for id, app, model, at, arrival, is_open in rows
    ]


def _row(row: Sequence[Any]) -> ConflictRow:
    id, application, model_id, instance_id, field, created_by, at, dots, state, *end = row
    ended_at, ended_by, ending = end
    return ConflictRow(
        id, application, model_id, instance_id, field, created_by, at, _dots(dots), State(state),
        ended_at, ended_by, _dots(ending)[0] if ending is not None else None,
    )  # fmt: skip


def _dots(text: str) -> tuple[Dot, ...]:
    return tuple(Dot(bytes.fromhex(author), seq, index) for author, seq, index in json.loads(text))


def _encode_cursor(row: ConflictRow) -> str:
    packed = json.dumps([row.at_ms, row.id], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode_cursor(text: str) -> list[Any]:
    fault = QueryFault({"cursor": "Not a cursor of this list"})
    if len(text) > _CURSOR_SIZE_MAX or not text.isascii():
        raise fault
    try:
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise fault from None
    match parts:
        case [int() as at, str() as id] if 0 <= at < 1 << 63 and type(at) is int:
            return [at, id]
    raise fault
