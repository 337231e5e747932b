"""Export and import of records as files (seed S1, "Data Export and Import").

Room: from requests to `services.exporting` and `services.importing`, and their answers. What is exported is
streamed; what is uploaded is kept in the data directory until it has been read, whatever its size.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any

import msgspec
from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from node.api.errors import (
    ApiError,
    BadRequest,
    ErrorTable,
    Forbidden,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    ValidationFailed,
    from_exception,
    s1_form,
)
from node.api.replies import json_response
from node.api.requests import BODY_PAUSE_S, read_json
from node.api.routes import CALLER, Caller, KeyAccess, Route
from node.services.exporting import Exports
from node.services.importing import Asked, Imports, Mode, Outcome, RowRefused
from node.services.models import Models
from node.services.permissions import Limit, Permissions
from node.services.record_files import Format, Source, Unreadable, open_source
from node.services.records import Records
from protocol.schema import Model
from storage.errors import UnknownModel

TAG = ("Data",)
SIGNED = "signed"
UPLOAD_PREFIX = "import-"  # of files in the data directory that are being read
UPLOAD_MAX_BYTES = 1 << 30
MODELS_MAX = 100
FIELD_MAX_BYTES = 1024
FIELDS = ("model", "format", "mode", "id_field", "dry_run")
PROGRESS_S = 0.2  # between two lines of progress
STALL_S = 30.0  # how long who reads an answer may take nothing
_TYPES = {Format.JSON: "application/json", Format.NDJSON: "application/x-ndjson", Format.CSV: "text/csv"}
_LINES = "application/x-ndjson"
_SIGNED_TYPE = "application/cbor-seq"

EXPORT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "models": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MODELS_MAX,
            "description": "Names or ids; without it every model of which you may read something",
        },
        "format": {"type": "string", "enum": [*Format, SIGNED], "default": "json"},
    },
    "additionalProperties": False,
    "anyOf": [
        {"properties": {"format": {"enum": [Format.JSON, Format.NDJSON]}}},
        {
            "required": ["format", "models"],
            "properties": {"format": {"const": Format.CSV}, "models": {"type": "array", "maxItems": 1}},
        },
        {"required": ["format"], "properties": {"format": {"const": SIGNED}, "models": {"type": "null"}}},
    ],
}
IMPORT: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string", "description": "The model of records that do not say theirs"},
        "format": {"type": "string", "enum": [*Format]},
        "mode": {"type": "string", "enum": [*Mode], "default": "create"},
        "id_field": {"type": "string", "default": "id"},
        "dry_run": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "additionalProperties": False,
}
IMPORTED: dict[str, Any] = {
    "type": "object",
    "required": ["message", "rows", "created", "updated", "failed", "faults", "dry_run"],
    "properties": {
        "message": {"type": "string"},
        "rows": {"type": "integer"},
        "created": {"type": "integer"},
        "updated": {"type": "integer"},
        "failed": {"type": "integer"},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["row", "place", "error"],
                "properties": {
                    "row": {"type": "integer"},
                    "place": {"type": "string"},
                    "error": {"type": "string"},
                    "error_code": {"type": "string"},
                    "details": {"type": "object"},
                },
            },
        },
        "dry_run": {"type": "boolean"},
    },
}
_EXPORT_NOTE = """The records that you may read, as they all were at one moment. `json` is an object of arrays, by
model; `ndjson` a line `{"model", "data"}` for each record; `csv` takes one model. An export that breaks off ends
without the end of its encoding (an error to HTTP clients), never as if it were whole. `signed`, for administrators, is
the log of the whole application with every signature: `civicnode verify FILE` checks it without a node."""
_IMPORT_NOTE = f"""A form with the file, of at most {UPLOAD_MAX_BYTES >> 20} MiB, in any form that an export has, or a
JSON array of records. Each row stands for itself: those that fail are named with their number (the first 1,000), the
others are stored. With `mode` `upsert` a row whose id is there changes the fields that it gives. `dry_run` `true`
stores nothing and says what would become of each row, but for values that must be unique. With `Accept:
application/x-ndjson` the answer is lines of `progress` and a last one, `result`."""
_encode = msgspec.json.Encoder().encode


class ExportRequest(msgspec.Struct, forbid_unknown_fields=True):
    models: list[str] | None = None
    format: str = "json"


@dataclass(slots=True)
class _Form:
    """What came of a multipart body: its fields, and the file where it was written."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class TransferRoutes:
    records: Records
    models: Models
    permissions: Permissions
    exports: Exports
    imports: Imports
    error_table: ErrorTable
    directory: Path

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/v1/export",
                self.export,
                "Export the records of models as a file",
                tags=TAG,
                key_access=KeyAccess.DATA,
                request=EXPORT,
                responses={200: {}},
                also_answers=(*_TYPES.values(), _SIGNED_TYPE),
                description=_EXPORT_NOTE,
            ),
            Route(
                "POST",
                "/v1/import",
                self.import_,
                "Import records from a file",
                tags=TAG,
                key_access=KeyAccess.DATA,
                request=IMPORT,
                accepts=("multipart/form-data",),
                body_max_bytes=UPLOAD_MAX_BYTES,
                responses={200: IMPORTED},
                also_answers=(_LINES,),
                description=_IMPORT_NOTE,
            ),
        ]

    # -- export

    async def export(self, request: web.Request) -> web.StreamResponse:
        asked = await read_json(request, ExportRequest)
        caller = request[CALLER]
        faults: dict[str, str] = {}
        if asked.format == SIGNED:
            if not caller.is_admin:
                raise Forbidden("A signed export holds all of the application: it is for administrators")
            if asked.models is not None:
                raise ValidationFailed({"models": "A signed export holds all models"})
            headers: dict[str, str] = {
                hdrs.CONTENT_TYPE: _SIGNED_TYPE,
                hdrs.CONTENT_DISPOSITION: 'attachment; filename="export.signed"',
            }
            return await _stream(request, self.exports.archive(caller.application), headers)
        if asked.format not in [*Format]:
            faults["format"] = f"Invalid option. Must be one of: {', '.join([*Format, SIGNED])}"
        if asked.models is not None and not 1 <= len(asked.models) <= MODELS_MAX:
            faults["models"] = f"Must name 1 to {MODELS_MAX} models"
        unknown: dict[str, str] = {}
        models = self._asked_models(caller, asked.models, unknown)
        if asked.format == Format.CSV and len(models) != 1 and not (faults or unknown):
            faults["models"] = "csv takes one model"
        if faults:
            raise ValidationFailed(faults | unknown)
        if unknown:
            raise NotFound("; ".join(unknown.values()), unknown)
        limits = {name: (model, self.permissions.reading(caller, model)) for name, model in models.items()}
        return await self._stream_export(request, caller, limits, Format(asked.format))

    def _asked_models(
        self, caller: Caller, names: list[str] | None, unknown: dict[str, str]
    ) -> dict[str, Model]:
        """The models of these names, all if None; those that are not there go to `unknown`."""
        if names is None:
            every = self.models.all_of(caller.application)
            return {m.name: m for m in every if self.permissions.may_ever(caller, m, "read")}
        found: dict[str, Model] = {}
        for number, name in enumerate(names[:MODELS_MAX]):
            try:
                model = self.records.model(caller.application, name)
            except UnknownModel as error:
                unknown[f"models[{number}]"] = str(error)
            else:
                found.setdefault(model.name, model)
        return found

    async def _stream_export(
        self,
        request: web.Request,
        caller: Caller,
        models: dict[str, tuple[Model, Limit | None]],
        format: Format,
    ) -> web.StreamResponse:
        sealing = self.records.sealing
        opener = None if sealing is None else sealing.opener(caller.user_id, caller.session_id)
        disposition = f'attachment; filename="export.{format}"'
        headers: dict[str, str] = {hdrs.CONTENT_TYPE: _TYPES[format], hdrs.CONTENT_DISPOSITION: disposition}
        return await _stream(request, self.exports.chunks(models, format, opener), headers)

    # -- import

    async def import_(self, request: web.Request) -> web.StreamResponse:
        with tempfile.NamedTemporaryFile(prefix=UPLOAD_PREFIX, dir=self.directory) as file:
            form = await _read_form(request, file)
            file.flush()
            asked = self._asked_import(request[CALLER], form, Path(file.name))
            outcomes = self.imports.run(request[CALLER], asked)
            async with aclosing(outcomes):
                if _LINES in request.headers.get(hdrs.ACCEPT, ""):
                    return await self._stream_outcomes(request, outcomes, asked)
                outcome = Outcome()
                async for so_far in outcomes:
                    outcome = so_far
        return json_response(self._result(outcome, asked))

    def _asked_import(self, caller: Caller, form: _Form, path: Path) -> Asked:
        fields = form.fields
        faults = {name: "Unknown field" for name in fields if name not in FIELDS}
        for name, options in (("format", [*Format]), ("mode", [*Mode]), ("dry_run", ["true", "false"])):
            if fields.get(name, options[0]) not in options:
                faults[name] = f"Invalid option. Must be one of: {', '.join(options)}"
        source: Source | None = None
        if form.filename is None:
            faults["file"] = "This field is required"
        elif "format" not in faults:
            chosen = Format(fields["format"]) if "format" in fields else None
            try:
                extension = PurePath(form.filename).suffix
                source = open_source(path, name="the file", extension=extension, chosen=chosen)
            except Unreadable as fault:
                faults["file"] = fault.message
        unknown: dict[str, str] = {}
        try:
            if "model" in fields:
                self.records.model(caller.application, fields["model"])
        except UnknownModel as error:
            unknown["model"] = str(error)
        if faults or source is None:
            raise ValidationFailed(faults | unknown)
        if unknown:
            raise NotFound(unknown["model"], unknown)
        return Asked(
            source,
            fields.get("model"),
            Mode(fields.get("mode", "create")),
            fields.get("id_field", "id"),
            fields.get("dry_run") == "true",
        )

    def _result(self, outcome: Outcome, asked: Asked) -> dict[str, Any]:
        """The answer. Raises `ValidationFailed` with what was done if the file could not be read to its end."""
        counts = _counts(outcome)
        faults = [{"row": f.row, "place": f.place, **self._said(f.error)} for f in outcome.faults]
        if outcome.unreadable is not None:
            refusal = ValidationFailed({"file": outcome.unreadable})
            refusal.extra = {**counts, "faults": faults, "dry_run": asked.is_dry_run}
            raise refusal
        done = "Nothing was stored" if asked.is_dry_run else "Import completed"
        return {"message": done, **counts, "faults": faults, "dry_run": asked.is_dry_run}

    def _said(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, RowRefused):
            error = ValidationFailed(error.details)
        known = from_exception(error, self.error_table)
        assert known is not None, "the service raises what is unexpected"
        return s1_form(known)

    async def _stream_outcomes(
        self, request: web.Request, outcomes: AsyncIterator[Outcome], asked: Asked
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: _LINES})
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        outcome, said_at_s = Outcome(), loop.time()
        try:
            async for outcome in outcomes:
                if loop.time() - said_at_s >= PROGRESS_S:
                    said_at_s = loop.time()
                    await _write(response, _encode({"type": "progress", **_counts(outcome)}) + b"\n")
            try:
                last = {"type": "result", **self._result(outcome, asked)}
            except ApiError as refusal:
                last = {"type": "error", **s1_form(refusal)}
            await _write(response, _encode(last) + b"\n")
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            _abort(request)
        return response


def _counts(outcome: Outcome) -> dict[str, int]:
    return {name: getattr(outcome, name) for name in ("rows", "created", "updated", "failed")}


async def _stream(
    request: web.Request, stream: AsyncGenerator[bytes, None], headers: Mapping[str, str]
) -> web.StreamResponse:
    async with aclosing(stream) as chunks:
        first = await anext(chunks, b"")  # what cannot be begun is refused with an answer
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        try:
            await _write(response, first)
            async for chunk in chunks:
                await _write(response, chunk)
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            _abort(request)  # it takes nothing, or has gone
        except Exception:
            _abort(request)  # half a file must not look whole
            raise
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await response.write(data)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _read_form(request: web.Request, file: IO[bytes]) -> _Form:
    """The fields of a multipart body, its file written to `file`. Raises `ApiError`."""
    form = _Form()
    left = UPLOAD_MAX_BYTES
    try:
        parts = await request.multipart()
        while (part := await _timely(parts.next())) is not None:
            if not isinstance(part, BodyPartReader):
                raise BadRequest("A part of the form is a form itself")
            name = part.name or ""
            is_file = name == "file" or part.filename is not None
            if is_file and form.filename is not None:
                raise ValidationFailed({"file": "One file at a time"})
            value = bytearray()
            while chunk := await _timely(part.read_chunk(64 << 10)):
                left -= len(chunk)
                if left < 0:
                    raise PayloadTooLarge(size_max_bytes=UPLOAD_MAX_BYTES)
                if is_file:
                    file.write(chunk)
                elif len(value) + len(chunk) > FIELD_MAX_BYTES:
                    raise ValidationFailed({name: f"Must be at most {FIELD_MAX_BYTES} bytes"})
                else:
                    value += chunk
            if is_file:
                form.filename = part.filename or ""
            else:
                form.fields[name] = value.decode("utf-8", "replace")
            if len(form.fields) > 2 * len(FIELDS):
                raise BadRequest("The form has too many fields")
    except (HttpProcessingError, ValueError, AssertionError, LookupError) as error:
        raise BadRequest(f"The body is not multipart/form-data as its header says: {error}"[:300]) from None
    return form


async def _timely(reading: Any) -> Any:
    try:
        async with asyncio.timeout(BODY_PAUSE_S):
            return await reading
    except TimeoutError:
        raise RequestTimeout from None
