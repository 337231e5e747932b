"""Of a request with several faults, one answer names each: the widest request of every kind, with all that can be
wrong with it at once."""

from pathlib import Path
from typing import Any

from tests.node.running import Running, running

TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "rank", "type": "integer", "max": 9},
        {"name": "of", "type": "reference", "model": "Task"},
    ],
}
# Method, path, body, and where the faults are.
REQUESTS: list[tuple[str, str, Any, set[str]]] = [
    (
        "GET",
        "/v1/data/Task?filter=no:eq:1&sort=no&order=up&page=0&per_page=101&fields=no&expand=rank",
        None,
        {"filter", "sort", "order", "page", "per_page", "fields", "expand"},
    ),
    ("GET", "/v1/data/Task/t1?fields=no&expand=rank&colour=x", None, {"fields", "expand", "colour"}),
    ("POST", "/v1/data/Task", {"id": "a b", "rank": 10, "x": 1}, {"id", "title", "rank", "x"}),
    ("PUT", "/v1/data/Task/t1", {"title": None, "rank": "x", "x": 1}, {"title", "rank", "x"}),
    ("POST", "/v1/admin/query", {"sql": "", "limit": 0}, {"sql", "limit"}),
    ("POST", "/v1/admin/query", {"limit": "x"}, {"sql", "limit"}),
]


async def ask_all(node: Running, requests: list[tuple[str, str, Any, set[str]]]) -> None:
    for method, path, body, wrong in requests:
        refused = await node.ask(method, path, body)
        named = (refused.status, set(refused.json.get("details", ())))
        assert named == (400, wrong), (method, path, refused.text)
        assert refused.json["error_code"] == "BAD_REQUEST"


async def test_one_answer_names_every_fault(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.model(TASK)
        assert (await node.ask("POST", "/v1/data/Task", {"id": "t1", "title": "x"})).status == 201
        await ask_all(node, REQUESTS)
        unknown = await node.ask("GET", "/v1/sync/changes?model=Task,Nothing,None")
        assert unknown.status == 404 and "Nothing" in unknown.text and "None" in unknown.text


async def test_a_backup_that_cannot_be_written_there_is_a_conflict(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        there = tmp_path / "there"
        there.touch()
        for path in (there, tmp_path / "nowhere" / "x", there / "x"):
            refused = await node.ask("POST", "/v1/admin/backup", {"path": str(path)})
            assert refused.status == 409 and refused.json["details"].keys() == {"path"}
        assert (await node.ask("POST", "/v1/admin/backup", {"path": "x"})).status == 400
