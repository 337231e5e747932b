"""Subscriptions: what becomes of them when cursors, tokens and clients end."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cosmicsync import AsyncCosmicSync, CosmicSync, NodeUnreachable
from cosmicsync.realtime import Event, Subscription
from cosmicsync.transport import Tokens, Transport
from tests.system.neighbours import until
from tests.system.process import NodeProcess

OLD = "00000000.1.0"  # a cursor of another life of a node's store
PASSWORD = "securepassword123"


def test_where_what_was_missed_is_not_known_copies_are_read_anew_and_it_goes_on(
    node: NodeProcess, client: CosmicSync, task: str
) -> None:
    id = client.create_instance(task, {"title": "now"})["id"]
    gone = client.create_instance(task, {"title": "gone"})["id"]
    old = {"title": "once", "version": "old"}
    client.store_locally(task, id, old)
    client.store_locally(task, "own", {"title": "the app's own"})
    heard: list[Any] = []

    def hear(event: Any) -> None:
        shown = client.get_local_data(task, id)
        heard.append((event["type"], shown and shown["title"]))

    subscription = client.subscribe(task, hear, cursor=OLD)
    until(lambda: len(heard) == 1, "the resync", node)
    client.update_instance(task, id, {"title": "later"})
    until(lambda: len(heard) == 2, "the update", node)
    assert heard == [("resync", "now"), ("update", "later")]
    subscription.close()

    client.store_locally(task, id, old)
    client.store_locally(task, gone, old)
    client.store_locally(f"{task}Here", "1", {"title": "of a model that is only here"})
    client.request("DELETE", f"/v1/data/{task}/{gone}")
    assert client.partial_sync(OLD).resync
    assert [item.title for item in client.query_local(task, sort={"title": 1})] == ["later", "the app's own"]
    assert len(client.query_local(f"{task}Here")) == 1


def test_a_token_that_counts_no_more_is_renewed(node: NodeProcess, task: str) -> None:
    with CosmicSync(node.url) as person:
        person.auth.register(email="hal@example.org", username="hal", password=PASSWORD)
        person.auth.login(email="hal@example.org", password=PASSWORD)
        first = person.auth.tokens
        assert first is not None
        person.auth.use(Tokens(first.token + "x", first.refresh_token))
        heard: list[Any] = []
        person.subscribe(task, heard.append).ready()
        assert person.auth.tokens is not None and person.auth.tokens.token != first.token
        person.create_instance(task, {"title": "heard"})
        until(lambda: len(heard) == 1, "the event", node)


async def test_a_client_that_is_closed_leaves_nothing_running(node: NodeProcess, task: str) -> None:
    threads = set(threading.enumerate())
    tasks = asyncio.all_tasks()
    closed = asyncio.Event()
    async with AsyncCosmicSync(node.url, token=node.token) as client:

        async def once(event: Any) -> None:
            await subscription.close()  # from within: no handler waits for itself
            closed.set()

        subscription = await client.subscribe(task, once)
        await subscription.ready()
        await client.create_instance(task, {"title": "heard"})
        await closed.wait()
        await (await client.subscribe(task, lambda event: None)).ready()
    assert asyncio.all_tasks() == tasks
    ended = threading.Event()
    with CosmicSync(node.url, token=node.token) as blocking:

        def last(event: Any) -> None:
            following.close()
            ended.set()

        following = blocking.subscribe(task, last)
        following.ready()
        blocking.create_instance(task, {"title": "heard"})
        assert ended.wait(60)
    assert {thread for thread in threading.enumerate() if "asyncio" not in thread.name} <= threads


async def test_links_are_tried_again_ever_later_by_chance_and_soon_after_one_that_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_most_s: list[float] = []

    def uniform(low: float, high: float) -> float:
        at_most_s.append(high)
        return low

    monkeypatch.setattr("cosmicsync.realtime.random.uniform", uniform)
    subscription = Subscription(Transport("http://127.0.0.1:9"), ["Task"])
    tries = itertools.count(1)

    async def link() -> AsyncIterator[Event]:
        number = next(tries)
        if number == 12:
            subscription._closing.set()
        if number != 10:
            raise NodeUnreachable("nobody there")
        subscription._up.set()
        yield {}

    monkeypatch.setattr(subscription, "_link", link)
    assert [event async for event in subscription] == [{}]
    assert at_most_s == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 0.2, 0.4, 0.8]
