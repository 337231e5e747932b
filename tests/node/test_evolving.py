"""Models that change, go and come back, and what becomes of the documents that they had."""

from pathlib import Path
from typing import Any

from protocol.changes import EditKind
from tests.node.running import running

FIELDS: list[dict[str, Any]] = [{"name": "title", "type": "string"}, {"name": "rank", "type": "integer"}]


async def test_a_field_that_is_added_with_a_default_reads_it_on_older_records(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({"name": "Task", "fields": FIELDS})
        assert (await node.ask("POST", "/v1/data/Task", {"id": "old", "title": "x"})).status == 201
        status = {"name": "status", "type": "enum", "options": ["TODO", "DONE"], "default": "TODO"}
        changed = await node.ask("PUT", "/v1/data-models/Task", {"fields": [*FIELDS, status]})
        assert changed.status == 200, changed.text
        assert (await node.ask("POST", "/v1/data/Task", {"id": "none", "status": None})).status == 201
        shown = {id: (await node.ask("GET", f"/v1/data/Task/{id}")).json["status"] for id in ("old", "none")}
        assert shown == {"old": "TODO", "none": None}
        found = (await node.ask("GET", "/v1/data/Task?filter=status:eq:TODO")).json
        assert [item["id"] for item in found["items"]] == ["old"]
        assert (await node.ask("PUT", "/v1/data/Task/old", {"status": None})).status == 200
        assert (await node.ask("GET", "/v1/data/Task/old")).json["status"] is None


async def test_values_of_a_field_that_a_model_has_not_show_once_it_has(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        model = await node.model({"name": "Task", "fields": FIELDS})
        node.other.write(EditKind.PUT, model, "t1", {"title": "x", "note": "from a newer device"}, user="bob")
        await node.other.meet()
        assert "note" not in (await node.ask("GET", "/v1/data/Task/t1")).json
        note = {"name": "note", "type": "string"}
        assert (await node.ask("PUT", "/v1/data-models/Task", {"fields": [*FIELDS, note]})).status == 200
        assert (await node.ask("GET", "/v1/data/Task/t1")).json["note"] == "from a newer device"


async def test_a_document_that_a_new_definition_hides_is_refused_and_not_written_into(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({"name": "Task", "fields": FIELDS})
        assert (await node.ask("POST", "/v1/data/Task", {"id": "t1", "title": "x", "rank": 1})).status == 201
        assert (await node.ask("DELETE", "/v1/data-models/Task")).status == 204
        others = [{"name": "title", "type": "string"}, {"name": "rank", "type": "boolean"}]
        assert (await node.ask("POST", "/v1/data-models", {"name": "Task", "fields": others})).status == 201
        assert (await node.ask("GET", "/v1/data/Task/t1")).status == 404
        refused = await node.ask("PUT", "/v1/data/Task/t1", {"title": "y"})
        assert (refused.status, refused.json["details"]) == (409, {"rank": "Must be true or false"})
        assert (await node.ask("PUT", "/v1/data/Task/t1", {"rank": True})).status == 200
        shown = (await node.ask("GET", "/v1/data/Task/t1")).json
        assert (shown["title"], shown["rank"]) == ("x", True)


async def test_who_creates_what_was_deleted_anew_is_its_creator(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({"name": "Task", "fields": FIELDS})
        ann, token = await node.sign_up("ann")
        assert (
            await node.ask("POST", "/v1/data/Task", {"id": "t1", "title": "x"}, token=token)
        ).status == 201
        first = (await node.ask("GET", "/v1/data/Task/t1")).json
        assert first["created_by"] == ann
        assert (await node.ask("DELETE", "/v1/data/Task/t1", token=token)).status == 204
        assert (await node.ask("POST", "/v1/data/Task", {"id": "t1", "title": "y"})).status == 201
        again = (await node.ask("GET", "/v1/data/Task/t1")).json
        assert again["created_by"] != ann and again["created_at"] > first["created_at"]
        own = (await node.ask("GET", f"/v1/data/Task?filter=created_by:eq:{ann}")).json
        assert own["total"] == 0


async def test_indexes_over_several_fields_rise_fall_and_may_be_unique(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        indexes: list[dict[str, Any]] = [
            {"key": {"title": 1, "rank": -1}, "unique": True},
            {"key": {"rank": -1}},
        ]
        await node.model({"name": "Task", "fields": FIELDS, "indexes": indexes})
        held = (await node.ask("GET", "/v1/data-models/Task")).json["indexes"]
        assert held == [{**indexes[0], "order": ["title", "rank"]}, {**indexes[1], "unique": False}]
        for rank, status in ((1, 201), (2, 201), (1, 409)):
            made = await node.ask("POST", "/v1/data/Task", {"title": "x", "rank": rank})
            assert made.status == status
        assert set(made.json["details"]) == {"title", "rank"}
