"""Conflicts, resolutions and histories over HTTP and the realtime socket, on a node of a network of two."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protocol.changes import EditKind
from protocol.schema import Model
from tests.node.running import APPLICATION, PASSWORD, Other, Running, running

PLUGIN = "closest@0123456789abcdef"


def definition(strategy: str = "crdt", **more: Any) -> dict[str, Any]:
    return {
        "name": "Task",
        "conflict_strategy": strategy,
        "fields": [
            {"name": "title", "type": "string", "required": True},
            {"name": "points", "type": "integer", "max": 100},
            {"name": "tags", "type": "set"},
            {"name": "votes", "type": "counter"},
        ],
        **more,
    }


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "node") as made:
        yield made


@pytest.fixture
async def task(node: Running) -> Model:
    return await node.model(definition())


async def listed(node: Running, query: str = "", *, token: str | None = None) -> list[Any]:
    answer = await node.ask("GET", f"/v1/conflicts{query}", token=token)
    assert answer.status == 200, answer.text
    items: list[Any] = answer.json["items"]
    return items


# -- listing -------------------------------------------------------------------------------------------------


async def test_a_conflict_names_its_values_and_where_they_are_from(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    answer = await node.ask("GET", "/v1/conflicts")
    assert {name: answer.json[name] for name in ("total", "page", "per_page", "next_cursor")} == {
        "total": 1,
        "page": 1,
        "per_page": 20,
        "next_cursor": None,
    }
    (conflict,) = answer.json["items"]
    assert list(conflict) == ["id", "model", "instance_id", "field", "values", "strategy", "resolved"]
    assert (conflict["model"], conflict["instance_id"], conflict["field"]) == ("Task", "one", "title")
    assert (conflict["strategy"], conflict["resolved"]) == ("crdt", False)
    first, second = conflict["values"]
    assert (first["value"], second["value"], second["user"]) == ("a", "b", "bob")
    assert first["user"].startswith("owner@")
    assert all(len(value["node"]) == 64 for value in (first, second))
    assert first["at"] <= second["at"]
    shown = await node.ask("GET", "/v1/data/Task/one")
    assert shown.json["title"] == "b"
    one = await node.ask("GET", f"/v1/conflicts/{conflict['id']}")
    assert (one.status, one.json) == (200, conflict)


async def test_conflicts_are_listed_by_model_instance_and_state_in_pages(node: Running, task: Model) -> None:
    other = await node.model({**definition(), "name": "Other"})
    for number in range(3):
        await node.apart(task, f"t{number}", {"title": "a"}, {"title": "b"})
    await node.apart(other, "o", {"title": "a"}, {"title": "b"})
    assert {c["instance_id"] for c in await listed(node)} == {"t0", "t1", "t2", "o"}
    assert {c["instance_id"] for c in await listed(node, "?model=Other")} == {"o"}
    assert {c["instance_id"] for c in await listed(node, f"?model={task.id}&instance_id=t1")} == {"t1"}
    first = await node.ask("GET", "/v1/conflicts?model=Task&per_page=2")
    assert [c["instance_id"] for c in first.json["items"]] == ["t2", "t1"]
    after = f"/v1/conflicts?model=Task&per_page=2&cursor={first.json['next_cursor']}"
    second = await node.ask("GET", after)
    assert [c["instance_id"] for c in second.json["items"]] == ["t0"]
    assert second.json["next_cursor"] is None
    assert await listed(node, "?resolved=true") == []
    await node.set(task, "t1", {"title": "c"})
    assert {c["instance_id"] for c in await listed(node, "?model=Task")} == {"t0", "t2"}
    (resolved,) = await listed(node, "?resolved=true")
    assert resolved["instance_id"] == "t1" and resolved["resolved"] is True
    assert [value["value"] for value in resolved["values"]] == ["a", "b"]
    assert resolved["resolution"] == {"title": "c"}
    assert resolved["resolved_by"].startswith("owner@") and resolved["resolved_at"]
    assert len(await listed(node, "?resolved=all")) == 4


@pytest.mark.parametrize(
    ("query", "status", "details"),
    [
        ("resolved=yes", 400, {"resolved": "Invalid option. Must be one of: false, true, all"}),
        ("page=0&per_page=101", 400, {"page": "Must be an integer from 1 to 10000000",
                                      "per_page": "Must be an integer from 1 to 100"}),
        ("colour=red", 400, {"colour": "Unknown parameter"}),
        ("cursor=x", 400, {"cursor": "Not a cursor of this list"}),
        ("cursor=x&page=2", 400, {"page": "Give either page or cursor"}),
        ("model=Nothing", 404, None),
    ],
)  # fmt: skip
async def test_a_list_that_cannot_be_made_is_refused_by_name(
    node: Running, query: str, status: int, details: Any
) -> None:
    answer = await node.ask("GET", f"/v1/conflicts?{query}")
    assert (answer.status, answer.json.get("details")) == (status, details)


async def test_nobody_sees_conflicts_of_what_they_may_not_read(node: Running) -> None:
    task = await node.model(definition(permissions={"read": "owner", "create": "authenticated"}))
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    _, ann = await node.sign_up("ann")
    ben_id, ben = await node.sign_up("ben")
    created = await node.ask("POST", "/v1/data/Task", {"id": "bens", "title": "x"}, token=ben)
    assert created.status == 201
    node.other.hear()
    await node.apart(task, "bens", {"title": "y"}, {"title": "z"})
    assert {c["instance_id"] for c in await listed(node)} == {"one", "bens"}
    assert await listed(node, token=ann) == []
    (bens,) = await listed(node, token=ben)
    assert bens["instance_id"] == "bens"
    path = f"/v1/conflicts/{bens['id']}"
    for method, where, body in (
        ("GET", path, None),
        ("POST", f"{path}/resolve", {"resolution": {"title": "x"}}),
    ):
        assert (await node.ask(method, where, body, token=ann)).status == 403
    assert (await node.ask("GET", path, token=ben)).status == 200
    assert (await node.ask("GET", "/v1/data/Task/bens/history", token=ann)).status == 403
    assert (await node.ask("GET", "/v1/data/Task/bens/history", token=ben)).status == 200
    assert ben_id


async def test_a_rule_that_looks_at_records_decides_which_conflicts_are_listed(node: Running) -> None:
    task = await node.model(definition(permissions={"read": ["owner", "record.points > 5"]}))
    _, ann = await node.sign_up("ann")
    for id, points in (("low", 1), ("high", 9), ("gone", 9)):
        await node.set(task, id, {"title": "x", "points": points})
        node.other.hear()
        await node.apart(task, id, {"title": "a"}, {"title": "b"})
    assert (await node.ask("POST", "/v1/data/Task", {"id": "anns", "title": "x"}, token=ann)).status == 201
    node.other.hear()
    await node.apart(task, "anns", {"title": "y"}, {"title": "z"})
    assert (await node.ask("DELETE", "/v1/data/Task/gone")).status == 204
    answer = await node.ask("GET", "/v1/conflicts?per_page=1", token=ann)
    assert (len(answer.json["items"]), answer.json["total"]) == (1, 2)
    rest = await listed(node, f"?cursor={answer.json['next_cursor']}", token=ann)
    assert [c["instance_id"] for c in (*answer.json["items"], *rest)] == ["anns", "high"]
    assert await listed(node, "?resolved=true", token=ann) == []  # nobody can tell what it said


async def test_conflicts_of_another_application_are_none(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    account = {"email": "eve@example.org", "password": PASSWORD, "application_id": "other"}
    await node.ask("POST", "/v1/auth/register", {**account, "username": "eve"})
    eve = (await node.ask("POST", "/v1/auth/login", account)).json["token"]
    assert await listed(node, token=eve) == []
    path = f"/v1/conflicts/{conflict['id']}"
    assert (await node.ask("GET", path, token=eve)).status == 404
    refused = await node.ask("POST", f"{path}/resolve", {"resolution": {"title": "x"}}, token=eve)
    assert refused.status == 404


# -- resolving -----------------------------------------------------------------------------------------------


async def test_a_resolution_ends_the_conflict_everywhere(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    answer = await node.ask(
        "POST", f"/v1/conflicts/{conflict['id']}/resolve", {"resolution": {"title": "both"}}
    )
    assert answer.status == 200, answer.text
    assert (answer.json["message"], answer.json["instance_id"]) == ("Conflict resolved successfully", "one")
    assert answer.headers["ETag"] == f'"{answer.json["version"]}"'
    resolved = answer.json["conflict"]
    assert (resolved["id"], resolved["resolved"], resolved["resolution"]) == (
        conflict["id"],
        True,
        {"title": "both"},
    )
    assert (await node.ask("GET", "/v1/data/Task/one")).json["title"] == "both"
    assert await listed(node) == []
    again = await node.ask("POST", f"/v1/conflicts/{conflict['id']}/resolve", {"resolution": {"title": "x"}})
    assert (again.status, again.json["error_code"]) == (409, "CONFLICT")
    assert again.json["conflict"] == resolved


async def test_a_conflict_that_has_grown_is_answered_with_what_it_is_now(node: Running, task: Model) -> None:
    third = Other(node.node)
    third.hear()
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    third.write(EditKind.PUT, task, "one", {"title": "c"}, user="cleo")
    await third.meet()
    answer = await node.ask("POST", f"/v1/conflicts/{conflict['id']}/resolve", {"resolution": {"title": "x"}})
    assert (answer.status, answer.json["error_code"]) == (409, "CONFLICT")
    now = answer.json["conflict"]
    assert now["id"] != conflict["id"] and now["resolved"] is False
    assert [value["value"] for value in now["values"]] == ["a", "b", "c"]
    assert (await node.ask("GET", f"/v1/conflicts/{conflict['id']}")).json == now
    good = await node.ask("POST", f"/v1/conflicts/{now['id']}/resolve", {"resolution": {"title": "x"}})
    assert good.status == 200


@pytest.mark.parametrize(
    ("body", "details"),
    [
        ({}, {"resolution": "This field is required"}),
        ({"resolution": ["x"], "by": "me"}, {"resolution": "Must be an object", "by": "Unknown field"}),
        ({"resolution": {}}, {"title": "This field is required"}),
        ({"resolution": {"title": None}}, {"title": "This field is required"}),
        ({"resolution": {"title": 5}}, {"title": "Must be a string"}),
        ({"resolution": {"title": "x", "points": 1}}, {"points": "Not the field of this conflict"}),
    ],
)
async def test_a_resolution_is_checked_against_the_model(
    node: Running, task: Model, body: Any, details: Any
) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    answer = await node.ask("POST", f"/v1/conflicts/{conflict['id']}/resolve", body)
    assert (answer.status, answer.json["details"]) == (400, details)
    assert len(await listed(node)) == 1


async def test_only_who_may_update_resolves(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    _, ann = await node.sign_up("ann")
    assert len(await listed(node, token=ann)) == 1  # any signed-in user may read
    path = f"/v1/conflicts/{conflict['id']}/resolve"
    assert (await node.ask("POST", path, {"resolution": {"title": "x"}}, token=ann)).status == 403
    assert (
        await node.ask("POST", "/v1/conflicts/0123/resolve", {"resolution": {"title": "x"}})
    ).status == 404
    assert (await node.ask("GET", "/v1/conflicts/0123")).status == 404


async def test_a_deletion_that_met_an_update_is_kept_or_taken_back(node: Running, task: Model) -> None:
    for id in ("kept", "back"):
        await node.set(task, id, {"title": "a", "points": 3, "tags": ["x"], "votes": 2})
    node.other.hear()
    for id in ("kept", "back"):
        await node.ask("DELETE", f"/v1/data/Task/{id}")
        node.other.write(EditKind.UPDATE, task, id, {"title": "b"}, user="bob")
    await node.other.meet()
    conflicts = {c["instance_id"]: c for c in await listed(node)}
    assert {c["field"] for c in conflicts.values()} == {"$deleted"}
    assert [v["value"] for v in conflicts["back"]["values"]] == [{"title": "b"}, None]
    assert (await node.ask("GET", "/v1/data/Task/back")).status == 404

    async def resolve(id: str, resolution: Any) -> Any:
        return await node.ask(
            "POST", f"/v1/conflicts/{conflicts[id]['id']}/resolve", {"resolution": resolution}
        )

    bad = await resolve("back", {"$deleted": "no", "points": 1})
    assert (bad.status, list(bad.json["details"])) == (400, ["$deleted", "points"])
    bad = await resolve("back", {"$deleted": True, "points": 1})
    assert bad.json["details"] == {"points": "Only for a document that is restored"}
    bad = await resolve("back", {"$deleted": False, "points": 1000, "colour": 1})
    assert set(bad.json["details"]) == {"points", "colour"}
    kept = await resolve("kept", {"$deleted": True})
    assert (kept.status, kept.json["version"]) == (200, None)
    assert kept.json["conflict"]["resolution"] == {"$deleted": True}
    back = await resolve("back", {"$deleted": False, "points": 7})
    assert back.status == 200, back.text
    assert back.json["conflict"]["resolution"] == {"$deleted": False}
    shown = (await node.ask("GET", "/v1/data/Task/back")).json
    assert {name: shown[name] for name in ("title", "points", "tags", "votes")} == {
        "title": "b",
        "points": 7,
        "tags": ["x"],
        "votes": 2,
    }
    assert (await node.ask("GET", "/v1/data/Task/kept")).status == 404
    assert await listed(node) == []


# -- strategies ----------------------------------------------------------------------------------------------


async def test_what_a_strategy_shows_is_what_reads_lists_filters_and_sums_go_by(node: Running) -> None:
    fields = [{"name": "title", "type": "string"}, {"name": "points", "type": "integer", "merge": "sum"}]
    task = await node.model(definition("merge", fields=fields))
    await node.set(task, "one", {"title": "a", "points": 10})
    node.other.hear()
    await node.apart(task, "one", {"points": 12}, {"points": 15})
    assert (await node.ask("GET", "/v1/data/Task/one")).json["points"] == 17
    found = await node.ask("GET", "/v1/data/Task?filter=points:eq:17")
    assert [item["id"] for item in found.json["items"]] == ["one"]
    summed = await node.ask(
        "POST",
        "/v1/data/Task/aggregate",
        {"aggregations": [{"field": "points", "operation": "sum", "alias": "all"}]},
    )
    assert summed.json == [{"all": 17}]
    assert await listed(node) == []


async def test_under_manual_ordinary_writes_are_refused_and_told_why(node: Running) -> None:
    task = await node.model(definition("manual"))
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    (conflict,) = await listed(node)
    refused = await node.ask("PUT", "/v1/data/Task/one", {"title": "c", "points": 1})
    assert (refused.status, refused.json["error_code"]) == (409, "CONFLICT")
    assert refused.json["details"] == {"title": f"In conflict {conflict['id']}: resolve it first"}
    assert refused.json["conflicts"] == [conflict["id"]]
    assert (await node.ask("DELETE", "/v1/data/Task/one")).status == 409
    assert (await node.ask("PUT", "/v1/data/Task/one", {"points": 1})).status == 200
    answer = await node.ask("POST", f"/v1/conflicts/{conflict['id']}/resolve", {"resolution": {"title": "c"}})
    assert answer.status == 200
    assert (await node.ask("DELETE", "/v1/data/Task/one")).status == 204


async def test_under_three_way_the_ancestor_is_told(node: Running) -> None:
    task = await node.model(definition("three_way"))
    await node.set(task, "one", {"title": "base", "points": 1})
    node.other.hear()
    await node.apart(task, "one", {"title": "a", "points": 2}, {"title": "b", "points": 1})
    (conflict,) = await listed(node)
    assert (conflict["field"], conflict["ancestor"]) == ("title", "base")
    assert (await node.ask("GET", "/v1/data/Task/one")).json["points"] == 2


async def test_a_strategy_whose_plugin_is_not_here_is_marked(node: Running) -> None:
    task = await node.model(definition(PLUGIN))
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    shown = (await node.ask("GET", "/v1/data/Task/one")).json
    assert (shown["title"], shown["strategy_missing"]) == ("b", True)
    (conflict,) = await listed(node)
    assert (conflict["strategy"], conflict["strategy_missing"]) == (PLUGIN, True)
    await node.set(task, "one", {"title": "c"})
    assert "strategy_missing" not in (await node.ask("GET", "/v1/data/Task/one")).json


async def test_a_model_is_refused_where_strategy_and_merge_do_not_fit(node: Running) -> None:
    fields = [
        {"name": "title", "type": "string", "merge": "sum"},
        {"name": "n", "type": "integer", "merge": "max"},
    ]
    refused = await node.ask("POST", "/v1/data-models", definition("newest", fields=fields))
    assert refused.status == 400
    assert set(refused.json["details"]) == {"conflict_strategy", "fields.title.merge"}
    refused = await node.ask("POST", "/v1/data-models", definition("lww", fields=fields[1:]))
    assert refused.json["details"] == {
        "fields.n.merge": "Needs one of these as conflict_strategy: merge, three_way, version_vector"
    }


async def test_a_changed_strategy_shows_everything_in_its_way(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a", "points": 1}, {"title": "b", "points": 2})
    assert len(await listed(node)) == 2
    body = definition("merge")
    body["fields"][1]["merge"] = "sum"
    assert (await node.ask("PUT", "/v1/data-models/Task", body)).status == 200
    assert [c["field"] for c in await listed(node)] == ["title"]
    assert (await node.ask("GET", "/v1/data/Task/one")).json["points"] == 3


# -- history and version vectors -----------------------------------------------------------------------------


async def test_history_tells_every_write_and_the_versions_around_it(node: Running, task: Model) -> None:
    await node.set(task, "one", {"title": "a", "tags": ["x"], "votes": 2})
    node.other.hear()
    created = (await node.ask("GET", "/v1/data/Task/one")).json["version"]
    await node.apart(task, "one", {"title": "b"}, {"title": "c"})
    now = (await node.ask("GET", "/v1/data/Task/one?fields=version,version_vector")).json
    history = (await node.ask("GET", "/v1/data/Task/one/history")).json
    assert (history["total"], history["version"]) == (3, now["version"])
    assert history["version_vector"] == now["version_vector"]
    theirs, ours, first = history["items"]
    assert [item["action"] for item in history["items"]] == ["updated", "updated", "created"]
    assert first["operations"] == [
        {"op": "set", "values": {"title": "a"}},
        {"op": "add", "field": "tags", "elements": ["x"]},
        {"op": "increment", "field": "votes", "by": 2},
    ]
    assert (first["version"], first["previous_version"]) == (created, None)
    assert ours["previous_version"] == theirs["previous_version"] == created
    assert len({ours["version"], theirs["version"], created, now["version"]}) == 4
    assert (theirs["user"], theirs["operations"]) == ("bob", [{"op": "set", "values": {"title": "c"}}])
    assert compare(ours["version_vector"], theirs["version_vector"]) is None
    assert compare(now["version_vector"], theirs["version_vector"]) == 1
    assert compare(first["version_vector"], theirs["version_vector"]) == -1
    await node.ask("DELETE", "/v1/data/Task/one")
    history = (await node.ask("GET", "/v1/data/Task/one/history?per_page=1")).json
    assert (history["total"], history["items"][0]["action"]) == (4, "deleted")
    rest = (await node.ask("GET", f"/v1/data/Task/one/history?cursor={history['next_cursor']}")).json
    assert rest["items"] == [theirs, ours, first]
    second = (await node.ask("GET", "/v1/data/Task/one/history?page=2&per_page=2")).json
    assert second["items"] == [ours, first]
    await node.set(task, "one", {"title": "again"})
    assert (await node.ask("GET", "/v1/data/Task/one/history")).json["items"][0]["action"] == "restored"


def compare(one: dict[str, int], other: dict[str, int]) -> int | None:
    """The seed's `VersionVector.compare`."""
    greater = any(one.get(id, 0) > other.get(id, 0) for id in {*one, *other})
    less = any(one.get(id, 0) < other.get(id, 0) for id in {*one, *other})
    return None if greater and less else int(greater) - int(less)


async def test_history_of_nothing_is_not_found(node: Running, task: Model) -> None:
    assert (await node.ask("GET", "/v1/data/Task/none/history")).status == 404
    assert (await node.ask("GET", "/v1/data/Nothing/none/history")).status == 404
    await node.set(task, "one", {"title": "a"})
    bad = await node.ask("GET", "/v1/data/Task/one/history?per_page=x&colour=red")
    assert set(bad.json["details"]) == {"per_page", "colour"}
    assert (await node.ask("GET", "/v1/data/Task/one/history?cursor=x")).status == 400


async def test_version_vectors_come_with_lists_where_they_are_asked_for(
    node: Running, task: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.set(task, "one", {"title": "a"})
    found = await node.ask("GET", "/v1/data/Task?fields=title,version_vector")
    (item,) = found.json["items"]
    assert set(item) == {"id", "title", "version_vector"}
    one = await node.ask("GET", "/v1/data/Task/one?fields=version_vector")
    assert one.json["version_vector"] == item["version_vector"]
    assert "version_vector" not in (await node.ask("GET", "/v1/data/Task/one")).json
    refused = await node.ask("POST", "/v1/data/Task", {"title": "x", "version_vector": {}})
    assert refused.json["details"] == {"version_vector": "This field is set by the node"}
    monkeypatch.setattr("node.services.records.CACHE_BYTES_MAX", 2_000)
    records = node.node.records
    for _ in range(20):
        records.rendered_with_vector(task, "one")
    kept = records.rendered(task, "one")
    assert records.rendered(task, "one") is kept, "what is rendered again takes the room of what was there"


# -- realtime ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["action", "type"])
async def test_subscribers_hear_of_conflicts_and_of_their_end(
    node: Running, task: Model, dialect: str
) -> None:
    subscribe: dict[str, Any] = {"action": "subscribe", "model": "Task"}
    if dialect == "type":
        subscribe = {"type": "subscribe", "models": ["Task"], "events": ["conflict"]}
    kind, instance = ("event", "instance_id") if dialect == "action" else ("type", "instanceId")
    await node.set(task, "one", {"title": "a"})
    token = (node.node.settings.data_dir / "owner.token").read_text().strip()
    url = f"{node.node.url}/v1/realtime?token={token}"
    async with node.http.ws_connect(url) as socket:
        await socket.send_json(subscribe)
        start = (await socket.receive_json(timeout=60))["cursor"]
        node.other.write(EditKind.PUT, task, "one", {"title": "b"}, user="bob")
        await node.other.meet()
        (conflict,) = await listed(node)
        heard = await heard_until(socket, kind, "conflict")
        assert (heard["model"], heard[instance], heard["conflict"]) == ("Task", "one", conflict)
        await node.set(task, "one", {"title": "c"})
        ended = await heard_until(socket, kind, "conflict_resolved")
        assert (ended["conflict"]["id"], ended["conflict"]["resolved"]) == (conflict["id"], True)
        last = ended["cursor"]
    # Who comes back with a cursor hears what there is still to tell, and nothing twice.
    async with node.http.ws_connect(url) as socket:
        await socket.send_json({**subscribe, "cursor": start})
        again = await heard_until(socket, kind, "conflict_resolved", but_not="conflict")
        assert again["cursor"] == last
        await socket.send_json({**subscribe, "cursor": heard["cursor"]})
        assert (await heard_until(socket, kind, "conflict_resolved"))["cursor"] == last
        await socket.send_json({**subscribe, "cursor": last})
        assert (await socket.receive_json(timeout=60))[kind] == "subscribed"
        await node.apart(task, "two", {"title": "a"}, {"title": "b"})
        assert (await heard_until(socket, kind, "conflict"))[instance] == "two"


async def heard_until(socket: Any, kind: str, name: str, *, but_not: str = "") -> Any:
    while True:
        message = await socket.receive_json(timeout=60)
        assert message[kind] != but_not
        if message[kind] == name:
            return message


async def test_who_may_not_read_a_document_hears_nothing_of_its_conflicts(node: Running) -> None:
    task = await node.model(definition(permissions={"read": "owner", "create": "authenticated"}))
    _, ann = await node.sign_up("ann")
    node.other.hear()
    async with node.http.ws_connect(f"{node.node.url}/v1/realtime?token={ann}") as socket:
        await socket.send_json({"action": "subscribe", "model": "Task"})
        assert (await socket.receive_json(timeout=60))["event"] == "subscribed"
        await node.apart(task, "one", {"title": "a"}, {"title": "b"})
        await node.ask("POST", "/v1/data/Task", {"id": "anns", "title": "x"}, token=ann)
        message = await socket.receive_json(timeout=60)
        assert (message["event"], message["instance_id"]) == ("create", "anns")


# -- around --------------------------------------------------------------------------------------------------


async def test_conflicts_survive_the_index(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    before = await listed(node)
    node.node.integrator.indexer.distrust()
    await node.set(task, "two", {"title": "x"})  # wakes the writer
    async with asyncio.timeout(60):
        while (answer := await node.ask("GET", "/v1/conflicts")).status == 503:
            pass
    assert answer.json["items"] == before


async def test_a_sync_names_the_conflicts_that_it_brought(node: Running, task: Model) -> None:
    await node.apart(task, "one", {"title": "a"}, {"title": "b"})
    found = await node.node.civicbase.conflicts.among(
        APPLICATION, [(APPLICATION, task.id, "one"), ("other", task.id, "one")]
    )
    assert [content for _, content in found] == await listed(node)
    assert await node.node.civicbase.conflicts.among(APPLICATION, [(APPLICATION, "$account", "x")]) == []


async def test_what_is_answered_is_what_the_api_says_of_itself(node: Running) -> None:
    described = (await node.ask("GET", "/openapi.json")).json
    paths = described["paths"]
    assert {"get"} <= set(paths["/v1/conflicts"]) and {"post"} <= set(paths["/v1/conflicts/{id}/resolve"])
    assert {"get"} <= set(paths["/v1/data/{model}/{id}/history"])
