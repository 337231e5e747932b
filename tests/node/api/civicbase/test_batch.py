"""Batches over HTTP: one commit or none, references between operations, and faults by position."""

from pathlib import Path
from typing import Any

from tests.node.running import Running, running

PROJECT: dict[str, Any] = {"name": "Project", "fields": [{"name": "title", "type": "string", "unique": True}]}
TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "project", "type": "reference", "model": "Project"},
        {"name": "data", "type": "json"},
        {"name": "rank", "type": "integer"},
    ],
    "validators": [{"expression": "rank < 10", "message": "Too high"}],
}


async def batch(node: Running, *operations: tuple[Any, ...], token: str | None = None, **more: Any) -> Any:
    named = [dict(zip(("method", "path", "body"), operation, strict=False)) for operation in operations]
    return await node.ask("POST", "/v1/batch", {"operations": named, **more}, token=token)


async def test_operations_refer_to_what_those_before_them_have_created(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        await node.model(TASK)
        for atomic in (True, False):
            done = await batch(
                node,
                ("POST", "/data/Project", {"title": f"House {atomic}"}),
                ("POST", "/v1/data/Task", {"title": "$0", "project": "$0.instance_id"}),
                ("POST", "/data/Task", {"title": "$$0.instance_id", "data": {"of": ["$1.instance_id", 1]}}),
                ("PATCH", "/data/Project/$0.instance_id", {"title": f"Garden {atomic}"}),
                ("GET", "/data/Project/$0.instance_id"),
                ("GET", "/data/Task?filter=title:eq:%24%240&sort=title"),
                ("DELETE", "/data/Task/$1.instance_id"),
                atomic=atomic,
                versions=True,
            )
            assert done.status == 200, done.text
            results = done.json["results"]
            assert [result["status"] for result in results] == [201, 201, 201, 200, 200, 200, 204]
            project, first, second = (result["body"]["instance_id"] for result in results[:3])
            assert results[4]["body"]["title"] == f"Garden {atomic}"
            assert results[3]["version"] == results[4]["body"]["version"] and "version" not in results[6]
            held = (await node.ask("GET", f"/v1/data/Task/{second}")).json
            assert held["version"] == results[2]["version"]
            assert (held["title"], held["data"]) == ("$0.instance_id", {"of": [first, 1]})
            assert (await node.ask("GET", f"/v1/data/Task/{first}")).status == 404
            assert (await node.ask("GET", f"/v1/data/Project/{project}")).status == 200


async def test_what_is_no_operation_is_named_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        good = {"method": "POST", "path": "/data/Task", "body": {"title": "x"}}
        refused = await node.ask("POST", "/v1/batch", {"operations": [good, 7, {"body": [1]}]})
        assert (refused.status, set(refused.json["details"])) == (
            400,
            {"operations[1]", "operations[2].method", "operations[2].path"},
        )


async def test_a_reference_to_nothing_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        operations: list[tuple[Any, ...]] = [
            ("POST", "/data/Project", {"title": "$1.instance_id"}),
            ("POST", "/data/Project", {"title": "x", "id": "p1"}),
            ("DELETE", "/data/Project/$9.instance_id"),
            ("PUT", "/data/Project/p1", {"title": "$2.instance_id"}),
        ]
        refused = await batch(node, *operations)
        assert refused.status == 400 and refused.json["details"] == {
            "operations[0].title": "Operation 1, to which $1.instance_id refers, must come before it",
            "operations[2].path": "Operation 9, to which $9.instance_id refers, must come before it",
            "operations[3].title": "Operation 2, to which $2.instance_id refers, created no instance",
        }
        assert (await node.ask("GET", "/v1/data/Project")).json["total"] == 0
        each = await batch(node, *operations, atomic=False)
        assert [result["status"] for result in each.json["results"]] == [400, 201, 400, 400]


async def test_what_the_writer_refuses_is_named_by_position_too(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(PROJECT)
        await node.model(TASK)
        _, ann = await node.sign_up("ann")
        made = await batch(
            node,
            ("POST", "/data/Project", {"id": "p1", "title": "x"}),
            ("POST", "/data/Task", {"id": "t1", "title": "x"}),
        )
        assert made.status == 200
        good = ("POST", "/data/Task", {"title": "y"})
        for operation, status, details in (
            (("POST", "/data/Project", {"title": "x"}), 409, {"operations[2].title"}),
            (("POST", "/data/Project", {"id": "p1"}), 409, {"operations[2]"}),
            (("PUT", "/data/Task/none", {"title": "z"}), 404, {"operations[2]"}),
            (("PUT", "/data/Task/t1", {"rank": 10}), 400, {"operations[2].rank"}),
        ):
            refused = await batch(node, good, ("GET", "/data/Task"), operation)
            assert (refused.status, set(refused.json["details"])) == (status, details), refused.text
        nowhere: list[tuple[Any, ...]] = [("POST", "/data/Nothing", {}), ("DELETE", "/data/None/x")]
        refused = await batch(node, good, *nowhere)
        assert (refused.status, set(refused.json["details"])) == (404, {"operations[1]", "operations[2]"})
        refused = await batch(node, good, *nowhere, ("PUT", "/data/Task/t1", {"rank": "x", "colour": 1}))
        wrong = {"operations[1]", "operations[2]", "operations[3].rank", "operations[3].colour"}
        assert (refused.status, set(refused.json["details"])) == (400, wrong)
        refused = await batch(node, good, ("DELETE", "/data/Task/t1"), token=ann)
        assert (refused.status, set(refused.json["details"])) == (403, {"operations[1]"})
        assert (await node.ask("GET", "/v1/data/Task")).json["total"] == 1


async def test_reads_are_made_with_the_callers_rights(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model({**PROJECT, "permissions": {"read": "owner"}})
        _, ann = await node.sign_up("ann")
        assert (await batch(node, ("POST", "/data/Project", {"id": "p1", "title": "x"}))).status == 200
        read = await batch(
            node,
            ("GET", "/data/Project/p1"),
            ("GET", "/data/Project"),
            ("GET", "/data/Nothing"),
            ("GET", "/users/me"),
            token=ann,
        )
        results = read.json["results"]
        assert [result["status"] for result in results] == [403, 200, 404, 404]
        assert results[1]["body"]["total"] == 0
