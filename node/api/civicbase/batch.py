"""Many operations in one call (seed S1, "Batch Operations"; CONTRACT S1).

Room: from a list of operations to edits. Atomic by default: one signed commit, all or nothing. With
`"atomic": false` each operation stands for itself, and the work is done in slices so that an import leaves the
event loop and the writer to others in between.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from node.api.civicbase.data import write_guard
from node.api.errors import ApiError, BadRequest, ErrorTable, NotFound, ValidationFailed, from_exception, s1_form
from node.api.replies import json_response
from node.api.requests import parse_json, read_body
from node.api.routes import CALLER, Caller, Route
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.changes import Edit, EditKind, Record
from protocol.limits import BODIES_PER_COMMIT_MAX

OPERATIONS_MAX = BODIES_PER_COMMIT_MAX
SLICE = 64  # operations prepared before others get their turn: half a millisecond of the loop
IN_FLIGHT_MAX = 512
_MESSAGES = {
    EditKind.CREATE: (201, "Instance created successfully"),
    EditKind.UPDATE: (200, "Instance updated successfully"),
    EditKind.DELETE: (204, None),
}


class Operation(msgspec.Struct):
    """`path` is that of the single request, with or without `/v1`."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    if_match: str | None = None


class BatchRequest(msgspec.Struct):
    operations: list[Operation]
    atomic: bool = True


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

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v1/batch", self.batch, "Do many operations in one call", tags=("Data",),
                  request=BatchRequest, responses={200: RESULTS}),
        ]  # fmt: skip

    async def batch(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        asked = parse_json(await read_body(request), BatchRequest)
        if not 0 < len(asked.operations) <= OPERATIONS_MAX:
            raise ValidationFailed({"operations": f"Must hold 1 to {OPERATIONS_MAX} operations"})
        results = await (self._atomic if asked.atomic else self._each)(caller, asked.operations)
        return json_response({"results": results})

    async def _atomic(self, caller: Caller, operations: list[Operation]) -> list[dict[str, Any]]:
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
        records = await self.records.apply(caller.application, caller.user_id or "", edits)
        return [_result(edit, record) for edit, record in zip(edits, records, strict=True)]

    async def _each(self, caller: Caller, operations: list[Operation]) -> list[dict[str, Any]]:
        results: list[dict[str, Any] | None] = [None] * len(operations)
        waiting: list[tuple[int, Edit, asyncio.Future[list[Record | None]]]] = []
        for position, operation in enumerate(operations):
            try:
                edit = self._edit(caller, operation)
                waiting.append((position, edit, self.records.submit(caller.application, caller.user_id or "", [edit])))
            except Exception as error:
                results[position] = self._refused(error)
            if position % SLICE == SLICE - 1:
                if len(waiting) >= IN_FLIGHT_MAX:
                    await self._settle(waiting, results, leave=IN_FLIGHT_MAX // 2)
                await asyncio.sleep(0)
        await self._settle(waiting, results, leave=0)
        return results  # type: ignore[return-value]  # every position has its result by now

    async def _settle(self, waiting: list[tuple[int, Edit, "asyncio.Future[list[Record | None]]"]],
                      results: list[dict[str, Any] | None], *, leave: int) -> None:
        done, waiting[:] = waiting[: len(waiting) - leave], waiting[len(waiting) - leave :]
        for position, edit, future in done:
            try:
                results[position] = _result(edit, (await future)[0])
            except Exception as error:
                results[position] = self._refused(error)

    def _edit(self, caller: Caller, operation: Operation) -> Edit:
        segments = operation.path.removeprefix("/v1").split("/")
        if len(segments) not in (3, 4) or segments[0] or segments[1] != "data":
            raise NotFound(f"A batch takes /data/<model> and /data/<model>/<id>, not '{operation.path[:100]}'")
        model = self.records.model(caller.application, unquote(segments[2]))
        if len(segments) == 3:
            if operation.method != "POST":
                raise BadRequest("Only POST creates an instance")
            self.permissions.raise_unless(caller, model, "create")
            values, faults = model.check_create(_body(operation))
            kind, id = EditKind.CREATE, self.records.new_id()
            guard = None
        else:
            id = unquote(segments[3])
            match operation.method:
                case "PUT":
                    values, faults = model.check_update(_body(operation))
                    kind = EditKind.UPDATE
                case "DELETE":
                    values, faults, kind = {}, {}, EditKind.DELETE
                case _:
                    raise BadRequest("A batch takes POST, PUT and DELETE")
            guard = write_guard(self.permissions, caller, model, kind.value)
        if faults:
            raise ValidationFailed(faults)
        return Edit(kind, model, id, values, operation.if_match, guard)

    def _as_api_error(self, error: Exception) -> ApiError:
        known = from_exception(error, self.error_table)
        if known is None:
            raise error
        return known

    def _refused(self, error: Exception) -> dict[str, Any]:
        known = self._as_api_error(error)
        return {"status": known.status, "body": s1_form(known)}


def _body(operation: Operation) -> dict[str, Any]:
    if operation.body is None:
        raise ValidationFailed({"body": "This field is required"})
    return operation.body


def _gather(faults: dict[str, str], position: int, error: ApiError) -> None:
    for name, fault in (error.details or {"": error.message}).items():
        faults[f"operations[{position}]" + (f".{name}" if name else "")] = fault


def _result(edit: Edit, record: Record | None) -> dict[str, Any]:
    status, message = _MESSAGES[edit.kind]
    if edit.kind is EditKind.CREATE:
        return {"status": status, "body": {"message": message, "instance_id": edit.id}}
    return {"status": status, "body": None if message is None else {"message": message}}
