"""References: what they name is looked for when they are written, and they keep nothing from being deleted."""

from pathlib import Path
from typing import Any

from protocol.changes import DocumentChange, Edit, EditKind
from tests.node.running import running

PROJECT: dict[str, Any] = {"name": "Project", "fields": [{"name": "title", "type": "string"}]}
TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "project", "type": "reference", "model": "Project"},
        {"name": "parent", "type": "reference", "model": "Task"},
        {"name": "lost", "type": "reference", "model": "Nothing"},
        {"name": "any", "type": "reference"},
        {"name": "rank", "type": "integer"},
    ],
}


async def test_a_reference_names_what_is_here(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        await node.model(TASK)
        refused = await node.ask(
            "POST", "/v1/data/Task", {"project": "p1", "parent": "t0", "lost": "x", "any": "y"}
        )
        assert (refused.status, refused.json["error"]) == (400, "Validation failed")
        assert refused.json["details"] == {
            "project": "There is no Project 'p1'",
            "parent": "There is no Task 't0'",
            "lost": "There is no data model 'Nothing'",
        }
        assert (await node.ask("POST", "/v1/data/Project", {"id": "p1"})).status == 201
        task = {"id": "t1", "project": "p1", "parent": "t1", "any": "y"}
        assert (await node.ask("POST", "/v1/data/Task", task)).status == 201
        refused = await node.ask("PUT", "/v1/data/Task/t1", {"project": "p2"})
        assert (refused.status, list(refused.json["details"])) == (400, ["project"])


async def test_what_is_referred_to_can_be_deleted_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        await node.model(TASK)
        await node.ask("POST", "/v1/data/Project", {"id": "p1"})
        await node.ask("POST", "/v1/data/Task", {"id": "t1", "project": "p1"})
        assert (await node.ask("DELETE", "/v1/data/Project/p1")).status == 204
        assert (await node.ask("GET", "/v1/data/Task/t1")).json["project"] == "p1"
        assert (await node.ask("PUT", "/v1/data/Task/t1", {"rank": 1, "project": "p1"})).status == 200
        assert (await node.ask("POST", "/v1/data/Task", {"project": "p1"})).status == 400


async def test_a_reference_from_elsewhere_may_be_ahead_of_what_it_names(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        model = await node.model(TASK)
        edit = Edit(EditKind.CREATE, model, "t1", {"project": "soon"})
        change = DocumentChange("default", "bob", [edit], checks_references=False)
        node.other.integrator.write_one(change, node.node.world.now_ms())
        await node.other.meet()
        assert (await node.ask("GET", "/v1/data/Task/t1")).json["project"] == "soon"


async def test_what_a_reference_names_comes_along_when_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({**PROJECT, "permissions": {"read": "record.title == 'open'"}})
        await node.model(TASK)
        for id, title in (("p1", "open"), ("p2", "closed")):
            await node.ask("POST", "/v1/data/Project", {"id": id, "title": title})
        for id, project in (("t1", "p1"), ("t2", "p2"), ("t3", None)):
            await node.ask("POST", "/v1/data/Task", {"id": id, "project": project, "parent": id})
        one = (await node.ask("GET", "/v1/data/Task/t2?expand=project,parent")).json
        assert one["expand"]["project"] == (await node.ask("GET", "/v1/data/Project/p2")).json
        assert one["expand"]["parent"]["id"] == one["id"] == "t2"
        _, ann = await node.sign_up("ann")
        page = (await node.ask("GET", "/v1/data/Task?expand=project&sort=id&order=asc", token=ann)).json
        assert [item["expand"].get("project", {}).get("id") for item in page["items"]] == ["p1", None, None]
        for path in ("/v1/data/Task/t1", "/v1/data/Task"):
            refused = await node.ask("GET", f"{path}?expand=rank,any")
            assert refused.json["details"] == {"expand": "Not a reference to a model: rank, any"}
