"""Two devices that were apart: what they show, list and resolve once they meet."""

from pathlib import Path
from typing import Any

from tests.system.neighbours import directories, listening, until
from tests.system.process import NodeProcess, civicnode

STRATEGIES = ("crdt", "lww", "merge", "version_vector", "three_way", "manual")


def definition(strategy: str) -> dict[str, Any]:
    points: dict[str, Any] = {"name": "points", "type": "integer", "indexed": True}
    if strategy in ("merge", "version_vector", "three_way"):
        points["merge"] = "sum"
    return {
        "name": strategy,
        "conflict_strategy": strategy,
        "fields": [{"name": "title", "type": "string", "required": True}, points],
    }


def test_two_devices_that_were_apart_show_and_list_the_same_under_every_strategy(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a, NodeProcess(two, "--peer", listening(a)) as b:
        for name in STRATEGIES:
            assert a.ask("POST", "/v1/data-models", definition(name)).status == 201
            assert a.ask("POST", f"/v1/data/{name}", {"id": "x", "title": "base", "points": 10}).status == 201
        last = f"/v1/data/{STRATEGIES[-1]}/x"
        until(lambda: b.ask("GET", last).status == 200, "all of it on two", a, b)
        assert b.stop() == 0
        write(a, title="from a", points=12)
        assert a.stop() == 0
    with NodeProcess(two) as b:
        write(b, title="from b", points=11)
        with NodeProcess(one, "--peer", listening(b)) as a:
            synced = b.ask("POST", "/v1/sync?timeout_ms=30000").json
            until(lambda: len(conflicts(a)) == len(conflicts(b)) == 7, "the conflicts", a, b)
            shown = {name: values(b, name) for name in STRATEGIES}
            assert shown == {name: values(a, name) for name in STRATEGIES}
            assert shown == {
                "crdt": ("from b", 11),
                "lww": ("from b", 11),
                "manual": ("from b", 11),
                "merge": ("from b", 13),
                "version_vector": ("from b", 13),
                "three_way": ("from b", 13),
            }
            assert conflicts(a) == conflicts(b)
            assert {c["id"] for c in synced["conflicts"]} <= {c["id"] for c in conflicts(b)}
            fields = sorted((c["model"], c["field"]) for c in conflicts(a))
            assert fields == [
                ("crdt", "points"), ("crdt", "title"), ("manual", "points"), ("manual", "title"),
                ("merge", "title"), ("three_way", "title"), ("version_vector", "title"),
            ]  # fmt: skip
            assert a.ask("PUT", "/v1/data/manual/x", {"title": "c"}).status == 409
            for conflict in conflicts(b):
                resolution = {conflict["field"]: conflict["values"][0]["value"]}
                answer = b.ask("POST", f"/v1/conflicts/{conflict['id']}/resolve", {"resolution": resolution})
                assert answer.status == 200, answer.body
            until(lambda: conflicts(a) == [], "the resolutions", a, b)
            assert values(a, "manual") == values(b, "manual") == ("from a", 12)
            history = a.ask("GET", "/v1/data/crdt/x/history").json
            assert history == b.ask("GET", "/v1/data/crdt/x/history").json
            assert history["total"] == 5
            assert a.stop() == 0
        assert b.stop() == 0
    for directory in (one, two):
        report = civicnode("doctor", "--data-dir", str(directory), "--json")
        assert report.returncode == 0, report.stdout + report.stderr


def write(node: NodeProcess, **values: Any) -> None:
    for name in STRATEGIES:
        assert node.ask("PUT", f"/v1/data/{name}/x", values).status == 200


def conflicts(node: NodeProcess) -> list[Any]:
    items: list[Any] = node.ask("GET", "/v1/conflicts?per_page=100").json["items"]
    return items


def values(node: NodeProcess, name: str) -> tuple[Any, Any]:
    shown = node.ask("GET", f"/v1/data/{name}/x").json
    found = node.ask("GET", f"/v1/data/{name}?filter=points:eq:{shown['points']}").json
    assert [item["id"] for item in found["items"]] == ["x"]
    return shown["title"], shown["points"]
