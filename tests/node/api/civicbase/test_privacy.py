"""What people may ask about data of theirs, over HTTP."""

import json
from pathlib import Path
from typing import Any

from tests.node.devices import Device, devices

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
NOTE = {"name": "Note", "fields": [{"name": "text", "type": "string"}]}
PATIENT = {"name": "Patient", "fields": [{"name": "ssn", "type": "string", "encrypted": True}]}
CONSENT = "/v1/privacy/consent"
BREACHES = "/v1/privacy/breaches"
RETENTION = "/v1/privacy/retention"
DAY_MS = 86_400_000


async def user_id(device: Device, token: str) -> str:
    return str((await device.ask("GET", "/v1/users/me", token=token)).json["user_id"])


async def test_an_export_holds_all_that_is_a_users_and_no_secret(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        for model in (TASK, NOTE, PATIENT):
            await ann.get("/v1/data-models", model, method="POST", status=201)
        token, other = await ann.sign_in("dora"), await ann.sign_in("other")
        for number in range(3):
            await ann.ask("POST", "/v1/data/Task", {"title": f"t{number}"}, token=token)
        await ann.ask("POST", "/v1/data/Task", {"title": "somebody else's"}, token=other)
        await ann.ask("POST", "/v1/data/Note", {"text": 'Grüße\n"so"'}, token=token)
        await ann.ask("POST", "/v1/users/me/data", {"key": "theme", "value": {"dark": True}}, token=token)
        await ann.ask("PUT", CONSENT, {"news": False}, token=token)
        await ann.ask("POST", "/v1/data/Patient", {"ssn": "123-45-6789"}, token=token)
        await ann.ask("POST", "/v1/api-keys", {"name": "reports", "scopes": ["read"]}, token=token)
        hook = {"url": "https://example.org/h", "events": ["Task.created"], "secret": "hook-secret"}
        for registering in (token, other):
            assert (await ann.ask("POST", "/v1/webhooks", hook, token=registering)).status == 201
        answer = await ann.ask("GET", "/v1/privacy/export", token=token)
        assert answer.status == 200
        told = json.loads(answer.text)
        assert sorted(item["title"] for item in told["documents"]["Task"]) == ["t0", "t1", "t2"]
        assert [item["text"] for item in told["documents"]["Note"]] == ['Grüße\n"so"']
        assert told["userProfile"]["email"] == "dora@example.org"
        assert told["consents"]["news"] is False
        assert len(told["sessions"]) == 1 and told["breaches"] == []
        assert [(key["name"], key["scopes"], key["expires_at"]) for key in told["apiKeys"]] == [
            ("reports", ["read"], None)
        ]
        assert [(hook["url"], hook["events"]) for hook in told["webhooks"]] == [
            ("https://example.org/h", ["Task.created"])
        ]
        assert [(item["ssn"], item.get("quarantined")) for item in told["documents"]["Patient"]] == [
            ("123-45-6789", None)
        ]
        for secret in ("argon2", "hook-secret", "verifier", "hash", "generation", "somebody else's"):
            assert secret not in answer.text
        assert (await ann.ask("GET", "/v1/privacy/export")).status == 403  # the owner token has no account


async def test_consents_are_kept_by_name_with_when_each_was_given(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        token = await ann.sign_in("dora")
        before = (await ann.ask("GET", CONSENT, token=token)).json
        assert before == {"id": await user_id(ann, token), "updated_at": None, "history": []}
        await ann.ask("PUT", CONSENT, {"marketing": True, "analytics": False}, token=token)
        told = (await ann.ask("PUT", CONSENT, {"marketing": False}, token=token)).json
        assert (told["marketing"], told["analytics"]) == (False, False)
        assert [change["consents"] for change in told["history"]] == [
            {"marketing": False},
            {"marketing": True, "analytics": False},
        ]
        assert all(change["at"] for change in told["history"])
        refused = await ann.ask("PUT", CONSENT, {"a": "yes", "id": True, "x y": False}, token=token)
        assert refused.status == 400 and refused.json["details"].keys() == {"a", "id", "x y"}
        assert (await ann.ask("PUT", CONSENT, {}, token=token)).status == 400


async def test_who_is_affected_by_a_breach_sees_it_and_nobody_else(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        token, other = await ann.sign_in("dora"), await ann.sign_in("other")
        told: dict[str, Any] = {
            "affected_user_ids": [await user_id(ann, token)],
            "description": "A backup was stolen",
            "severity": "critical",
        }
        assert (await ann.ask("POST", BREACHES, told, token=token)).status == 403
        made = await ann.get(BREACHES, told, method="POST", status=201)
        assert made["severity"] == "critical" and made["affected_user_ids"] == told["affected_user_ids"]
        seen = (await ann.ask("GET", BREACHES, token=token)).json
        assert [item["description"] for item in seen["items"]] == ["A backup was stolen"]
        assert "affected_user_ids" not in seen["items"][0]
        assert (await ann.ask("GET", BREACHES, token=other)).json == {"items": [], "total": 0}
        assert (await ann.get(BREACHES))["total"] == 1
        bad = await ann.ask(
            "POST", BREACHES, {"affected_user_ids": ["x"], "description": "", "severity": "bad"}
        )
        assert bad.json["details"].keys() == {"affected_user_ids[0]", "description", "severity"}
        unknown = await ann.ask(
            "POST", BREACHES, told | {"affected_user_ids": [*told["affected_user_ids"], "x", "y"]}
        )
        assert unknown.status == 404
        assert unknown.json["details"].keys() == {"affected_user_ids[1]", "affected_user_ids[2]"}


async def test_what_was_kept_long_enough_is_erased_by_an_administrators_device(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        for model in (TASK, NOTE):
            await ann.get("/v1/data-models", model, method="POST", status=201)
        await ann.get("/v1/data/Task", {"title": "old"}, method="POST", status=201)
        await ann.get("/v1/data/Note", {"text": "old"}, method="POST", status=201)
        assert await ann.get(RETENTION) == {}
        assert await ann.get(RETENTION, {"Task": 30.0}, method="PUT") == {"Task": 30}
        refused = await ann.ask("PUT", RETENTION, {"Task": 0, "Nothing": 3, "Note": True})
        assert (refused.status, refused.json["details"].keys()) == (400, {"Task", "Nothing", "Note"})
        unknown = await ann.ask("PUT", RETENTION, {"Task": 30, "Nothing": 3, "None": None})
        assert (unknown.status, unknown.json["details"].keys()) == (404, {"Nothing", "None"})
        token = await ann.sign_in("dora")
        assert (await ann.ask("GET", RETENTION, token=token)).status == 403
        privacy = ann.node.civicbase.privacy
        assert await privacy.retire(user="owner") == 0
        now_ms = privacy._now_ms
        privacy._now_ms = lambda: now_ms() + 31 * DAY_MS
        assert await privacy.retire(user="owner") == 1
        assert (await ann.get("/v1/data/Task"))["total"] == 0
        assert (await ann.get("/v1/data/Note"))["total"] == 1
        assert await privacy.retire(user="owner") == 0  # nothing is erased twice
        assert await ann.get(RETENTION, {"Task": None}, method="PUT") == {}
