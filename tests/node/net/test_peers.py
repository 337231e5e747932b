"""Which links there are: dialing, two calls at once, strangers, and nodes that lose their role."""

import asyncio
import itertools
from typing import Any

import pytest

from node.net.contacts import RETRY_MAX_MS, Source
from node.net.link import Link, Machine
from node.net.peers import STRANGERS_MAX
from node.origins import Address
from protocol.exchange import Shares
from protocol.handshake import Peer
from protocol.joining import Opening
from protocol.roles import Rights, Role
from tests.node.net.wires import WiredNode, are_equal, wired
from tests.protocol.dialogue import KEYS, Record


class SomeMembers:
    """Rights by node, as the test wants them."""

    def __init__(self, rights: dict[bytes, Rights | None], default: Rights | None = None) -> None:
        self.rights = rights
        self.default = default

    def rights_of(self, node: bytes) -> Rights | None:
        return self.rights.get(node, self.default)


async def test_a_configured_peer_is_dialed_and_both_come_to_hold_the_same() -> None:
    wires, (a, b) = wired("a", "b", apart=3)
    b.know(a)
    await wires.settle()
    assert are_equal(a, b)
    a.put("later", title="live")
    await wires.settle()
    assert are_equal(a, b)
    assert b.remembered == [(a.address, KEYS.public)]
    assert a.remembered == []  # where a caller calls from is not where it listens


async def test_two_that_call_each_other_at_once_keep_the_same_single_link() -> None:
    for names in (("a", "b"), ("b", "a"), ("x", "y")):
        wires, (a, b) = wired(*names, apart=1)
        a.know(b)
        b.know(a)
        await wires.settle()
        await wires.pass_s(30)
        assert len(a.peers.talks) == len(b.peers.talks) == 1
        (kept,), (other,) = a.peers.talks, b.peers.talks
        assert kept.side is not other.side
        assert are_equal(a, b)
        assert a.reasons == b.reasons == {}


async def test_a_node_that_comes_back_before_its_old_link_was_missed_is_linked_anew() -> None:
    for names in (("a", "b"), ("b", "a")):
        wires, (a, b) = wired(*names)
        b.know(a)
        await wires.settle()
        for transport in wires.transports:  # a cable is pulled: neither side hears of it
            transport.is_stuck = True
        (old,) = b.peers.talks
        b.peers.talks.clear()
        b.peers.links.clear()
        wires.transports = [t for t in wires.transports if t.link is not old]
        b.peers.wake()
        await wires.settle()
        a.put("after", title="x")
        await wires.settle()
        await wires.pass_s(60)
        assert len(a.peers.talks) == 1
        assert are_equal(a, b)


async def test_a_node_never_keeps_a_link_to_itself() -> None:
    wires, (a,) = wired("a")
    a.know(a)
    await wires.settle()
    await wires.pass_s(120)
    assert not a.peers.links
    assert a.dialed == [a.address]
    assert a.peers.is_in_sync  # alone


async def test_a_peer_that_is_not_there_is_called_ever_more_seldom_but_never_forgotten() -> None:
    wires, (a, b) = wired("a", "b")
    b.is_up = False
    a.know(b)
    await wires.settle()
    await wires.pass_s(600)
    calls = len(a.dialed)
    assert 600_000 / RETRY_MAX_MS <= calls <= 2 * 600_000 / RETRY_MAX_MS + 8
    (contact,) = a.peers.contacts
    assert contact.fault == "Connection refused"
    assert not a.peers.is_in_sync
    b.is_up = True
    await wires.pass_s(RETRY_MAX_MS / 1_000 + 1)
    assert are_equal(a, b)


async def test_after_a_cut_the_peer_is_called_again_within_a_moment() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    b.cut()
    await wires.settle()
    assert not a.peers.talks and not b.peers.talks
    a.put("meanwhile", title="x")
    await wires.pass_s(2)
    assert are_equal(a, b)


async def test_whoever_wants_to_know_now_does_not_wait_for_the_back_off() -> None:
    wires, (a, b) = wired("a", "b")
    b.is_up = False
    a.know(b)
    await wires.pass_s(100)
    calls = len(a.dialed)
    b.is_up = True
    a.peers.wake()
    await wires.settle()
    assert len(a.dialed) == calls + 1
    assert are_equal(a, b)


async def test_a_node_of_another_network_gets_nothing_and_is_counted() -> None:
    wires, (a, _) = wired("a", "b")
    stranger = WiredNode(wires, Record("stranger"), Address("10.9.9.9", 1))
    before = len(wires.transports)
    stranger.know(a)
    await wires.settle()
    assert not a.peers.links and not stranger.peers.links
    assert a.reasons == {"stranger": 1}
    assert stranger.reasons == {"gone": 1}
    assert len(wires.transports) == before + 2
    assert not a.desk.performed


async def test_a_node_without_a_role_gets_no_session() -> None:
    wires, (a, b) = wired("a", "b", apart=2)
    a.members = SomeMembers({KEYS.public: None})  # type: ignore[assignment]
    b.know(a)
    await wires.settle()
    assert not a.peers.talks
    assert a.reasons == {"no_role": 1}
    assert a.peers.notes[0].kind == "no_role"
    assert not a.desk.performed
    await wires.pass_s(60)
    assert not b.peers.talks


class Greeter:
    """Speaks with those who have no role here, as one that lets nodes join would."""

    def __init__(self, link: Link, peer: Peer) -> None:
        self.link, self.peer = link, peer
        self.heard = b""
        self.has_begun = self.has_ended = False
        self.deadline_ms: int | None = None

    @property
    def machine(self) -> Machine:
        return self

    def begin(self) -> None:
        self.has_begun = True

    def receive(self, data: bytes, now_ms: int) -> list[Any]:
        self.heard += data
        return []

    def receive_eof(self) -> list[Any]:
        return []

    def on_deadline(self, now_ms: int) -> list[Any]:
        return []

    def take_bytes(self) -> bytes:
        return b""

    def on_event(self, event: Any) -> None:
        raise AssertionError("it has none")

    def on_writable(self) -> None: ...

    def on_end(self) -> None:
        self.has_ended = True


async def test_a_node_without_a_role_is_handed_to_whoever_lets_nodes_join() -> None:
    wires, (a, b) = wired("a", "b")
    greeted: list[Greeter] = []

    def greet(link: Link, peer: Peer, opening: Opening) -> Greeter:
        greeted.append(Greeter(link, peer))
        return greeted[-1]

    a = WiredNode(wires, a.record, a.address, strangers=greet)
    a.members = SomeMembers({KEYS.public: None})  # type: ignore[assignment]
    b.know(a)
    await wires.settle()
    (greeter,) = greeted
    assert greeter.has_begun
    assert greeter.peer.author == b.record.author
    assert greeter.heard  # the caller's first words, which came with the end of its handshake or after
    assert not a.peers.talks and a.peers.keeper.knocking == 1
    b.cut()
    await wires.settle()
    assert greeter.has_ended
    assert a.peers.keeper.knocking == 0


async def test_no_more_than_a_few_strangers_are_greeted_at_a_time() -> None:
    wires, (a,) = wired("a")
    a = WiredNode(wires, a.record, a.address, strangers=lambda link, peer, opening: Greeter(link, peer))
    a.members = SomeMembers({KEYS.public: None})  # type: ignore[assignment]
    others = []
    for number in range(STRANGERS_MAX + 3):
        others.append(
            WiredNode(wires, Record(f"s{number}", founder=a.record), Address(f"10.1.0.{number}", 1))
        )
        others[-1].know(a)
    await wires.settle()
    assert a.reasons == {"no_role": 3}
    assert len(a.peers.links) == STRANGERS_MAX


async def test_a_node_that_loses_its_role_loses_its_link_and_is_not_let_in_again() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    a.members = SomeMembers({KEYS.public: None})  # type: ignore[assignment]
    a.peers.on_members_changed()
    await wires.settle()
    await wires.pass_s(60)
    assert not a.peers.talks
    assert a.reasons["no_role"] >= 2  # when it lost the role, and each time that it came back
    held = b.record.exchange.position
    a.put("secret", title="not for b")
    await wires.pass_s(60)
    assert b.record.exchange.position == held


async def test_a_link_begins_anew_when_rights_change_what_may_cross_it() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    space = a.record.store.space("default")
    some: Any = SomeMembers({}, Rights(Role.MEMBER, frozenset({space})))
    a.members = b.members = some
    a.record.put("other", application="elsewhere", title="x")
    a.peers.on_members_changed()
    await wires.settle()
    await wires.pass_s(30)
    (talk,) = a.peers.talks.values()
    shares = Shares(ids=frozenset({space}), network_id=a.record.identity.network_id)
    assert a.peers._shares[talk.link] == shares
    assert b.record.seq(a.record.author, "elsewhere") == 0
    a.put("mine", title="y")
    await wires.settle()
    assert b.record.seq(a.record.author) == a.record.seq(a.record.author)


async def test_a_peer_that_holds_commits_that_we_lost_makes_us_stop() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    a.put("one", title="x")
    await wires.settle()
    assert are_equal(a, b)
    lost = Record("a")  # the same life, before it wrote anything
    again = WiredNode(wires, lost, a.address)
    assert lost.author == a.record.author
    b.cut()
    await wires.settle()
    await wires.pass_s(30)
    assert again.rolled_back
    assert again.reasons["rolled_back"] >= 1
    assert lost.seq(lost.author) == 0


async def test_a_disk_that_fails_ends_links_and_nothing_else() -> None:
    wires, (a, b) = wired("a", "b", apart=1)
    a.desk.failure = OSError("the disk is full")
    b.know(a)
    await wires.settle()
    assert not a.peers.talks
    assert a.reasons == {"storage": 1}
    assert b.reasons == {}
    a.desk.failure = None
    await wires.pass_s(60)
    assert are_equal(a, b)


async def test_cursors_are_kept_at_once_then_seldom_and_at_the_end() -> None:
    wires, (a, b) = wired("a", "b", apart=1)
    b.know(a)
    await wires.settle()
    assert len(b.cursors) == 1
    for number in range(20):
        a.put(f"d{number}", title="x")
        await wires.pass_s(1)
    assert len(b.cursors) == 1
    await wires.pass_s(60)
    a.put("late", title="x")
    await wires.pass_s(5)
    assert len(b.cursors) == 2
    a.put("last", title="x")
    await wires.pass_s(5)
    b.cut()
    await wires.settle()
    assert b.cursors[-1][1] == a.record.exchange.position
    assert [peer.author for peer, _ in b.cursors] == [a.record.author] * 3


async def test_the_lag_of_a_peer_counts_what_it_has_not_confirmed() -> None:
    wires, (a, b) = wired("a", "b", apart=1)
    b.know(a)
    await wires.settle()
    (talk,) = a.peers.talks.values()
    assert (talk.lag_arrivals, talk.lag_ms) == (0, 0)
    for transport in wires.transports:
        transport.is_stuck = True
    for number in range(3):
        a.put(f"d{number}", title="x")
        await wires.pass_s(2)
    assert talk.lag_arrivals == 3
    assert talk.lag_ms == 6_000
    assert not a.peers.is_in_sync
    for transport in wires.transports:
        transport.is_stuck = False
    await wires.settle()
    assert (talk.lag_arrivals, talk.lag_ms) == (0, 0)
    assert are_equal(a, b)


async def test_a_silent_peer_is_given_up_after_half_a_minute() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    for transport in wires.transports:
        transport.is_stuck = True
    b.is_up = a.is_up = False
    await wires.pass_s(34)
    assert not a.peers.talks and not b.peers.talks


async def test_a_stop_says_goodbye_and_leaves_nothing() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    stopping = asyncio.ensure_future(b.peers.stop())
    await wires.settle()
    await stopping
    assert not b.peers.links and not a.peers.links
    assert b.cursors


async def test_clocks_that_are_apart_are_noticed() -> None:
    wires, (a, b) = wired("a", "b")
    b.skew_ms = 86_400_000
    b.know(a)
    await wires.settle()
    assert are_equal(a, b)
    assert list(a.peers.clock_ahead_ms.values()) == [86_400_000]
    assert list(b.peers.clock_ahead_ms.values()) == [-86_400_000]


@pytest.mark.parametrize("count", [3, 5])
async def test_many_nodes_in_a_line_come_to_hold_the_same(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    wires, nodes = wired(*names, apart=2)
    for node, other in itertools.pairwise(nodes):
        node.know(other)
    await wires.settle()
    await wires.pass_s(10)
    assert are_equal(*nodes)
    nodes[0].put("far", title="x")
    await wires.pass_s(5)
    assert are_equal(*nodes)


async def test_addresses_that_the_machine_has_lost_end_their_links() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    b.peers.on_network_changed(["10.0.0.2"])  # loopback, over which these wires go, stays
    await wires.settle()
    assert len(b.peers.talks) == 1
    for transport in wires.transports:
        transport.extra["sockname"] = ("192.168.7.7", 1)
    b.peers.on_network_changed(["10.0.0.2"])
    await wires.settle()
    assert len(b.dialed) == 2
    assert are_equal(a, b)


async def test_what_is_announced_nearby_is_dialed_and_forgotten_when_it_goes() -> None:
    wires, (a, b) = wired("a", "b")
    a.peers.found(b.address, Source.NEARBY)
    a.peers.found(Address("10.7.7.7", 1), Source.NEARBY)
    await wires.settle()
    assert are_equal(a, b)
    a.peers.contacts.forget_nearby(Address("10.7.7.7", 1))
    a.peers.contacts.forget_nearby(b.address)
    assert [contact.source for contact in a.peers.contacts] == [Source.LEARNED]
