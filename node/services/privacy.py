"""What people may ask about data of theirs: all of it, what they have agreed to, and that it got into wrong hands.

Room: exports, consents, breach notices and how long documents are kept. Erasing is `erasing`'s.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from node.services.accounts import Account
from node.services.api_keys import ApiKeys
from node.services.breach_notices import Notice, read_notice
from node.services.erasing import Erasing, Item
from node.services.history import Histories
from node.services.local import LocalStore
from node.services.privacy_models import BREACH, CONSENT, RETENTION
from node.services.records import Records, Rendered
from node.services.refusals import InvalidFields, UnknownNames
from node.services.sessions import SESSION
from node.services.webhooks import Webhooks
from protocol.query import parse_query
from protocol.schema import Model
from protocol.schema_check import check_integer
from protocol.times import datetime_from_ms
from storage.catalog import Catalog
from storage.store import Store

CONSENTS_MAX = 100
BREACHES_MAX = 10_000  # read at most, the newest first
AFFECTED_MAX = 10_000
DESCRIPTION_MAX = 10_000
HISTORY_SHOWN = 100
SEVERITIES = ("low", "medium", "high", "critical")
DAYS_MAX = 36_500
RETIRED_MAX = 5_000  # at a time
_CONSENT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
CONSENTS_RESERVED = frozenset({"id", "updated_at", "history"})
_PAGE = 200
_DAY_MS = 86_400_000

Json = dict[str, Any]


class Privacy:
    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        records: Records,
        local: LocalStore,
        api_keys: ApiKeys,
        webhooks: Webhooks,
        erasing: Erasing,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._records = records
        self._local = local
        self._api_keys = api_keys
        self._webhooks = webhooks
        self._erasing = erasing
        self._now_ms = now_ms
        self._histories = Histories(store, records)

    # -- all of it

    async def export(
        self, account: Account, profile: Json, opened: Callable[[Model, Rendered], Rendered]
    ) -> AsyncIterator[bytes]:
        """Everything about an account as one JSON object, in pieces: what it made, by model, and no secret.

        `opened` shows what whoever asks can open of a document. Sessions and webhooks are those of this node.
        """
        application, user = account.application, account.id
        facts = {
            "exported_at": datetime_from_ms(self._now_ms()),
            "userProfile": profile,
            "userData": {},
            "consents": await self.consents(application, user),
            "sessions": self._sessions(application, user),
            "apiKeys": [
                {
                    "id": key.id,
                    "name": key.name,
                    "scopes": list(key.scopes.words),
                    "created_at": datetime_from_ms(key.created_at_ms),
                    "expires_at": None if key.expires_ms is None else datetime_from_ms(key.expires_ms),
                }
                for key in await self._api_keys.of_user(application, user)
            ],
            "webhooks": [
                {
                    "id": hook.id,
                    "url": hook.url,
                    "events": list(hook.events),
                    "created_at": datetime_from_ms(hook.created_ms),
                }
                for hook in self._webhooks.of_user(application, user)
            ],
            "breaches": [breach async for breach in self.breaches(application, user=user)],
        }
        items: list[Item] = await self._records.in_pool(self._erasing.created_by, application, user)
        by_model: dict[str, list[str]] = {}
        for model_id, id in items:
            by_model.setdefault(model_id, []).append(id)
        userdata = self._records.builtin(application, "$userdata")
        kept = [self._records.get(userdata, id) for id in by_model.get(userdata.id, ())]
        facts["userData"] = {record.values["key"]: record.values.get("value") for record in kept if record}
        yield _json(facts)[:-1] + b',"documents":{'
        separator = b""
        for model in self._catalog.models_of(application):
            if model.id in by_model:
                yield separator + json.dumps(model.name).encode() + b":["
                async for piece in self._documents(model, by_model[model.id], opened):
                    yield piece
                yield b"]"
                separator = b","
        yield b"}}"

    async def _documents(
        self, model: Model, ids: list[str], opened: Callable[[Model, Rendered], Rendered]
    ) -> AsyncIterator[bytes]:
        separator = b""
        for start in range(0, len(ids), _PAGE):
            some = ids[start : start + _PAGE]
            shown = self._records.rendered_by_id(model, some)
            pieces = [opened(model, document).json for document in shown.values()]
            hidden = self._records.quarantined(model, [id for id in some if id not in shown])
            pieces += [_json({**record.facts(), "quarantined": True}) for record in hidden]
            for piece in pieces:
                yield separator + piece
                separator = b","
            await asyncio.sleep(0)  # others have their turn

    def _sessions(self, application: str, user: str) -> list[Json]:
        """Of this node: others do not know them."""
        return [
            {"id": key, "expires_at": datetime_from_ms(entry["expires_ms"])}
            for key, entry in self._local.scan(SESSION)
            if (entry.get("user"), entry.get("application")) == (user, application)
        ]

    # -- consent

    async def consents(self, application: str, user: str) -> Json:
        """What a user has agreed to and refused, by name, with when and the last changes."""
        model = self._records.builtin(application, CONSENT)
        record = self._records.get(model, user)
        if record is None:
            return {"id": user, "updated_at": None, "history": []}
        history = await self._histories.page(model, user, page=1, per_page=HISTORY_SHOWN, cursor=None)
        told = [
            {"at": item["at"], "node": item["node"], "consents": operation["values"]}
            for item in (history.items if history is not None else ())
            for operation in item["operations"]
            if operation["op"] == "set"
        ]
        given = {name: value for name, value in record.values.items() if isinstance(value, bool)}
        return {**given, "id": user, "updated_at": datetime_from_ms(record.updated_at_ms), "history": told}

    async def put_consents(self, application: str, user: str, given: Mapping[str, Any]) -> Json:
        """Note what a user agrees to and refuses. Raises `InvalidFields`."""
        faults = {
            name: "Must be true or false" if _CONSENT.match(name) else "Not the name of a consent"
            for name, value in given.items()
            if not isinstance(value, bool) or name in CONSENTS_RESERVED or not _CONSENT.match(name)
        }
        model = self._records.builtin(application, CONSENT)
        record = self._records.get(model, user)
        names = {*given, *(record.values if record is not None else ())}
        if not given:
            faults["consents"] = "Name at least one consent, as true or false"
        elif len(names) > CONSENTS_MAX:
            faults["consents"] = f"Must be at most {CONSENTS_MAX} in all"
        if faults:
            raise InvalidFields(faults)
        await self._records.put(model, user, dict(given), user=user)
        return await self.consents(application, user)

    # -- breaches

    async def report_breach(self, application: str, told: Mapping[str, Any], *, user: str) -> Json:
        """Let users know that data of theirs got into wrong hands. Raises `InvalidFields`, or `UnknownNames` if
        nothing is wrong but that there are no such users."""
        affected, text, severity = (
            told.get("affected_user_ids"),
            told.get("description"),
            told.get("severity", "high"),
        )
        faults: dict[str, str] = {}
        unknown: dict[str, str] = {}
        if not isinstance(affected, list) or not affected or not all(isinstance(id, str) for id in affected):
            faults["affected_user_ids"] = "Must be a list of user ids"
        elif len(affected) > AFFECTED_MAX:
            faults["affected_user_ids"] = f"Must be at most {AFFECTED_MAX}"
        else:
            unknown = {
                f"affected_user_ids[{number}]": f"There is no user {id[:64]}"
                for number, id in enumerate(affected)
                if not self._has_account(application, id)
            }
        if not isinstance(text, str) or not 0 < len(text) <= DESCRIPTION_MAX:
            faults["description"] = f"Must be a text of 1 to {DESCRIPTION_MAX} characters"
        if severity not in SEVERITIES:
            faults["severity"] = f"Must be one of: {', '.join(SEVERITIES)}"
        if faults:
            raise InvalidFields(faults | unknown)
        if unknown:
            raise UnknownNames(unknown)
        assert isinstance(affected, list)
        values = {"affected": sorted(set(affected)), "description": text, "severity": severity}
        model = self._records.builtin(application, BREACH)
        return read_notice(await self._records.create(model, values, user=user)).whole

    def _has_account(self, application: str, id: str) -> bool:
        return self._records.get(self._records.builtin(application, "$account"), id) is not None

    def breach(self, application: str, id: str) -> Notice | None:
        """A notice, None if it is not there (any more)."""
        record = self._records.get(self._records.builtin(application, BREACH), id)
        return None if record is None else read_notice(record)

    async def breaches(self, application: str, *, user: str | None) -> AsyncIterator[Json]:
        """Those that concern a user, or all if None: the newest first."""
        model = self._records.builtin(application, BREACH)
        params = {"per_page": "100", "order": "desc"}
        for _ in range(BREACHES_MAX // 100):
            found, _total, cursor = await self._records.find_records(model, parse_query(params, model))
            for notice in map(read_notice, found):
                if user is None:
                    yield notice.whole
                elif user in notice.affected:
                    yield notice.said
            if cursor is None:
                return
            params["cursor"] = cursor

    # -- how long documents are kept

    def retention(self, application: str) -> dict[str, int]:
        """Days for which documents are kept after their last change, by name of model; others are kept."""
        model, found = self._records.builtin(application, RETENTION), dict[str, int]()
        for kept in self._catalog.models_of(application):
            record = self._records.get(model, kept.id)
            days = record.values.get("days") if record is not None else None
            if isinstance(days, int) and 0 < days <= DAYS_MAX:
                found[kept.name] = days
        return found

    async def put_retention(self, application: str, told: Mapping[str, Any], *, user: str) -> dict[str, int]:
        """Set or, with null, end how long documents of models are kept. Raises `InvalidFields`, or `UnknownNames` if
        nothing is wrong but that there are no such models."""
        faults: dict[str, str] = {}
        unknown: dict[str, str] = {}
        models = {model.name: model for model in self._catalog.models_of(application)}
        told = {name: check_integer(days) if type(days) is float else days for name, days in told.items()}
        for name, days in told.items():
            if name not in models:
                unknown[name] = f"There is no data model '{name[:64]}'"
            if days is not None and (type(days) is not int or not 0 < days <= DAYS_MAX):
                faults[name] = f"Must be a number of days from 1 to {DAYS_MAX}, or null"
        if faults:
            raise InvalidFields(unknown | faults)
        if unknown:
            raise UnknownNames(unknown)
        model = self._records.builtin(application, RETENTION)
        for name, days in told.items():
            await self._records.put(model, models[name].id, {"days": days}, user=user)
        return self.retention(application)

    async def retire(self, *, user: str) -> int:
        """Erase what has been kept long enough, `RETIRED_MAX` documents at a time; how many. An administrator's node
        alone does it: what others wrote is erased by none else."""
        count = 0
        for application in self._catalog.applications():
            if not self._erasing.may_erase_all(application):
                continue
            for name, days in self.retention(application).items():
                model = self._catalog.find(application, name)
                assert model is not None
                before_ms = self._now_ms() - days * _DAY_MS
                old = await self._records.in_pool(self._older, model, before_ms)
                if old:
                    await self._erasing.erase(application, "retention", old, user=user)
                    count += len(old)
        return count

    def _older(self, model: Model, before_ms: int) -> list[Item]:
        found: list[Item] = []
        with self._store.read() as snapshot:
            for document in snapshot.documents.all_of(self._store.space(model.application), model.id):
                if not document.is_erased and 0 < document.updated_hlc >> 16 < before_ms:
                    found.append((model.id, document.id))
                    if len(found) == RETIRED_MAX:
                        break
        return found


def _json(content: Json) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
