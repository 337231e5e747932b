"""What is said on the realtime socket, in both dialects of the seed.

Room: shapes alone. A client's text becomes a message or a refusal that names every fault; replies and events
become bytes. What a message does is `realtime_session`'s. The seed has two dialects (S1, "Real-time Updates"
and "Real-time Notifications via WebSocket"), and each message is answered in its own:

    {"action": "subscribe", "model", "instance_id"?, "cursor"?}       -> {"event": "subscribed", …}
    {"type": "subscribe", "models", "events"?, "instanceId"?, …}      -> {"type": "subscribed", …}

Of edits of a text the seed has no example; they are shaped as the rest of each dialect is:

    {"action": "edit", "model", "instance_id", "field", "ops", "base_version", "ref"?}  -> {"event": "edited", …}
    {"type": "edit", "model", "instanceId", "field", "ops", "baseVersion", "ref"?}      -> {"type": "edited", …}
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any

import msgspec

from protocol.errors import InvalidId
from protocol.ids import check_application_id, check_instance_id
from protocol.integrate import Change

MODEL_NAME_MAX_CHARS = 128  # twice what a name or an id of a model can have
MODELS_MAX = 1_000  # in one message: as many subscriptions as a socket takes
CURSOR_MAX_CHARS = 128
VERSION_MAX_CHARS = 64
REF_MAX_CHARS = 128
TOKEN_MAX_CHARS = 8_000  # as the HTTP frame takes
FAULTS_MAX = 100  # a refusal names so many faults at most, the first ones

_encode = msgspec.json.Encoder().encode


class Dialect(Enum):
    """Which member names the kind of a message: the client's own, and that of what it hears."""

    ACTION = ("action", "event")
    TYPE = ("type", "type")

    def __init__(self, said: str, heard: str) -> None:
        self.said = said
        self.heard = heard


class Conflict(Enum):
    """What else than changes of documents can be heard: a conflict has appeared, or has ended."""

    OPEN = "conflict"
    RESOLVED = "conflict_resolved"


Topic = Change | Conflict

# The names that `events` selects by, and those that events carry.
SELECTABLE: dict[str, frozenset[Topic]] = {
    "created": frozenset({Change.CREATED}),
    "updated": frozenset({Change.UPDATED}),
    "deleted": frozenset({Change.DELETED}),
    "conflict": frozenset(Conflict),
}
EVENT_NAMES = {Change.CREATED: "create", Change.UPDATED: "update", Change.DELETED: "delete"}
EVERYTHING: frozenset[Topic] = frozenset(EVENT_NAMES) | frozenset(Conflict)


@dataclass(frozen=True, slots=True)
class Authenticate:
    """`application` says where the owner token is to act; a user's token says so itself."""

    dialect: Dialect
    token: str = field(repr=False)
    application: str | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`instance` None means all instances; after `cursor`, everything is to be replayed."""

    dialect: Dialect
    models: tuple[str, ...]
    instance: str | None = None
    topics: frozenset[Topic] = EVERYTHING
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """`models` None means everything in this dialect, `instance` None every instance and the model itself."""

    dialect: Dialect
    models: tuple[str, ...] | None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class EditText:
    """Operations on one collaborative field, as `PUT` takes them. `ref` comes back with the answer."""

    dialect: Dialect
    model: str
    instance: str
    field: str
    ops: list[Any]
    base_version: str
    ref: str | None = None


Message = Authenticate | Subscribe | Unsubscribe | EditText


class MessageRefused(Exception):
    """A message that cannot be followed. `dialect` is None where the message does not show it."""

    def __init__(
        self, dialect: Dialect | None, code: str, message: str, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.dialect = dialect
        self.code = code
        self.message = message
        self.details = details


def read_message(text: str) -> Message:
    """The message in a text frame. Raises `MessageRefused`, and nothing else."""
    try:
        content = msgspec.json.decode(text)
    except RecursionError:
        raise MessageRefused(None, "BAD_REQUEST", "The message is nested too deeply") from None
    except ValueError as error:
        raise MessageRefused(None, "BAD_REQUEST", f"The message is not valid JSON ({error})") from None
    if type(content) is not dict:
        raise MessageRefused(None, "BAD_REQUEST", "The message must be a JSON object")
    spoken = [dialect for dialect in Dialect if dialect.said in content]
    if len(spoken) != 1:
        raise MessageRefused(None, "BAD_REQUEST", "A message has either an action or a type")
    dialect = spoken[0]
    verb = content.pop(dialect.said)
    fields = _FIELDS[dialect].get(verb) if isinstance(verb, str) else None
    if fields is None:
        options = ", ".join(_FIELDS[dialect])
        raise _invalid(dialect, {dialect.said: f"Invalid option. Must be one of: {options}"})
    given = {name: value for name, value in content.items() if value is not None}  # null: as if left out
    faults = dict(islice(_faults(fields, given), FAULTS_MAX))
    if not faults and "models" in fields and "instanceId" in given and len(set(given.get("models", ()))) != 1:
        faults["instanceId"] = "Needs exactly one model beside it"
    if faults:
        raise _invalid(dialect, faults)
    return _message(dialect, verb, given)


def _message(dialect: Dialect, verb: str, given: dict[str, Any]) -> Message:
    if verb == "authenticate":
        return Authenticate(dialect, given["token"], given.get("application_id"))
    if verb == "edit":
        at, version = ("instance_id", "base_version") if dialect is Dialect.ACTION else _EDIT_NAMES
        return EditText(
            dialect,
            given["model"],
            given[at],
            given["field"],
            given["ops"],
            given[version],
            given.get("ref"),
        )
    named = given.get("models") if dialect is Dialect.TYPE else [given["model"]]
    models = None if named is None else tuple(dict.fromkeys(named))
    instance = given.get("instance_id", given.get("instanceId"))
    if verb == "unsubscribe" or models is None:
        return Unsubscribe(dialect, models, instance)
    topics = EVERYTHING
    if "events" in given:
        topics = frozenset().union(*(SELECTABLE[name] for name in given["events"]))
    return Subscribe(dialect, models, instance, topics, given.get("cursor"))


def _invalid(dialect: Dialect, faults: Mapping[str, str]) -> MessageRefused:
    return MessageRefused(dialect, "BAD_REQUEST", "Validation failed", faults)


# -- fields: for each, what is wrong with a value, and where ------------------------------------------------

_Faults = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Field:
    check: Callable[[str, Any], _Faults]
    required: bool = False


def _faults(fields: Mapping[str, _Field], given: Mapping[str, Any]) -> _Faults:
    for name, expected in fields.items():
        if name in given:
            yield from expected.check(name, given[name])
        elif expected.required:
            yield name, "This field is required"
    for name in given:
        if name not in fields:
            yield name, "Unknown field"


def _text(max_chars: int) -> Callable[[str, Any], _Faults]:
    def check(where: str, value: Any) -> _Faults:
        if not isinstance(value, str):
            yield where, "Must be a text"
        elif not 1 <= len(value) <= max_chars:
            yield where, f"Must have 1 to {max_chars} characters"

    return check


def _id(accept: Callable[[object], str]) -> Callable[[str, Any], _Faults]:
    def check(where: str, value: Any) -> _Faults:
        try:
            accept(value)
        except InvalidId as error:
            yield where, str(error)

    return check


_model = _text(MODEL_NAME_MAX_CHARS)


def _models(where: str, value: Any) -> _Faults:
    if not isinstance(value, list) or not 1 <= len(value) <= MODELS_MAX:
        yield where, f"Must be a list of 1 to {MODELS_MAX} models"
        return
    for position, name in enumerate(value):
        yield from _model(f"{where}[{position}]", name)


def _events(where: str, value: Any) -> _Faults:
    if not isinstance(value, list) or not value:
        yield where, "Must be a list of at least one event"
        return
    for position, name in enumerate(value):
        if not isinstance(name, str) or name not in SELECTABLE:
            yield f"{where}[{position}]", f"Invalid option. Must be one of: {', '.join(SELECTABLE)}"


def _ops(where: str, value: Any) -> _Faults:
    if not isinstance(value, list):  # each of them is read where that of a request is
        yield where, "Must be a list of operations"


_EDIT_NAMES = ("instanceId", "baseVersion")
_TOKEN = _Field(_text(TOKEN_MAX_CHARS), required=True)
_APPLICATION = _Field(_id(check_application_id))
_CURSOR = _Field(_text(CURSOR_MAX_CHARS))
_INSTANCE = _Field(_id(check_instance_id))
_MODEL = _Field(_model, required=True)
_ONE = _Field(_id(check_instance_id), required=True)
_VERSION = _Field(_text(VERSION_MAX_CHARS), required=True)
_EDIT = {
    "model": _MODEL,
    "field": _Field(_text(MODEL_NAME_MAX_CHARS), required=True),
    "ops": _Field(_ops, required=True),
    "ref": _Field(_text(REF_MAX_CHARS)),
}

_FIELDS: dict[Dialect, dict[str, dict[str, _Field]]] = {
    Dialect.ACTION: {
        "authenticate": {"token": _TOKEN, "application_id": _APPLICATION},
        "subscribe": {"model": _MODEL, "instance_id": _INSTANCE, "cursor": _CURSOR},
        "unsubscribe": {"model": _MODEL, "instance_id": _INSTANCE},
        "edit": {**_EDIT, "instance_id": _ONE, "base_version": _VERSION},
    },
    Dialect.TYPE: {
        "authenticate": {"token": _TOKEN, "application_id": _APPLICATION},
        "subscribe": {
            "models": _Field(_models, required=True),
            "events": _Field(_events),
            "instanceId": _INSTANCE,
            "cursor": _CURSOR,
        },
        "unsubscribe": {"models": _Field(_models), "instanceId": _INSTANCE},
        "edit": {**_EDIT, "instanceId": _ONE, "baseVersion": _VERSION},
    },
}


# -- what the client hears ----------------------------------------------------------------------------------


def reply(dialect: Dialect, kind: str, members: Mapping[str, object]) -> bytes:
    """A reply of a kind; members that are None are left out."""
    said = {name: value for name, value in members.items() if value is not None}
    return _encode({dialect.heard: kind, **said})


def error_reply(
    dialect: Dialect,
    message: str,
    code: str,
    details: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
    ref: str | None = None,
) -> bytes:
    """The seed's error format (S1, "Error Response Format") as a message."""
    members = {
        "error": message,
        "error_code": code,
        "details": details,
        "retry_after": retry_after_s,
        "ref": ref,
    }
    return reply(dialect, "error", members)


def edited_reply(asked: EditText, version: str) -> bytes:
    """The edit is stored, and made this version."""
    if asked.dialect is Dialect.ACTION:
        names: dict[str, Any] = {"model": asked.model, "instance_id": asked.instance}
    else:
        names = {"model": asked.model, "instanceId": asked.instance}
    return reply(
        asked.dialect, "edited", {**names, "field": asked.field, "version": version, "ref": asked.ref}
    )


def names_of(dialect: Dialect, models: tuple[str, ...], instance: str | None) -> dict[str, Any]:
    """The members of a reply that say what it is about."""
    if dialect is Dialect.ACTION:
        return {"model": models[0], "instance_id": instance}
    return {"models": models, "instanceId": instance}


def event_head(
    dialect: Dialect,
    change: Change,
    model: str,
    id: str,
    document: bytes | None,
    touched: Mapping[str, Any],
    origin: str | None,
) -> bytes:
    """An event but for its end, which differs from subscription to subscription: see `event_tail`.

    `document` is the rendered instance, None if it was deleted; the keys of `touched` are what changed.
    """
    kind = b'{"%b":"%b"' % (dialect.heard.encode(), EVENT_NAMES[change].encode())
    parts = [kind, b',"model":%b,' % _encode(model)]
    if dialect is Dialect.ACTION:
        parts.append(b'"instance_id":%b,"data":%b' % (_encode(id), b"null" if document is None else document))
    else:
        parts.append(b'"instanceId":%b,"changes":%b' % (_encode(id), _changes(document, touched)))
        if document is not None:
            parts.append(b',"data":' + document)
    if origin is not None:
        parts.append(b',"origin":' + _encode(origin))
    return b"".join(parts)


def conflict_head(
    dialect: Dialect, topic: Conflict, model: str, id: str, conflict: Mapping[str, Any]
) -> bytes:
    """The same for an event about a conflict: `conflict` is that of `GET /v1/conflicts/{id}`."""
    instance = "instance_id" if dialect is Dialect.ACTION else "instanceId"
    said = {dialect.heard: topic.value, "model": model, instance: id, "conflict": conflict}
    return _encode(said)[:-1]


def event_tail(subscription: int | None, cursor: bytes, previous: bytes) -> bytes:
    """The end of an event; both cursors are JSON texts, see `cursor_text`."""
    if subscription is None:
        return b',"cursor":%b,"previous":%b}' % (cursor, previous)
    return b',"subscription":%d,"cursor":%b,"previous":%b}' % (subscription, cursor, previous)


def cursor_text(cursor: str) -> bytes:
    """A cursor as JSON."""
    return _encode(cursor)


_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _changes(document: bytes | None, touched: Mapping[str, Any]) -> bytes:
    """The touched fields as they are shown now.

    That is not always what the change said: of two values that did not see each other one is shown.
    """
    if document is None:
        return b"{}"
    return _encode({name: value for name, value in _fields_of(document).items() if name in touched})
