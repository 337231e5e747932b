"""Encrypted fields on two devices: their users read them on both, and neither device can by itself."""

from pathlib import Path
from typing import Any

import pytest

from tests.node.devices import Device, devices, until

SSN, SSN_2 = "123-45-6789", "987-65-4321"
PATIENT = {
    "name": "Patient",
    "fields": [{"name": "name", "type": "string"}, {"name": "ssn", "type": "string", "encrypted": True}],
}
LOCKED = {"encrypted": True}
REPEATABLE: dict[str, Any] = {
    "/v1/graphql": {"query": 'mutation { updatePatient(id: "one", input: { name: "y" }) { ssn } }'},
    "/v1/batch": {"operations": [{"method": "GET", "path": "/data/Patient/one"}]},
}


async def sign_in(device: Device, name: str, password: str = "correct horse") -> str:
    answer = await device.ask(
        "POST", "/v1/auth/login", {"email": f"{name}@example.org", "password": password}
    )
    assert answer.status == 200, answer.text
    return str(answer.json["token"])


async def ssn(device: Device, token: str | None) -> Any:
    answer = await device.ask("GET", "/v1/data/Patient/one", token=token)
    return answer.json.get("ssn") if answer.status == 200 else answer.status


async def me(device: Device, token: str) -> str:
    return str((await device.ask("GET", "/v1/users/me", token=token)).json["id"])


async def test_its_users_read_it_on_both_devices_and_nobody_else_on_any(tmp_path: Path) -> None:
    async with devices(tmp_path, "one", "two") as (one, two):
        await two.join(await one.invite())
        ann, bob, eve = [await one.sign_in(name) for name in ("ann", "bob", "eve")]
        assert (await one.ask("POST", "/v1/data-models", PATIENT, token=ann)).status == 201
        body = {"id": "one", "name": "x", "ssn": {"value": SSN, "readers": [await me(one, bob)]}}
        assert (await one.ask("POST", "/v1/data/Patient", body, token=ann)).status == 201
        assert [await ssn(one, token) for token in (ann, bob, eve, None)] == [SSN, SSN, LOCKED, LOCKED]

        async def arrived() -> bool:
            return bool(await ssn(two, None) == LOCKED)

        await until(arrived, "the instance on the other device")
        assert await ssn(two, bob) == LOCKED, "the key is in the memory of the first"
        locked = await two.ask("PUT", "/v1/data/Patient/one", {"ssn": SSN_2}, token=ann)
        assert (locked.status, locked.json["error_code"]) == (401, "AUTH_KEY_LOCKED")
        bob_there = await sign_in(two, "bob")
        assert await ssn(two, bob_there) == SSN
        listed = (await two.ask("GET", "/v1/data/Patient?fields=ssn", token=bob_there)).json
        assert listed["items"] == [{"id": "one", "ssn": SSN}]
        assert (await two.ask("POST", "/v1/auth/logout", token=bob_there)).status == 200
        assert not two.node.identity.keyring.holds("default", await me(one, bob))

        async def exported(token: str) -> Any:
            answer = await one.ask("POST", "/v1/export", {"models": ["Patient"]}, token=token)
            return answer.json["Patient"][0]["ssn"]

        assert [await exported(token) for token in (ann, bob, eve)] == [SSN, SSN, LOCKED]
        # Answers that are kept for a repetition lie on the disk: not those with what was opened.
        for path, body in REPEATABLE.items():
            headers = {"Authorization": f"Bearer {ann}", "Idempotency-Key": "again"}
            async with one.http.post(one.node.url + path, json=body, headers=headers) as answer:
                assert answer.status == 200 and SSN in await answer.text()
        told = (await one.ask("GET", "/v1/data/Patient/one/history", token=ann)).text
        told += (await one.ask("GET", "/v1/sync/changes", token=ann)).text
        assert SSN not in told and '"encrypted":true' in told
    for file in [*(tmp_path / "one").iterdir(), *(tmp_path / "two").iterdir()]:
        assert not file.is_file() or SSN.encode() not in file.read_bytes(), file


async def test_the_key_outlives_the_password_but_not_an_administrators_reset(tmp_path: Path) -> None:
    async with devices(tmp_path, "one") as (one,):
        ann = await one.sign_in("ann")
        await one.ask("POST", "/v1/data-models", PATIENT, token=ann)
        await one.ask("POST", "/v1/data/Patient", {"id": "one", "ssn": SSN}, token=ann)
        passwords = {"current_password": "correct horse", "new_password": "another horse"}
        assert (await one.ask("POST", "/v1/auth/password", passwords, token=ann)).status == 200
        assert await ssn(one, ann) == SSN
        assert await ssn(one, await sign_in(one, "ann", "another horse")) == SSN

        wrong = await one.ask("POST", "/v1/auth/recovery-code", {"password": "correct horse"}, token=ann)
        assert wrong.status == 403
        made = await one.ask("POST", "/v1/auth/recovery-code", {"password": "another horse"}, token=ann)
        recovered = {
            "email": "ann@example.org",
            "recovery_code": made.json["recovery_code"].lower(),
            "new_password": "third horse",
        }
        again = await one.ask("POST", "/v1/auth/recover", recovered)
        assert again.status == 200 and await ssn(one, again.json["token"]) == SSN
        assert await ssn(one, ann) == 401, "sessions end with the password"
        assert (await one.ask("POST", "/v1/auth/recover", recovered)).status == 401, "a code counts once"

        path = f"/v1/admin/users/{await me(one, again.json['token'])}/password"
        reset = await one.ask("POST", path, {"password": "fourth horse"})
        assert reset.status == 200 and "cannot be opened" in reset.json["message"]
        assert await ssn(one, await sign_in(one, "ann", "fourth horse")) == LOCKED


@pytest.mark.parametrize("path", ["?filter=ssn:eq:1", "?sort=ssn"])
async def test_nothing_is_asked_of_what_the_node_cannot_read(tmp_path: Path, path: str) -> None:
    async with devices(tmp_path, "one") as (one,):
        assert (await one.ask("POST", "/v1/data-models", PATIENT)).status == 201
        assert (await one.ask("GET", f"/v1/data/Patient{path}")).status == 400
        unknown = {"ssn": {"value": SSN, "readers": ["nobody"]}}
        ann = await one.sign_in("ann")
        refused = await one.ask("POST", "/v1/data/Patient", unknown, token=ann)
        assert refused.json["details"] == {"ssn": "There is no key to encrypt for: nobody"}
        assert (await one.ask("POST", "/v1/data/Patient", {"ssn": SSN})).json[
            "error_code"
        ] == "AUTH_KEY_LOCKED"
