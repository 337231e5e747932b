"""The sync session: what it knows of how far the peer is, and what it tells of it."""

import pytest

from protocol.commit import DEP_HASH_BYTES
from protocol.exchange import (
    Arrived,
    Begin,
    Diverged,
    Fresh,
    InSync,
    LoadArrivals,
    LoadRuns,
    PeerHolds,
    Shares,
)
from protocol.messages import (
    Root,
    Roots,
    Tip,
    Want,
)
from protocol.session import (
    ROUNDS_MAX,
)
from tests.protocol.dialogue import NOW_MS, Dialogue, Record, Side, framed, kinds, pair, session

# -- what the peer has acknowledged ------------------------------------------------------------------------


def told_of(side: Side) -> list[PeerHolds]:
    return [event for event in side.events if isinstance(event, PeerHolds)]


def test_what_the_peer_has_stored_of_our_own_chains_is_told_window_by_window() -> None:
    first, second = pair(ours=200, theirs=3)
    talk = Dialogue(first, second, window_target_bytes=1_000)
    space, heard, seqs = first.store.space("default"), 0, []
    while talk.step():
        events = told_of(talk.caller)
        for event in events[heard:]:
            for of_space, seq in event.chains:
                author = first.author
                with second.store.read() as snapshot:
                    head = snapshot.head(of_space, author)
                assert head is not None and head.seq >= seq, "told before it was stored"
                if of_space == space:
                    seqs.append(seq)
        heard = len(events)
    assert seqs == sorted(seqs) and len(seqs) > 2 and seqs[-1] == 200


def test_when_both_hold_the_same_the_peer_holds_all_that_had_arrived() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    positions = [event.position for event in told_of(talk.caller) if event.position]
    assert positions[-1] == first.exchange.position
    again = Dialogue(first, second).run()
    assert told_of(again.caller) == [PeerHolds(position=first.exchange.position)]
    assert isinstance(again.caller.events[-1], InSync)


def test_a_peer_that_comes_back_says_at_once_what_it_holds() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    first.put("later", title="while they were apart")
    talk = Dialogue(first, second)
    while not any(event.chains for event in told_of(talk.caller)):
        assert talk.step()
    (chains,) = [event.chains for event in told_of(talk.caller) if event.chains]
    assert dict(chains)[first.store.space("default")] == 3


def test_what_is_pushed_live_is_told_when_it_is_stored_and_of_others_nothing() -> None:
    first, second = pair()
    third = Record("third", founder=first)
    third.put("c", title="of a third")
    Dialogue(third, first).run()
    talk = Dialogue(first, second).run()
    talk.caller.events.clear()
    talk.write(talk.caller, "live", title="now")
    assert told_of(talk.caller) == []
    talk.run()
    assert told_of(talk.caller) == [PeerHolds(((first.store.space("default"), 4),))]
    authors = {first.author, second.author, third.author}
    assert len(authors) == 3


# -- how far the peer is -----------------------------------------------------------------------------------


def fresh_of(record: Record, since: int) -> Arrived:
    """What has arrived after a position, as its owner may know it without asking storage."""
    with record.store.read() as snapshot:
        head = snapshot.head(record.store.space("default"), record.author)
    assert head is not None
    tip = Tip(record.author, head.seq, head.hash[:DEP_HASH_BYTES])
    position = record.exchange.position
    return Arrived(position, since, (Fresh("app/default", head.seq, tip),))


def loads(side: Side) -> int:
    return sum(isinstance(event, LoadArrivals) for event in side.events)


def test_a_new_commit_that_is_told_of_with_its_head_goes_out_without_a_question() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    before = loads(talk.caller)
    since = first.exchange.position
    first.put("live", title="now")
    talk.caller.take(talk.caller.give(fresh_of(first, since)))
    assert kinds(talk.caller)[-1] == "Window"
    assert loads(talk.caller) == before
    talk.run()
    assert first.documents() == second.documents()
    assert talk.caller.session.settled_position == first.exchange.position


def test_a_head_that_does_not_follow_what_was_told_leaves_it_to_storage_to_say_what_is_new() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    first.put("missed", title="nobody told")
    since = first.exchange.position
    first.put("live", title="now")
    before = loads(talk.caller)
    talk.caller.take(talk.caller.give(fresh_of(first, since)))
    talk.run()
    assert loads(talk.caller) == before + 1
    assert first.documents() == second.documents()


def test_a_head_that_is_told_while_storage_reads_what_came_before_is_not_lost() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    side = talk.caller
    first.put("one", title="x")
    (asked,) = [e for e in side.give(fresh_of(first, first.exchange.position - 1)) if isinstance(e, LoadRuns)]
    answer = first.exchange.perform(asked)  # read before the next is written, answered after it is told of
    first.put("two", title="y")
    events = side.give(fresh_of(first, first.exchange.position - 1))
    side.take([*events, *side.give(answer)])
    talk.run()
    assert second.seq(first.author) == first.seq(first.author)


def compare_with(side: Side, root: bytes, answered: int) -> int:
    """The peer tells a root that is not ours, its spaces, and that it lacks nothing of what it is offered."""
    side.take(side.session.receive(framed(Root(root, 5)), NOW_MS))
    if not [event for event in side.events if isinstance(event, Diverged)]:
        side.take(side.session.receive(framed(Roots(())), NOW_MS))
    while kinds(side).count("Offer") > answered:
        answered += 1
        side.take(side.session.receive(framed(Want(())), NOW_MS))
    return answered


@pytest.mark.parametrize("is_moving", [True, False])
def test_roots_that_differ_in_another_way_each_time_are_no_reason_to_give_up(is_moving: bool) -> None:
    first, second = pair()
    side = Dialogue(first, second).run().caller
    answered = kinds(side).count("Offer")
    for number in range(ROUNDS_MAX + 1):
        answered = compare_with(side, bytes([number if is_moving else 1]) * 32, answered)
    diverged = [event for event in side.events if isinstance(event, Diverged)]
    assert len(diverged) == (not is_moving)
    assert side.session.has_diverged is not is_moving
    compare_with(side, b"another" + bytes(25), answered)  # the peer has moved on
    assert not side.session.has_diverged


def test_a_head_that_is_told_before_the_link_is_compared_goes_the_long_way() -> None:
    first, second = pair()
    side = Side(first, session(first, second, is_caller=True))
    side.take(side.give(Begin()))
    first.put("early", title="x")
    side.take(side.give(fresh_of(first, first.exchange.position - 1)))
    assert kinds(side) == ["Open"]


def test_a_head_of_a_space_that_is_not_shared_is_not_told() -> None:
    first, second = pair()
    shares = Shares(frozenset({"system"}))
    talk = Dialogue(first, second, shares=shares).run()
    before = len(talk.caller.sent)
    since = first.exchange.position
    first.put("secret", title="x")
    talk.caller.take(talk.caller.give(fresh_of(first, since)))
    assert len(talk.caller.sent) == before
    assert talk.caller.session.settled_position == first.exchange.position


def test_what_the_peer_has_confirmed_grows_with_its_acks_and_not_before() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()

    def told() -> tuple[int, bool]:
        return talk.caller.session.settled_position, talk.caller.session.is_in_sync

    settled = first.exchange.position
    assert told() == (settled, True)
    talk.write(talk.caller, "live", title="now")
    assert told() == (settled, False)
    talk.run()
    assert told() == (first.exchange.position, True)
    assert talk.answerer.session.is_in_sync
    assert talk.caller.session.sent_bodies == 3 + 1 + 1  # theirs, the founding statement, and this


def test_before_the_first_comparison_the_peer_has_what_its_cursor_says() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    position = first.exchange.position
    second.exchange.keep_cursor(first.author, first.identity.epoch, position)
    first.put("new", title="x")
    talk = Dialogue.__new__(Dialogue)
    talk.caller = Side(first, session(first, second, is_caller=True))
    talk.answerer = Side(second, session(second, first, is_caller=False))
    for side in (talk.answerer, talk.caller):
        side.take(side.give(Begin()))
    assert talk.caller.session.settled_position == 0
    talk.step()
    talk.step()
    assert talk.caller.session.settled_position == position
    assert not talk.caller.session.is_in_sync
    talk.run()
    assert talk.caller.session.settled_position == first.exchange.position
