"""Validators and rules that are expressions, over HTTP and between nodes."""

from pathlib import Path
from typing import Any

from protocol.changes import EditKind
from tests.node.running import running

ACCOUNT: dict[str, Any] = {
    "name": "Account",
    "fields": [
        {"name": "balance", "type": "number", "required": True},
        {"name": "credit", "type": "number", "default": 0},
        {"name": "team", "type": "string"},
        {"name": "open", "type": "boolean"},
    ],
    "validators": [
        {"expression": "balance + credit >= 0", "message": "Account balance cannot be negative"},
        {"expression": "team != 'red' || balance < 100", "message": "Red has little"},
    ],
}
NEGATIVE = {"balance": "Account balance cannot be negative"}


async def test_a_write_that_breaks_a_validator_is_refused_with_its_message(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(ACCOUNT)
        refused = await node.ask("POST", "/v1/data/Account", {"balance": -50})
        assert (refused.status, refused.json["details"]) == (400, NEGATIVE)
        made = await node.ask("POST", "/v1/data/Account", {"id": "a1", "balance": 50, "team": "red"})
        assert made.status == 201
        for values, details in (
            ({"balance": -50}, NEGATIVE),
            ({"balance": 500}, {"team": "Red has little"}),
            ({"credit": -51}, NEGATIVE),
        ):
            refused = await node.ask("PUT", "/v1/data/Account/a1", values)
            assert (refused.status, refused.json["error"], refused.json["details"]) == (
                400,
                "Validation failed",
                details,
            )
        operation = {"method": "PUT", "path": "/data/Account/a1", "body": {"balance": -1}}
        refused = await node.ask("POST", "/v1/batch", {"operations": [operation]})
        assert refused.status == 400, refused.text
        assert (await node.ask("GET", "/v1/data/Account/a1")).json["balance"] == 50
        assert (await node.ask("PUT", "/v1/data/Account/a1", {"balance": -50, "credit": 50})).status == 200


async def test_what_was_written_elsewhere_is_kept_hidden_and_can_be_mended(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        model = await node.model(ACCOUNT)
        node.other.write(EditKind.PUT, model, "a1", {"balance": -5.0}, user="bob")
        node.other.write(EditKind.PUT, model, "a2", {"balance": 5.0}, user="bob")
        await node.other.meet()
        assert (await node.ask("GET", "/v1/data/Account/a1")).status == 404
        assert [item["id"] for item in (await node.ask("GET", "/v1/data/Account")).json["items"]] == ["a2"]
        here = (await node.ask("GET", "/v1/sync/explain/Account/a1")).json["here"]
        assert (here["state"], here["quarantine"]) == ("quarantined", NEGATIVE)
        refused = await node.ask("PUT", "/v1/data/Account/a1", {"team": "blue"})
        assert (refused.status, refused.json["details"]) == (409, NEGATIVE)
        assert (await node.ask("PUT", "/v1/data/Account/a1", {"balance": 5})).status == 200
        assert (await node.ask("GET", "/v1/data/Account/a1")).json["balance"] == 5
        assert (await node.ask("GET", "/v1/data/Account")).json["total"] == 2


async def test_changes_made_apart_that_break_a_validator_together_hide_the_record_everywhere(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as node:
        model = await node.model(ACCOUNT)
        await node.set(model, "a1", {"balance": 50.0, "credit": 0})
        node.other.hear()
        await node.apart(model, "a1", {"balance": 10.0}, {"credit": -20})
        assert (await node.ask("GET", "/v1/data/Account/a1")).status == 404
        assert (await node.ask("DELETE", "/v1/data/Account/a1")).status == 204


async def test_a_new_validator_is_taken_if_the_records_that_are_here_meet_it(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({**ACCOUNT, "validators": []})
        for number in range(8):
            await node.ask("POST", "/v1/data/Account", {"id": f"a{number}", "balance": number - 7})
        path = "/v1/data-models/Account"
        refused = await node.ask("PUT", path, ACCOUNT)
        assert (refused.status, refused.json["details"]) == (
            400,
            {
                "validators": "Records that are here do not meet them: a0, a1, a2, a3, a4 and 2 more. "
                "Change these first"
            },
        )
        for number in range(7):
            await node.ask("DELETE", f"/v1/data/Account/a{number}")
        assert (await node.ask("PUT", path, ACCOUNT)).status == 200
        assert (await node.ask("GET", path)).json["validators"] == ACCOUNT["validators"]
        assert (await node.ask("POST", "/v1/data/Account", {"balance": -1})).status == 400
        assert (await node.ask("PUT", path, {**ACCOUNT, "validators": []})).status == 200
        assert (await node.ask("POST", "/v1/data/Account", {"balance": -1})).status == 201


async def test_a_rule_that_is_an_expression_decides_over_each_document(tmp_path: Path) -> None:
    rules = {
        "read": ["owner", "record.open == true"],
        "create": "user != null && record.team in ['red', 'blue']",
        "update": "record.created_by == user.id && record.balance < 100",
        "delete": "now < datetime('2000-01-01')",
    }
    async with running(tmp_path) as node:
        await node.model({**ACCOUNT, "permissions": rules})
        _, ann = await node.sign_up("ann")
        _, ben = await node.sign_up("ben")
        path = "/v1/data/Account"
        assert (await node.ask("POST", path, {"balance": 1, "team": "green"}, token=ann)).status == 403
        for number in range(30):
            body = {
                "id": f"a{number:02}",
                "balance": number * 10,
                "team": "blue" if number % 2 else "red",
                "open": number % 3 == 0,
            }
            made = await node.ask("POST", path, body, token=ann)
            assert made.status == (201 if number < 10 or number % 2 else 400), made.text
        held = (await node.ask("GET", f"{path}?per_page=100", token=ann)).json
        assert held["total"] == 20
        opened = [item["id"] for item in held["items"] if item["open"]]
        page = (await node.ask("GET", f"{path}?per_page=3&sort=balance&order=asc", token=ben)).json
        assert page["total"] == len(opened) and [item["id"] for item in page["items"]] == sorted(opened)[:3]
        rest = (await node.ask("GET", f"{path}?per_page=3&sort=balance&order=asc&cursor={page['next_cursor']}",
                               token=ben)).json  # fmt: skip
        assert [item["id"] for item in rest["items"]] == sorted(opened)[3:6]
        red = (await node.ask("GET", f"{path}?filter=team:eq:red", token=ben)).json
        assert red["total"] == len([id for id in opened if int(id[1:]) % 2 == 0])
        counted = await node.ask(
            "POST",
            f"{path}/aggregate",
            {"aggregations": [{"field": "id", "operation": "count", "alias": "n"}]},
            token=ben,
        )
        assert counted.json == [{"n": len(opened)}]
        assert (await node.ask("GET", f"{path}/a03", token=ben)).status == 200
        assert (await node.ask("GET", f"{path}/a04", token=ben)).status == 403
        assert (await node.ask("PUT", f"{path}/a03", {"balance": 40}, token=ann)).status == 200
        assert (await node.ask("PUT", f"{path}/a11", {"balance": 40}, token=ann)).status == 403
        assert (await node.ask("PUT", f"{path}/a03", {"balance": 40}, token=ben)).status == 403
        assert (await node.ask("DELETE", f"{path}/a03", token=ann)).status == 403
        assert (await node.ask("DELETE", f"{path}/a03")).status == 204, "the owner is an administrator"
