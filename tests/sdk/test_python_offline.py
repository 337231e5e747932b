"""The queue of actions: what it survives, what it shows, and how it meets a node that has moved on."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cosmicsync import (
    AsyncCosmicSync,
    BadRequest,
    Closed,
    CosmicSync,
    LocalChange,
    NodeUnreachable,
    NotFound,
    StoreInUse,
)
from cosmicsync.store import Store
from cosmicsync.transport import Answer, Transport
from tests.system.neighbours import free_port, join, listening, until
from tests.system.process import NodeProcess

ROOT = Path(__file__).parents[2]
PASSWORD = "securepassword123"

QUEUE_UNTIL_KILLED = """
import itertools, sys
from cosmicsync import CosmicSync
client = CosmicSync("http://127.0.0.1:9", token="x", store=sys.argv[1])
for number in itertools.count():
    action = client.queue_offline_action(type="create", modelId="Task", data={"number": number})
    print(action["id"], flush=True)
"""

SEND_AND_HANG = """
import asyncio, sys
from cosmicsync import CosmicSync
from cosmicsync.transport import Transport
once = Transport._once
async def hang(self, method, path, *rest):
    answer = await once(self, method, path, *rest)
    if path == "/v1/batch":
        print("the node has it", flush=True)
        await asyncio.sleep(600)
    return answer
Transport._once = hang
CosmicSync(sys.argv[1], token=sys.argv[2], store=sys.argv[3]).sync()
"""


def child(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    environment = {"PYTHONPATH": str(ROOT / "sdk" / "python"), "PATH": ""}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_what_is_queued_is_shown_at_once_and_sent_in_order(client: CosmicSync, task: str) -> None:
    heard: list[LocalChange] = []
    client.watch_local(task, heard.append)
    made = client.queue_offline_action(
        {"type": "create", "modelId": task, "data": {"title": "new", "priority": 1}}
    )
    id = made["instance_id"]
    client.queue_offline_action(
        {"type": "update", "modelId": task, "instanceId": id, "data": {"priority": 2}}
    )
    shown = client.get_local_data(task, id)
    assert shown == {"id": id, "title": "new", "priority": 2}
    with pytest.raises(NotFound):
        client.get_instance(task, id)
    assert [action["type"] for action in client.get_queued_actions()] == ["create", "update"]

    result = client.sync()
    assert (result.synced_count, result.sent, result.conflicts, result.remaining) == (2, 2, [], 0)
    assert client.get_queued_actions() == []
    assert client.get_instance(task, id).priority == 2
    kept = client.get_local_data(task, id)
    assert kept is not None and kept["version"] == client.get_instance(task, id).version
    assert [change.reason for change in heard][:3] == ["optimistic", "optimistic", "confirmed"]
    client.queue_offline_action(type="delete", modelId=task, instanceId=id)
    assert client.get_local_data(task, id) is None
    assert client.sync().sent == 1
    with pytest.raises(NotFound):
        client.get_instance(task, id)


def test_what_the_node_refuses_is_taken_back_and_told(client: CosmicSync, task: str) -> None:
    id = client.create_instance(task, {"title": "kept", "priority": 1})["id"]
    client.store_locally(task, id, client.get_instance(task, id))
    heard: list[LocalChange] = []
    stop = client.watch_local(task, heard.append, id=id)
    client.queue_offline_action(type="update", modelId=task, instanceId=id, data={"priority": "much"})
    client.queue_offline_action(type="create", modelId=task, data={"title": "after it"})
    result = client.sync()
    assert (result.sent, result.remaining) == (1, 0)
    (refused,) = result.refused
    assert isinstance(refused["error"], BadRequest) and "priority" in refused["error"].details
    assert [(c.reason, c.data and c.data["priority"]) for c in heard] == [
        ("optimistic", "much"),
        ("reverted", 1),
    ]
    assert heard[-1].error is refused["error"]

    stop()
    waiting = client.queue_offline_action(type="update", modelId=task, instanceId=id, data={"priority": 5})
    assert client.discard_queued_action(waiting["id"]) and not client.discard_queued_action(waiting["id"])
    assert client.get_local_data(task, id)["priority"] == 1  # type: ignore[index]
    assert len(heard) == 2


def test_a_queue_survives_kill_9_in_its_order(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    writing = child(QUEUE_UNTIL_KILLED, str(store))
    assert writing.stdout is not None
    acknowledged = [writing.stdout.readline().strip() for _ in range(20)]
    writing.kill()
    acknowledged += writing.stdout.read().split()
    writing.wait()
    writing.stdout.close()
    kept = [action.id for action in Store(store).actions()]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1  # one may be there whose word did not come through


def test_what_was_being_sent_when_the_process_was_killed_is_stored_once(
    node: NodeProcess, client: CosmicSync, task: str, tmp_path: Path
) -> None:
    store = tmp_path / "killed.sqlite"
    base = client.create_instance(task, {"title": "base", "priority": 1})
    with CosmicSync(node.url, token=node.token, store=store) as first:
        first.store_locally(task, base["id"], first.get_instance(task, base["id"]))
        first.queue_offline_action(type="create", modelId=task, data={"title": "made once"})
        first.queue_offline_action(type="update", modelId=task, instanceId=base["id"], data={"priority": 2})
    sending = child(SEND_AND_HANG, node.url, node.token, str(store))
    assert sending.stdout is not None and sending.stdout.readline() == "the node has it\n"
    with CosmicSync(node.url, token=node.token, store=store) as again:
        with pytest.raises(StoreInUse):
            again.sync()
        sending.kill()
        sending.wait()
        sending.stdout.close()
        result = again.sync()
        assert (result.sent, result.refused, result.conflicts, result.remaining) == (2, [], [], 0)
        assert again.sync().sent == 0
    assert sorted(item.title for item in client.query(task)) == ["base", "made once"]
    assert client.get_instance(task, base["id"]).priority == 2


@asynccontextmanager
async def silence(heard: asyncio.Queue[str]) -> AsyncIterator[str]:
    """The address of a node that reads requests and never answers one."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith((b"GET ", b"POST ")):
                heard.put_nowait(line.decode().split("?")[0].rsplit(" HTTP", 1)[0])
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_waits_for_the_node_when_the_client_is_closed_ends_and_another_client_sends_the_queue(
    node: NodeProcess, client: CosmicSync, task: str, tmp_path: Path
) -> None:
    store, heard = tmp_path / "closed.sqlite", asyncio.Queue[str]()
    async with silence(heard) as url:
        first = AsyncCosmicSync(url, token=node.token, store=store)
        for number in range(2):
            await first.queue_offline_action(type="create", modelId=task, data={"title": f"t{number}"})
        waiting = [
            asyncio.ensure_future(work)
            for work in (first.sync(), first.sync(), first.get_instance(task, "x"), first.partial_sync())
        ]
        asked = {await heard.get() for _ in range(3)}
        assert asked == {"POST /v1/batch", f"GET /v1/data/{task}/x", "GET /v1/sync/changes"}
        await first.close()
        for one in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(one, Closed) and one.error_code == "CLOSED" and one.status is None
        with pytest.raises(Closed):
            await first.sync()
        with pytest.raises(Closed):
            await first.create_instance(task, {"title": "late"})
        with pytest.raises(Closed):
            await first.queue_offline_action(type="create", modelId=task, data={"title": "late"})
        assert heard.empty()
    async with AsyncCosmicSync(node.url, token=node.token, store=store) as second:
        result = await second.sync()
        assert (result.sent, result.refused, result.remaining) == (2, [], 0)
    assert sorted(item.title for item in client.query(task)) == ["t0", "t1"]


@pytest.mark.parametrize("closes_itself", [False, True])
async def test_a_client_that_is_closed_while_a_hook_runs_sends_nothing_more_and_lets_go_of_the_queue(
    closes_itself: bool, node: NodeProcess, client: CosmicSync, task: str, tmp_path: Path
) -> None:
    store, in_hook = tmp_path / "closed.sqlite", asyncio.Event()
    first = AsyncCosmicSync(node.url, token=node.token, store=store)

    async def after(_data: Any, _context: Any) -> None:
        in_hook.set()
        if not closes_itself:
            await asyncio.Event().wait()
        other = asyncio.ensure_future(first.sync())  # waits until this one has ended
        await asyncio.sleep(0)
        await first.close()
        await asyncio.wait({other})
        assert isinstance(other.exception(), Closed)

    first.register_trigger(model=task, event="afterCreate", handler=after)
    made = await first.queue_offline_action(type="create", modelId=task, data={"title": "one"})
    update = {"modelId": task, "instanceId": made["instance_id"], "data": {"title": "two"}}
    await first.queue_offline_action(type="update", **update)  # goes after the other
    syncing = asyncio.ensure_future(first.sync())
    await in_hook.wait()
    if not closes_itself:
        await first.close()
    with pytest.raises(Closed):
        await syncing
    assert [item.title for item in client.query(task)] == ["one"]
    async with AsyncCosmicSync(node.url, token=node.token, store=store) as second:
        result = await second.sync()
        assert (result.sent, result.refused, result.conflicts, result.remaining) == (1, [], [], 0)
    assert [item.title for item in client.query(task)] == ["two"]


def test_a_thread_that_waits_for_the_node_hears_that_the_client_was_closed(node: NodeProcess) -> None:
    closed = CosmicSync(node.url, token=node.token)
    is_waiting, ended = threading.Event(), list[BaseException]()

    async def never() -> None:
        is_waiting.set()
        await asyncio.Event().wait()

    async def ask(*_: Any) -> None:
        async with closed._client._transport.closing.open():
            await never()

    closed._client._transport._once = ask  # type: ignore[assignment, method-assign]

    def wait() -> None:
        try:
            closed.sync()
        except Closed as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    is_waiting.wait()
    closed.close()
    waiting.join()
    assert len(ended) == 1
    with pytest.raises(Closed):
        closed.sync()
    closed.close()


def test_a_queue_waits_for_the_node_and_a_subscription_goes_on_where_it_was(tmp_path: Path) -> None:
    ports = ("--api", f"127.0.0.1:{free_port()}", "--listen", "127.0.0.1:0", "--no-mdns")
    heard: list[Any] = []
    with NodeProcess(tmp_path / "data", ports=ports) as node:
        client = CosmicSync(node.url, token=node.token, store=tmp_path / "store.sqlite")
        client.define_model("Task", fields={"title": "string"})
        subscription = client.subscribe("Task", heard.append, durable="tasks")
        subscription.ready()
        client.create_instance("Task", {"title": "before"})
        until(lambda: len(heard) == 1, "the first event", node)
        node.kill()
        offline = client.sync()
        assert (offline.is_offline, offline.sent) == (True, 0)
        for number in range(3):
            client.queue_offline_action(type="create", modelId="Task", data={"title": f"while down {number}"})
        assert client.sync().remaining == 3
        assert not subscription.is_connected
        with NodeProcess(tmp_path / "data", ports=ports) as node:
            assert client.sync().sent == 3
            titles = ["before", *(f"while down {number}" for number in range(3))]
            until(lambda: len(heard) >= 4, "the missed events", node)
            assert [event["data"]["title"] for event in heard] == titles
            assert [event["type"] for event in heard] == ["create"] * 4
            subscription.close()
            client.create_instance("Task", {"title": "unheard"})
            # Another run of the app begins where the subscription of that name ended.
            later: list[Any] = []
            resumed = client.subscribe("Task", later.append, durable="tasks")
            until(lambda: len(later) == 1, "what came meanwhile", node)
            assert later[0]["data"]["title"] == "unheard" and later[0]["previous"]
            resumed.close()
            client.close()


# -- meeting another version


def apart(client: CosmicSync, task: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """An instance of which a copy is here; an action waits, and the node has moved on."""
    id = client.create_instance(task, {"title": "base", "priority": 1, "tags": ["base"]})["id"]
    client.store_locally(task, id, client.get_instance(task, id))
    client.queue_offline_action(type="update", modelId=task, instanceId=id, data=here)
    with CosmicSync(client._client._transport.url, token=client._client._transport.token) as other:
        other.update_instance(task, id, there)
    return str(id)


def test_changes_of_different_fields_come_together(client: CosmicSync, task: str) -> None:
    id = apart(client, task, {"priority": 2}, {"title": "theirs"})
    result = client.sync()
    assert (result.sent, result.conflicts) == (1, [])
    found = client.get_instance(task, id)
    assert (found.title, found.priority) == ("theirs", 2)
    assert client.get_local_data(task, id) == found


def test_a_resolver_sees_both_versions_and_their_ancestor(client: CosmicSync, task: str) -> None:
    seen: list[Any] = []

    def merge(local: Any, remote: Any, ancestor: Any) -> Any:
        seen.append((local.priority, remote.priority, ancestor.priority))
        assert (
            local.timestamp < remote.timestamp and "updated_at" not in local
        )  # to be read, not to be merged
        assert client.get_common_ancestor(local.id, remote.id) == ancestor
        return {**local, **remote, "tags": sorted({*local.tags, *remote.tags})}

    client.set_conflict_resolver(task, merge)
    id = apart(client, task, {"priority": 2, "tags": ["here"]}, {"priority": 3, "tags": ["there"]})
    result = client.sync()
    assert (result.sent, result.conflicts, seen) == (1, [], [(2, 3, 1)])
    found = client.get_instance(task, id)
    assert (found.priority, set(found.tags)) == (3, {"here", "there"})

    client.set_conflict_resolver(task, lambda local, remote: None)  # leaves it open
    apart(client, task, {"priority": 2}, {"priority": 3})
    assert len(client.sync().conflicts) == 1


@pytest.mark.parametrize("resolution", ["local", "remote", {"priority": 9}])
def test_a_conflict_waits_until_somebody_decides(client: CosmicSync, task: str, resolution: Any) -> None:
    id = apart(client, task, {"priority": 2}, {"priority": 3})
    other = client.create_instance(task, {"title": "other"})["id"]
    client.queue_offline_action(type="update", modelId=task, instanceId=id, data={"title": "follows"})
    client.queue_offline_action(type="update", modelId=task, instanceId=other, data={"priority": 4})
    first = client.sync()
    (conflict,) = first.conflicts
    assert (conflict["model"], conflict["instance_id"], conflict["field"]) == (task, id, "priority")
    assert [value["value"] for value in conflict["values"]] == [2, 3]
    assert (conflict["local"]["priority"], conflict["remote"]["priority"]) == (2, 3)
    assert conflict["ancestor"]["priority"] == 1
    # What follows on the same instance waits behind it, others do not.
    assert first.remaining == 2 and client.get_instance(task, other).priority == 4
    assert client.get_instance(task, id).title == "base"
    assert client.sync().conflicts[0]["id"] == conflict["id"]

    assert client.resolve_conflict(conflict["id"], resolution)["resolved"]
    assert client.sync().remaining == 0
    found = client.get_instance(task, id)
    assert found.title == "follows"
    assert found.priority == {"local": 2, "remote": 3}.get(str(resolution), 9)


def test_an_update_of_what_is_gone_is_refused_and_its_deletion_is_not(client: CosmicSync, task: str) -> None:
    ids = [client.create_instance(task, {"title": "t"})["id"] for _ in range(2)]
    client.queue_offline_action(type="update", modelId=task, instanceId=ids[0], data={"priority": 1})
    client.queue_offline_action(type="delete", modelId=task, instanceId=ids[1])
    for id in ids:
        client.delete_instance(task, id)
    result = client.sync()
    assert (result.sent, [type(r["error"]) for r in result.refused]) == (1, [NotFound])


def test_an_edit_of_what_was_only_just_sent_overwrites_nobody(
    client: CosmicSync, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = Transport._once

    async def cut(self: Transport, method: str, path: str, *rest: Any) -> Answer:
        if path == "/v1/sync/changes":  # between the answer to a write and the changes that follow it
            raise NodeUnreachable("the link is lost")
        return await once(self, method, path, *rest)

    monkeypatch.setattr(Transport, "_once", cut)
    monkeypatch.setattr("cosmicsync.transport.BACKOFF_S", 0.0)
    id = client.queue_offline_action(type="create", modelId=task, data={"title": "sent"})["instance_id"]
    assert (client.sync().is_offline, client.get_queued_actions()) == (True, [])
    client.queue_offline_action(type="update", modelId=task, instanceId=id, data={"title": "mine"})
    client.update_instance(task, id, {"title": "theirs"})
    (conflict,) = client.sync().conflicts
    assert (conflict["local"]["title"], conflict["remote"]["title"]) == ("mine", "theirs")
    assert client.get_instance(task, id).title == "theirs"


# -- local copies


def test_a_copy_lasts_as_long_as_it_is_to(client: CosmicSync, task: str) -> None:
    client.store_locally(task, "1", {"title": "kept"})
    client.store_locally(task, "2", {"title": "gone"}, ttl_s=0)
    assert client.get_local_data(task, "1") == {"id": "1", "title": "kept"}
    assert client.get_local_data(task, "2") is None and client.get_local_data(task, "3") is None
    client.store_locally(task, "user_1", {"title": "a"})
    client.store_locally(task, "4", {"title": "b", "created_by": "user_1"})
    client.queue_offline_action(type="update", modelId=task, instanceId="1", data={"priority": 3})
    client.queue_offline_action(type="create", modelId=task, data={"id": "5", "title": "queued"})
    client.queue_offline_action(type="delete", modelId=task, instanceId="4")
    shown = client.query_local(task, {"title": {"$ne": "a"}}, sort={"title": -1})
    assert [(item.id, item.get("priority")) for item in shown] == [("5", None), ("1", 3)]
    assert [item.id for item in client.query_local(task, sort={"title": 1}, skip=1, limit=1)] == ["1"]
    with pytest.raises(BadRequest):
        client.query_local(task, {"$where": 1})
    for action in client.get_queued_actions():
        client.discard_queued_action(action["id"])
    assert client.clear_local_data("user_1") == 2
    assert client.get_local_data(task, "1") is not None
    assert client.clear_local_data() == 1 and client.get_local_data(task, "1") is None


def test_copies_follow_what_others_do(client: CosmicSync, task: str) -> None:
    ids = [client.create_instance(task, {"title": "t"})["id"] for _ in range(3)]
    for id in ids[:2]:
        client.store_locally(task, id, client.get_instance(task, id))
    heard: list[LocalChange] = []
    client.watch_local(task, heard.append)
    before = client.partial_sync()
    client.update_instance(task, ids[0], {"title": "new"})
    client.request("DELETE", f"/v1/data/{task}/{ids[1]}")
    since = client.partial_sync()
    assert {change["type"] for change in since.changes} == {"update", "delete"} and since.synced_count == 2
    assert client.get_local_data(task, ids[0])["title"] == "new"  # type: ignore[index]
    assert client.get_local_data(task, ids[1]) is None
    assert [change.reason for change in heard] == ["remote", "remote"]
    assert client.partial_sync(before.cursor).synced_count == 2
    assert client.partial_sync(time.time() * 1000 - 60_000, model=task).synced_count >= 4


def test_a_queue_is_sent_by_the_user_who_filled_it(node: NodeProcess, task: str, tmp_path: Path) -> None:
    store = tmp_path / "shared.sqlite"
    users = {}
    for name in ("cyd", "dee"):
        with CosmicSync(node.url, store=store) as client:
            client.auth.register(email=f"{name}@example.org", username=name, password=PASSWORD)
            client.auth.login(email=f"{name}@example.org", password=PASSWORD)
            users[name] = client.auth.tokens
            client.queue_offline_action(type="create", modelId=task, data={"title": f"of {name}"})
    with CosmicSync(node.url, store=store) as client:
        client.auth.use(users["dee"])
        assert (client.sync().sent, client.sync().remaining) == (1, 1)
        client.auth.use(users["cyd"])
        assert (client.sync().sent, client.sync().remaining) == (1, 0)
        owners = {item.title: item.created_by for item in client.query(task)}
        assert len(set(owners.values())) == 2


# -- two devices


def test_what_is_written_through_one_node_is_read_through_another_and_conflicts_reach_the_resolver(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with NodeProcess(one) as a, NodeProcess(two) as b:
        join(b, a)
        here, there = CosmicSync(a.url, token=a.token), CosmicSync(b.url, token=b.token)
        here.define_model("Profile", fields={"name": "string", "points": "integer"})
        until(lambda: b.ask("GET", "/v1/data-models/Profile").status == 200, "the model", a, b)
        heard: list[Any] = []
        there.subscribe("Profile", heard.append).ready()
        made = here.create_instance("Profile", {"name": "ada", "points": 1}, wait_for_peers=1)
        assert made["held_by_peers"] == 1
        id = made["id"]
        assert there.get_instance("Profile", id).name == "ada"
        # The end of the first sync, told as a `resync`, may come before it.
        until(lambda: any(event["type"] == "create" for event in heard), "the event", a, b)
        b.stop()
        here.update_instance("Profile", id, {"points": 5})
        a.stop()
        with NodeProcess(two) as b:
            with CosmicSync(b.url, token=b.token) as alone:
                alone.update_instance("Profile", id, {"points": 7})
            with NodeProcess(one, "--peer", listening(b)) as a, CosmicSync(a.url, token=a.token) as again:
                shown: list[Any] = []

                def most(local: Any, remote: Any) -> Any:
                    shown.append({local.points, remote.points})
                    return local if local.points > remote.points else remote

                again.set_conflict_resolver("Profile", most)
                until(lambda: bool(again.get_conflicts("Profile")), "the conflict", a, b)
                result = again.sync(wait_for_peers_s=5)
                assert (result.conflicts, shown) == ([], [{5, 7}])
                assert again.get_instance("Profile", id).points == 7 and not again.get_conflicts("Profile")
        here.close()
        there.close()
