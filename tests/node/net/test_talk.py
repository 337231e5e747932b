"""A session on a link: what waits while the link is full, and what is told of its news."""

from protocol.exchange import LoadArrivals, LoadHeads, LoadRuns
from tests.node.net.wires import are_equal, wired


async def test_while_the_link_is_full_nothing_more_is_read_to_be_sent_and_then_all_goes_on() -> None:
    wires, (a, b) = wired("a", "b", apart=1)
    b.know(a)
    await wires.settle()
    (talk,) = a.peers.talks.values()
    talk.link.is_full = True
    a.desk.performed.clear()
    for number in range(5):
        a.put(f"d{number}", title="x")
    await wires.settle()
    assert not a.desk.performed
    b.put("theirs", title="y")  # the other direction goes on
    await wires.settle()
    assert not [e for e in a.desk.performed if isinstance(e, LoadRuns | LoadHeads | LoadArrivals)]
    assert a.record.seq(b.record.author) == b.record.seq(b.record.author)
    talk.link.is_full = False
    talk.on_writable()
    await wires.settle()
    await wires.pass_s(5)
    assert are_equal(a, b)


async def test_effects_that_were_held_are_dropped_with_the_link() -> None:
    wires, (a, b) = wired("a", "b", apart=3)
    b.know(a)
    for _ in range(40):
        if a.peers.talks:
            break
        await wires.settle()
    (talk,) = a.peers.talks.values()
    talk.link.is_full = True
    talk.on_event(LoadRuns((), 1))
    assert talk._held
    b.cut()
    await wires.settle()
    assert not talk._held and not talk.is_open and not talk.is_in_sync


async def test_a_peer_that_breaks_the_protocol_is_noted_counted_by_kind_and_called_less_often() -> None:
    wires, (a, b) = wired("a", "b")
    b.know(a)
    await wires.settle()
    transport = next(t for t in wires.transports if t.link in a.peers.links)
    transport.write(b"\x00\x00\x00\x02\x81\x18")  # no message begins so
    await wires.settle()
    assert b.reasons == {"malformed": 1}
    assert b.peers.notes[0].kind == "malformed"
    assert a.reasons == {}  # it was told, and has nothing to complain of
    assert len(b.dialed) == 1
    await wires.pass_s(2)
    assert are_equal(a, b)


async def test_how_many_changes_came_and_went_is_counted() -> None:
    wires, (a, b) = wired("a", "b", apart=4)
    b.know(a)
    await wires.settle()
    assert b.peers.received_bodies == 4 + 1  # and the founding statement
    assert a.peers.received_bodies == 4
    (talk,) = a.peers.talks.values()
    assert talk.session.sent_bodies == 5
    traffic = a.peers.bytes_of_links()
    b.cut()
    await wires.settle()
    assert a.peers.bytes_of_links()[("in",)] >= traffic["in",] > 0
