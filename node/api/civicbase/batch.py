"""Many operations in one call (seed S1, "Batch Operations"; CONTRACT S1).

Room: from a list of operations to edits. Atomic by default: one signed commit, all or nothing. With
`"atomic": false` each operation stands for itself, and the work is done in slices, so that an import leaves
the event loop and the writer to others in between.
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from node.api.civicbase.data import (
    may_open,
    new_instance,
    opened,
    page_of,
    raise_if_anothers,
    raise_unless_creator,
    readable,
    write_guard,
)
from node.api.civicbase.receipts import PREFER_NOTE, PeerReceipts
from node.api.errors import (
    ApiError,
    BadRequest,
    ErrorTable,
    NotFound,
    PayloadTooLarge,
    ValidationFailed,
    from_exception,
    s1_form,
)
from node.api.replies import Reply
from node.api.requests import parse_json, read_body
from node.api.routes import CALLER, UNKEPT, Caller, KeyAccess, Route
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.changes import DocumentChange, Edit, EditKind, Record
from protocol.limits import BODIES_PER_COMMIT_MAX
from protocol.query import parse_query
from protocol.schema import Model

OPERATIONS_MAX = BODIES_PER_COMMIT_MAX
SLICE = 16  # operations prepared before others get their turn: about 0.2 ms of the event loop
RUN = 64  # independent operations that are handed to the writer together
IN_FLIGHT_MAX = 8  # of those runs
READ_MAX_BYTES = 16 << 20  # that the GETs of a call answer with, about
_REFERENCE = re.compile(r"\$([0-9]{1,5})\.instance_id")
_ESCAPED = re.compile(r"\$+\$[0-9]{1,5}\.instance_id")
_Run = tuple[list[tuple[int, Edit]], "asyncio.Future[list[Record | Exception | None]]"]
_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(dict[str, Any]).decode


class Operation(msgspec.Struct):
    """`path` is that of the single request, with or without `/v1`."""

    method: str
    path: str
    body: msgspec.Raw = msgspec.Raw(b"null")  # decoded when its turn comes, so that no call stalls the loop
    if_match: str | None = None


class BatchRequest(msgspec.Struct):
    operations: list[Operation]
    atomic: bool = True
    versions: bool = False


_MANY, _ONE = "^(?:/v1)?/data/[^/]+$", "^(?:/v1)?/data/[^/]+/[^/]+$"
_ATOMIC: list[dict[str, Any]] = [
    {"properties": {"method": {"const": "GET"}}},
    {
        "required": ["body"],
        "properties": {"method": {"const": "POST"}, "path": {"pattern": _MANY}, "body": {"type": "object"}},
    },
    {
        "required": ["body"],
        "properties": {
            "method": {"enum": ["PUT", "PATCH"]},
            "path": {"pattern": _ONE},
            "body": {"type": "object"},
        },
    },
    {"properties": {"method": {"const": "DELETE"}, "path": {"pattern": _ONE}}},
]


BATCH = {
    "type": "object",
    "required": ["operations"],
    "properties": {
        "operations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["method", "path"],
                "properties": {
                    "method": {"type": "string", "description": "GET, POST, PUT, PATCH or DELETE"},
                    "path": {"type": "string"},
                    "body": {},
                    "if_match": {"type": ["string", "null"]},
                },
            },
            "minItems": 1,
            "maxItems": OPERATIONS_MAX,
        },
        "atomic": {"type": "boolean", "default": True},
        "versions": {
            "type": "boolean",
            "default": False,
            "description": "Say which version each instance has after its write: its ETag, for a later if_match",
        },
    },
    # What is wrong with an operation refuses an atomic batch; otherwise, and of a GET, its result says it.
    "anyOf": [
        {"required": ["atomic"], "properties": {"atomic": {"const": False}}},
        {"properties": {"operations": {"items": {"anyOf": _ATOMIC}}}},
    ],
}
RESULTS = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["status", "body"],
                "properties": {"status": {"type": "integer"}, "body": {}, "version": {"type": "string"}},
            },
        }
    },
}


_NOTE = """All or nothing, in one signed commit, unless `atomic` is false; then each operation stands for itself. Faults
are named by position, `operations[2].title`. The string `"$0.instance_id"`, in a body or as a segment of a path, is the
id of the instance that operation 0 has created; `"$$0.instance_id"` is that string itself. GETs of an atomic batch see
all that it did, others what was done before them; they answer with some 16 MiB in all, and with 413 from there on."""


@dataclass(frozen=True, slots=True)
class BatchRoutes:
    records: Records
    permissions: Permissions
    error_table: ErrorTable
    receipts: PeerReceipts

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/v1/batch",
                self.batch,
                "Do many operations in one call",
                key_access=KeyAccess.DATA,
                tags=("Data",),
                request=BATCH,
                responses={200: RESULTS},
                description=f"{_NOTE}\n\n{PREFER_NOTE}",
            ),
        ]

    async def batch(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        asked = parse_json(await read_body(request), BatchRequest)
        if not 0 < len(asked.operations) <= OPERATIONS_MAX:
            raise ValidationFailed({"operations": f"Must hold 1 to {OPERATIONS_MAX} operations"})
        results = await (self._atomic if asked.atomic else self._each)(request, asked)
        headers = await self.receipts.headers(request, caller.application)
        return Reply(b'{"results":[%b]}' % b",".join(results), headers=headers)

    async def _atomic(self, request: web.Request, asked: BatchRequest) -> list[bytes]:
        caller, operations = request[CALLER], asked.operations
        edits: list[Edit] = []
        places: list[int] = []  # of the operations that the edits are
        ids: dict[int, str] = {}
        faults: dict[str, str] = {}
        refusals: list[ApiError] = []
        for position, operation in enumerate(operations):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if operation.method == "GET":
                continue
            try:
                edit = self._edit(caller, refer(operation, ids, position))
            except Exception as error:
                refusals.append(self._as_api_error(error))
                _gather(faults, position, refusals[-1])
                continue
            if edit.kind is EditKind.CREATE:
                ids[position] = edit.id
            edits.append(edit)
            places.append(position)
        if faults:
            raise _in_one(refusals, faults)
        records = await self._apply(caller, edits, places) if edits else []
        results = [b""] * len(operations)
        for position, edit, record in zip(places, edits, records, strict=True):
            results[position] = _result(edit, record if asked.versions else None)
        await self._read_all(request, operations, ids, results)
        return results

    async def _apply(self, caller: Caller, edits: list[Edit], places: list[int]) -> Sequence[Record | None]:
        """All edits in one commit. What one of them fails with is said of its operation."""
        change = DocumentChange(caller.application, caller.user_id or "", edits)
        try:
            return await self.records.apply_change(change)
        except Exception as error:
            refusal = self._as_api_error(error)
            if refusal.status < 500 and refusal.status != 413:
                faults: dict[str, str] = {}
                _gather(faults, places[change.reached], refusal)
                refusal.details = faults
            raise refusal from error

    async def _read_all(
        self, request: web.Request, operations: list[Operation], ids: dict[int, str], results: list[bytes]
    ) -> None:
        """What GETs see of an atomic batch: all that it did."""
        room = READ_MAX_BYTES
        for position, operation in enumerate(operations):
            if operation.method == "GET":
                results[position] = await self._read(request, operation, ids, position, room)
                room -= len(results[position])

    async def _read(
        self, request: web.Request, operation: Operation, ids: dict[int, str], position: int, room: int
    ) -> bytes:
        caller = request[CALLER]
        try:
            if room <= 0:
                raise PayloadTooLarge(size_max_bytes=READ_MAX_BYTES)
            path, _, asked = refer(operation, ids, position).path.partition("?")
            model, id = self._target(caller, path)
            if may_open(self.records, caller, [model]):
                request[UNKEPT] = True
            if id is not None:
                document = readable(self.records, self.permissions, caller, model, id)
                body = (
                    opened(self.records, caller, model, document).json if model.encrypted else document.json
                )
            else:
                query = parse_query(dict(parse_qsl(asked, keep_blank_values=True)), model)
                body = await page_of(self.records, self.permissions, caller, model, query)
        except Exception as error:
            return self._refused(error)
        return b'{"status":200,"body":%b}' % body

    async def _each(self, request: web.Request, asked: BatchRequest) -> list[bytes]:
        caller, operations, versions = request[CALLER], asked.operations, asked.versions
        results: list[bytes] = [b""] * len(operations)
        run: list[tuple[int, Edit]] = []
        waiting: deque[_Run] = deque()
        ids: dict[int, str] = {}
        room = READ_MAX_BYTES
        for position, operation in enumerate(operations):
            is_read = operation.method == "GET"
            if is_read or has_references(operation):  # it sees what became of those before it
                self._submit(caller, run, waiting)
                run = []
                while waiting:
                    await self._settle(*waiting.popleft(), results, ids, versions)
            if is_read:
                results[position] = await self._read(request, operation, ids, position, room)
                room -= len(results[position])
            else:
                try:
                    run.append((position, self._edit(caller, refer(operation, ids, position))))
                except Exception as error:
                    results[position] = self._refused(error)
            if len(run) == RUN:
                self._submit(caller, run, waiting)
                run = []
                if len(waiting) > IN_FLIGHT_MAX:
                    await self._settle(*waiting.popleft(), results, ids, versions)
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._submit(caller, run, waiting)
        while waiting:
            await self._settle(*waiting.popleft(), results, ids, versions)
        return results

    def _submit(self, caller: Caller, run: list[tuple[int, Edit]], waiting: "deque[_Run]") -> None:
        if run:
            edits = [edit for _, edit in run]
            waiting.append((run, self.records.submit_each(caller.application, caller.user_id or "", edits)))

    async def _settle(
        self,
        run: list[tuple[int, Edit]],
        done: "asyncio.Future[list[Record | Exception | None]]",
        results: list[bytes],
        ids: dict[int, str],
        versions: bool,
    ) -> None:
        try:
            outcomes = await done
        except Exception as error:
            outcomes = [error] * len(run)
        for (position, edit), outcome in zip(run, outcomes, strict=True):
            if isinstance(outcome, Exception):
                results[position] = self._refused(outcome)
                continue
            results[position] = _result(edit, outcome if versions else None)
            if edit.kind is EditKind.CREATE:
                ids[position] = edit.id

    def _target(self, caller: Caller, path: str) -> tuple[Model, str | None]:
        """The model that a path names, and the id of an instance if it does."""
        segments = path.removeprefix("/v1").split("/")
        if len(segments) not in (3, 4) or segments[0] or segments[1] != "data":
            raise NotFound(f"A batch takes /data/<model> and /data/<model>/<id>, not '{path[:100]}'")
        name = segments[2]
        model = self.records.model(caller.application, unquote(name) if "%" in name else name)
        return model, unquote(segments[3]) if len(segments) == 4 else None

    def _edit(self, caller: Caller, operation: Operation) -> Edit:
        model, id = self._target(caller, operation.path)
        if id is None:
            if operation.method != "POST":
                raise BadRequest("Only POST creates an instance")
            raise_unless_creator(self.permissions, caller, model)
            chosen, checked = new_instance(model, _body(operation))
            raise_unless_creator(self.permissions, caller, model, checked)
            if chosen is not None:
                raise_if_anothers(self.records, caller, model, chosen)
            return Edit(EditKind.CREATE, model, chosen or self.records.new_id(), checked, operation.if_match)
        values: dict[str, Any] = {}
        faults: dict[str, str] = {}
        match operation.method:
            case "PUT" | "PATCH":
                values, faults = model.check_update(_body(operation))
                kind = EditKind.UPDATE
            case "DELETE":
                kind = EditKind.DELETE
            case _:
                raise BadRequest("A batch takes GET, POST, PUT, PATCH and DELETE")
        if faults:
            raise ValidationFailed(faults)
        guard = write_guard(self.permissions, caller, model, kind.value)
        return Edit(kind, model, id, values, operation.if_match, guard)

    def _as_api_error(self, error: Exception) -> ApiError:
        known = from_exception(error, self.error_table)
        if known is None:
            raise error
        return known

    def _refused(self, error: Exception) -> bytes:
        known = self._as_api_error(error)
        return _encode({"status": known.status, "body": s1_form(known)})


def has_references(operation: Operation) -> bool:
    """Whether an operation may name what others made: cheap, so that most are not looked at any closer."""
    return b'"$' in bytes(operation.body) or "/$" in operation.path


def refer(operation: Operation, ids: Mapping[int, str], position: int) -> Operation:
    """The operation with the ids that it refers to: `$N.instance_id` is that of operation N, which has created one.

    A string that shall begin so is written with one more `$`. Raises `ValidationFailed` naming every fault.
    """
    if not has_references(operation):
        return operation
    faults: dict[str, str] = {}

    def told(text: str, where: str) -> str:
        if not text.startswith("$"):
            return text
        if _ESCAPED.fullmatch(text):
            return text[1:]
        match = _REFERENCE.fullmatch(text)
        if match is None:
            return text
        number = int(match[1])
        if number not in ids:
            what = "must come before it" if number >= position else "created no instance"
            faults[where] = f"Operation {number}, to which {text} refers, {what}"
            return text
        return ids[number]

    def replaced(value: Any, where: str) -> Any:
        if type(value) is str:
            return told(value, where)
        if type(value) is list:
            return [replaced(item, where) for item in value]
        if type(value) is dict:
            return {name: replaced(item, where) for name, item in value.items()}
        return value

    path = "/".join(told(segment, "path") for segment in operation.path.split("/"))
    body = operation.body
    if b'"$' in bytes(body):
        content = _body(operation)
        body = msgspec.Raw(_encode({name: replaced(value, name) for name, value in content.items()}))
    if faults:
        raise ValidationFailed(faults)
    return Operation(operation.method, path, body, operation.if_match)


def _body(operation: Operation) -> dict[str, Any]:
    try:
        return _decode_body(operation.body)
    except msgspec.ValidationError:
        raise ValidationFailed({"body": "Must be an object"}) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"The body of the operation is not JSON: {error}") from None


def _in_one(refusals: list[ApiError], faults: dict[str, str]) -> ApiError:
    """What an atomic batch answers to several refusals: what all of them are, or that the request is not valid."""
    first = refusals[0]
    if first.status == 400 or any(refusal.code != first.code for refusal in refusals):
        return ValidationFailed(faults)
    return ApiError(first.status, first.code, first.message, faults, first.headers)


def _gather(faults: dict[str, str], position: int, error: ApiError) -> None:
    for name, fault in (error.details or {"": error.message}).items():
        faults[f"operations[{position}]" + (f".{name}" if name else "")] = fault


def _result(edit: Edit, record: Record | None) -> bytes:
    """The answer to a write that was done, with the version of its record where one is given."""
    version = b"" if record is None else b',"version":"%b"' % record.version.encode()
    if edit.kind is EditKind.CREATE:
        return b'{"status":201,"body":{"message":"Instance created successfully","instance_id":"%b"}%b}' % (
            edit.id.encode(),
            version,
        )
    if edit.kind is EditKind.UPDATE:
        return b'{"status":200,"body":{"message":"Instance updated successfully"}%b}' % version
    return b'{"status":204,"body":null}'
