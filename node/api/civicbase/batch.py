"""Many operations in one call (seed S1, "Batch Operations"; CONTRACT S1).

Room: from a list of operations to edits. Atomic by default: one signed commit, all or nothing. With
`"atomic": false` each operation stands for itself, and the work is done in slices, so that an import leaves
the event loop and the writer to others in between.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from node.api.civicbase.data import new_instance, raise_if_anothers, raise_unless_creator, write_guard
from node.api.civicbase.receipts import PREFER_NOTE, PeerReceipts
from node.api.errors import (
    ApiError,
    BadRequest,
    ErrorTable,
    NotFound,
    ValidationFailed,
    from_exception,
    s1_form,
)
from node.api.replies import Reply
from node.api.requests import parse_json, read_body
from node.api.routes import CALLER, Caller, KeyAccess, Route
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.changes import Edit, EditKind, Record
from protocol.limits import BODIES_PER_COMMIT_MAX

OPERATIONS_MAX = BODIES_PER_COMMIT_MAX
SLICE = 16  # operations prepared before others get their turn: about 0.2 ms of the event loop
RUN = 64  # independent operations that are handed to the writer together
IN_FLIGHT_MAX = 8  # of those runs
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
                    "method": {"type": "string", "enum": ["POST", "PUT", "DELETE"]},
                    "path": {"type": "string"},
                    "body": {"type": ["object", "null"]},
                    "if_match": {"type": ["string", "null"]},
                },
            },
            "minItems": 1,
            "maxItems": OPERATIONS_MAX,
        },
        "atomic": {"type": "boolean", "default": True},
    },
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
                "properties": {"status": {"type": "integer"}, "body": {}},
            },
        }
    },
}


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
                description=PREFER_NOTE,
            ),
        ]

    async def batch(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        asked = parse_json(await read_body(request), BatchRequest)
        if not 0 < len(asked.operations) <= OPERATIONS_MAX:
            raise ValidationFailed({"operations": f"Must hold 1 to {OPERATIONS_MAX} operations"})
        results = await (self._atomic if asked.atomic else self._each)(caller, asked.operations)
        headers = await self.receipts.headers(request, caller.application)
        return Reply(b'{"results":[%b]}' % b",".join(results), headers=headers)

    async def _atomic(self, caller: Caller, operations: list[Operation]) -> list[bytes]:
        edits: list[Edit] = []
        faults: dict[str, str] = {}
        for position, operation in enumerate(operations):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            try:
                edits.append(self._edit(caller, operation))
            except Exception as error:
                _gather(faults, position, self._as_api_error(error))
        if faults:
            raise ValidationFailed(faults)
        await self.records.apply(caller.application, caller.user_id or "", edits)
        return [_result(edit) for edit in edits]

    async def _each(self, caller: Caller, operations: list[Operation]) -> list[bytes]:
        results: list[bytes] = [b""] * len(operations)
        run: list[tuple[int, Edit]] = []
        waiting: deque[tuple[list[tuple[int, Edit]], asyncio.Future[list[Record | Exception | None]]]] = (
            deque()
        )
        for position, operation in enumerate(operations):
            try:
                run.append((position, self._edit(caller, operation)))
            except Exception as error:
                results[position] = self._refused(error)
            if len(run) == RUN or (run and position == len(operations) - 1):
                edits = [edit for _, edit in run]
                waiting.append(
                    (run, self.records.submit_each(caller.application, caller.user_id or "", edits))
                )
                run = []
                if len(waiting) > IN_FLIGHT_MAX:
                    await self._settle(*waiting.popleft(), results)
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        while waiting:
            await self._settle(*waiting.popleft(), results)
        return results

    async def _settle(
        self,
        run: list[tuple[int, Edit]],
        done: "asyncio.Future[list[Record | Exception | None]]",
        results: list[bytes],
    ) -> None:
        try:
            outcomes = await done
        except Exception as error:
            outcomes = [error] * len(run)
        for (position, edit), outcome in zip(run, outcomes, strict=True):
            failed = isinstance(outcome, Exception)
            results[position] = self._refused(outcome) if failed else _result(edit)  # type: ignore[arg-type]

    def _edit(self, caller: Caller, operation: Operation) -> Edit:
        segments = operation.path.removeprefix("/v1").split("/")
        if len(segments) not in (3, 4) or segments[0] or segments[1] != "data":
            raise NotFound(
                f"A batch takes /data/<model> and /data/<model>/<id>, not '{operation.path[:100]}'"
            )
        name = segments[2]
        model = self.records.model(caller.application, unquote(name) if "%" in name else name)
        if len(segments) == 3:
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
            case "PUT":
                values, faults = model.check_update(_body(operation))
                kind = EditKind.UPDATE
            case "DELETE":
                kind = EditKind.DELETE
            case _:
                raise BadRequest("A batch takes POST, PUT and DELETE")
        if faults:
            raise ValidationFailed(faults)
        guard = write_guard(self.permissions, caller, model, kind.value)
        return Edit(kind, model, unquote(segments[3]), values, operation.if_match, guard)

    def _as_api_error(self, error: Exception) -> ApiError:
        known = from_exception(error, self.error_table)
        if known is None:
            raise error
        return known

    def _refused(self, error: Exception) -> bytes:
        known = self._as_api_error(error)
        return _encode({"status": known.status, "body": s1_form(known)})


def _body(operation: Operation) -> dict[str, Any]:
    try:
        return _decode_body(operation.body)
    except msgspec.ValidationError:
        raise ValidationFailed({"body": "Must be an object"}) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(f"The body of the operation is not JSON: {error}") from None


def _gather(faults: dict[str, str], position: int, error: ApiError) -> None:
    for name, fault in (error.details or {"": error.message}).items():
        faults[f"operations[{position}]" + (f".{name}" if name else "")] = fault


def _result(edit: Edit) -> bytes:
    if edit.kind is EditKind.CREATE:
        return (
            b'{"status":201,"body":{"message":"Instance created successfully","instance_id":"%b"}}'
            % edit.id.encode()
        )
    if edit.kind is EditKind.UPDATE:
        return b'{"status":200,"body":{"message":"Instance updated successfully"}}'
    return b'{"status":204,"body":null}'
