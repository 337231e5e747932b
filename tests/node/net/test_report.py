"""What is told of peers: links, addresses without one, and what a person should know."""

from typing import Any

from node.net.contacts import Source
from node.net.report import CLOCK_APART_MAX_MS, report, warnings
from node.origins import Address
from protocol.ids import NodeId
from tests.node.net.wires import WiredNode, wired
from tests.protocol.dialogue import KEYS, NOW_MS


def told(node: WiredNode, names: dict[bytes, str] | None = None) -> list[dict[str, Any]]:
    def name_of(id: NodeId) -> str | None:
        return (names or {}).get(id)

    time = node.wires.time
    return report(node.peers, name_of, time.steady_ms, lambda: NOW_MS + time.steady_ms())


async def test_a_link_is_told_with_who_where_since_when_and_how_far() -> None:
    wires, (a, b) = wired("a", "b", apart=2)
    b.know(a)
    await wires.settle()
    await wires.pass_s(5)
    (peer,) = told(b, {KEYS.public: "Ada's laptop"})
    assert peer["node_id"] == KEYS.public.hex() and peer["name"] == "Ada's laptop"
    assert peer["author"] == a.record.author.hex()
    assert (peer["address"], peer["direction"], peer["state"]) == (str(a.address), "out", "live")
    assert peer["in_sync"] and (peer["lag_arrivals"], peer["lag_ms"]) == (0, 0)
    assert peer["since"] < peer["in_sync_at"] or peer["since"] == peer["in_sync_at"]
    (other,) = told(a)
    assert (other["direction"], other["name"]) == ("in", None)
    assert (other["bytes_in"], other["bytes_out"]) == (peer["bytes_out"], peer["bytes_in"])


async def test_an_address_without_a_link_is_told_with_why() -> None:
    wires, (a, b) = wired("a", "b")
    b.is_up = False
    a.know(b)
    a.peers.found(Address("10.7.7.7", 1), Source.NEARBY)
    await wires.pass_s(3)
    one, two = told(a)
    assert (one["address"], one["source"], one["state"]) == (str(b.address), "configured", "unreachable")
    assert one["last_fault"] == "Connection refused"
    assert (one["node_id"], one["since"], one["lag_arrivals"]) == (None, None, None)
    assert two["source"] == "nearby"
    b.is_up = True
    await wires.pass_s(60)
    assert [peer["state"] for peer in told(a)] == ["live", "unreachable"]
    b.cut()
    b.is_up = False
    await wires.pass_s(3)
    assert told(a)[0]["author"] == b.record.author.hex()  # who was there last


async def test_this_node_itself_is_no_peer() -> None:
    wires, (a,) = wired("a")
    a.know(a)
    await wires.settle()
    assert told(a) == []


async def test_clocks_that_are_more_than_a_minute_apart_are_warned_of_on_both_sides() -> None:
    for skew_ms, count in ((CLOCK_APART_MAX_MS - 1_000, 0), (CLOCK_APART_MAX_MS + 1_000, 1), (-7_200_000, 1)):
        wires, (a, b) = wired("a", "b")
        b.skew_ms = skew_ms
        b.know(a)
        await wires.settle()
        for node, word in ((a, "ahead of" if skew_ms > 0 else "behind"), (b, "")):
            found = warnings(node.peers)
            assert len(found) == count
            assert all(warning["kind"] == "clock" and word in warning["text"] for warning in found)


async def test_what_went_wrong_is_told_newest_first() -> None:
    wires, (a, b) = wired("a", "b")
    a.peers._note("fork", "first")
    await wires.pass_s(1)
    a.peers._note("diverged", "second")
    found = warnings(a.peers)
    assert [warning["kind"] for warning in found] == ["diverged", "fork"]
    assert found[0]["at"] > found[1]["at"]
    assert warnings(b.peers) == []
