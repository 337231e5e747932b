"""Who waits for other nodes is answered when enough of them hold it, and at the deadline with how many do."""

import asyncio
from typing import Any

import pytest

from node.services import receipts
from node.services.receipts import Newest, Receipts
from protocol.exchange import EVERYTHING, PeerHolds, Shares
from protocol.ids import Author, NodeId, SpaceId

SPACE, OTHER = SpaceId(bytes(16)), SpaceId(b"\1" * 16)
HERE = NodeId(bytes(32))
SOON_S = 0.02


def peer(number: int, life: int = 0) -> Author:
    return Author(bytes([number]) * 32 + bytes([life]) * 8)


class Node:
    """Receipts over a chain that stands at `seq` and a record that stands at `arrival`."""

    def __init__(self, seq: int = 5, arrival: int = 9) -> None:
        self.seq, self.arrival = seq, arrival
        self.receipts = Receipts(HERE, lambda application: Newest(application, SPACE, self.seq, self.arrival))

    def hears(self, author: Author, seq: int = 0, position: int = 0, shares: Shares = EVERYTHING) -> None:
        chains = ((SPACE, seq),) if seq else ()
        self.receipts.on_peer_holds(author, shares, PeerHolds(chains, position))

    def ask(self, count: int, timeout_s: float = 30) -> "asyncio.Task[int]":
        return asyncio.create_task(self.receipts.wait("default", count, timeout_s))


async def begun(task: "asyncio.Task[Any]") -> None:
    await asyncio.sleep(0)
    assert not task.done()


async def test_the_answer_comes_when_enough_nodes_hold_it() -> None:
    node = Node()
    task = node.ask(2)
    await begun(task)
    node.hears(peer(1), seq=5)
    await begun(task)
    node.hears(peer(2), seq=4)
    await begun(task)
    node.hears(peer(2), seq=6)
    assert await task == 2


async def test_nodes_count_and_not_links_nor_lives() -> None:
    node = Node()
    task = node.ask(2)
    await begun(task)
    node.hears(peer(1), seq=5)
    node.hears(peer(1), seq=7)
    node.hears(peer(1, life=1), seq=5)
    await begun(task)
    node.hears(Author(HERE + b"\7" * 8), seq=9)  # another life of this very node
    await begun(task)
    node.hears(peer(2), seq=5)
    assert await task == 2


async def test_what_is_held_already_is_answered_at_once() -> None:
    node = Node()
    node.hears(peer(1), seq=5)
    node.hears(peer(2), position=9)
    assert await node.receipts.wait("default", 2, 30) == 2
    assert await node.receipts.wait("default", 0, 30) == 2
    node.seq, node.arrival = 6, 10
    assert await node.receipts.wait("default", 1, SOON_S) == 0


async def test_at_the_deadline_it_is_said_how_many_do() -> None:
    node = Node()
    node.hears(peer(1), seq=5)
    assert await node.receipts.wait("default", 3, SOON_S) == 1
    assert not node.receipts._waiting


async def test_a_place_in_the_order_of_arrival_counts_only_for_what_is_shared() -> None:
    node = Node()
    node.hears(peer(1), position=9, shares=Shares(frozenset({"app/other"})))
    node.hears(peer(2), position=9, shares=Shares(frozenset({"app/default"})))
    node.hears(peer(3), position=8)
    assert await node.receipts.wait("default", 3, SOON_S) == 1


async def test_a_node_that_comes_back_in_another_life_is_asked_anew() -> None:
    node = Node()
    node.hears(peer(1), seq=5)
    node.hears(peer(1, life=1), seq=2)
    assert await node.receipts.wait("default", 1, SOON_S) == 0


async def test_a_node_that_is_no_member_any_more_does_not_count() -> None:
    node = Node()
    task = node.ask(2)
    await begun(task)
    node.hears(peer(1), seq=5)
    node.receipts.on_members_changed(lambda member: member != peer(1)[:32])
    node.hears(peer(2), seq=5)
    await begun(task)
    node.receipts.close()
    assert await task == 1


async def test_a_node_without_commits_in_the_application_waits_for_all_that_is_here() -> None:
    node = Node(seq=0)
    node.hears(peer(1), seq=5)
    node.hears(peer(2), position=9)
    assert await node.receipts.wait("default", 2, SOON_S) == 1


async def test_too_many_who_wait_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "WAITING_MAX", 1)
    node = Node()
    first = node.ask(1)
    await begun(first)
    assert await node.receipts.wait("default", 1, 30) == 0
    node.hears(peer(1), seq=5)
    assert await first == 1


async def test_a_stopping_node_answers_whoever_waits() -> None:
    node = Node()
    tasks = [node.ask(1), node.ask(2)]
    await begun(tasks[0])
    node.receipts.close()
    assert [await task for task in tasks] == [0, 0]
    assert await node.receipts.wait("default", 1, 30) == 0


async def test_only_so_many_nodes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "HOLDERS_MAX", 2)
    node = Node()
    for number in (1, 2, 3):
        node.hears(peer(number), seq=5)
    assert list(node.receipts.holdings) == [peer(2)[:32], peer(3)[:32]]


async def test_a_caller_who_gives_up_is_forgotten() -> None:
    node = Node()
    task = node.ask(1)
    await begun(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not node.receipts._waiting
    node.hears(peer(1), seq=5)
