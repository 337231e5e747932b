"""The sync session: whatever a peer says, whole or in pieces, it ends with one word and harms nothing."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import LocalMisuse
from protocol.exchange import (
    Arrived,
    Begin,
    ChainRefused,
    Ended,
    Event,
    IntegrateWindow,
    LackingFound,
    PeerMisbehaved,
    RolledBack,
    StateLoaded,
    Unacquainted,
    WindowIntegrated,
    WindowStored,
)
from protocol.frames import to_frames
from protocol.ids import Author
from protocol.messages import (
    Ack,
    Done,
    Error,
    Message,
    Offer,
    Open,
    Root,
    SpaceTips,
    Tip,
    Want,
    Window,
    Yours,
)
from tests.protocol.dialogue import NOW_MS, Dialogue, Side, framed, kinds, pair, session
from tests.protocol.message_strategies import messages, odd_messages

END = (PeerMisbehaved, Ended, RolledBack, Unacquainted)


# -- a peer that breaks the protocol -----------------------------------------------------------------------


def faults_after(side: Side, *said: Message) -> str:
    """The peer says this; the fault with which the session ends."""
    for message in said:
        side.take(side.session.receive(framed(message), 0))
    last = side.events[-1]
    assert isinstance(last, PeerMisbehaved), last
    assert isinstance(side.messages()[-1], Error)
    return last.reason


def in_sync_side() -> Side:
    first, second = pair()
    return Dialogue(first, second).run().caller


TIP = Tip(Author(b"x" * 40), 1, b"h" * 16)
OFFER = Offer((SpaceTips("app/default", (TIP,)),))


def test_words_in_the_wrong_place_end_it() -> None:
    never: list[Message] = [Open(bytes(32), 0, 0), Yours(()), Done(1), Ack(99, 1), Want(())]
    for message in never:
        faults_after(in_sync_side(), message)
    first, second = pair()
    too_early: list[Message] = [OFFER, Root(bytes(32), 0), Window(b"x"), Yours(())]
    for message in too_early:
        faults_after(Dialogue(first, second).answerer, message)


def test_a_window_that_breaks_a_rule_ends_it() -> None:
    assert "byte strings" in faults_after(in_sync_side(), Window(b"\xff"))


def test_more_windows_than_credits_end_it() -> None:
    first, second = pair()
    side = Dialogue(first, second).run().caller
    events: list[Event] = []
    for _ in range(3):
        events += side.session.receive(framed(Window(b"x")), 0)
    assert sum(isinstance(event, IntegrateWindow) for event in events) == 2
    assert events[-1] == PeerMisbehaved("a window without credit")


def test_an_offer_before_the_last_was_answered_ends_it() -> None:
    side = in_sync_side()
    side.session.receive(framed(OFFER), 0)
    (event,) = side.session.receive(framed(OFFER), 0)
    assert event == PeerMisbehaved("an offer while another waits for its answer")


def test_offers_that_are_never_kept_leave_the_session_waiting_and_bounded() -> None:
    side = in_sync_side()
    for number in range(50):
        tip = replace_tip(number)
        side.take(side.session.receive(framed(Offer((SpaceTips("app/default", (tip,)),))), 0))
    assert not side.session.is_closed
    assert kinds(side).count("Want") >= 50


def replace_tip(number: int) -> Tip:
    return TIP._replace(author=Author(number.to_bytes(40, "big")), seq=1_000)


def test_what_it_holds_of_ours_cannot_be_anothers() -> None:
    first, second = pair()
    talk = Dialogue(first, second)
    side = talk.answerer
    side.take(side.session.receive(framed(Open(b"r" * 32, 0, 0)), 0))
    assert "another's chain" in faults_after(side, Yours((SpaceTips("system", (TIP,)),)))


def test_a_peer_without_credits_gets_nothing_more() -> None:
    side = in_sync_side()
    before = kinds(side).count("Window")
    side.take(side.session.receive(framed(Ack(before, 0)), 0))
    side.record.put("kept-back", title="x")
    side.take(side.give(Arrived(side.record.exchange.position)))
    assert kinds(side).count("Window") == before
    side.take(side.session.receive(framed(Ack(before, 1)), 0))
    assert kinds(side).count("Window") == before + 1


def test_our_own_misuse_is_raised() -> None:
    first, second = pair()
    machine = session(first, second, is_caller=True)
    with pytest.raises(LocalMisuse):
        machine.send(StateLoaded(bytes(32), (), 0, 0, ()), 0)
    machine.send(Begin(), 0)
    with pytest.raises(LocalMisuse):
        machine.send(Begin(), 0)
    with pytest.raises(LocalMisuse):
        machine.send(LackingFound((), ()), 0)


def test_what_a_peer_did_wrong_has_one_word_to_be_counted_by() -> None:
    first, second = pair()
    expected = {
        framed(Window(b"x")): "unexpected",
        b"\x00\x00\x00\x02\x81\x18": "malformed",
        b"\x7f\xff\xff\xff": "too_large",
    }
    for data, kind in expected.items():
        side = Side(first, session(first, second, is_caller=True))
        side.take(side.give(Begin()))
        (*_, last) = side.session.receive(data, 0)
        assert isinstance(last, PeerMisbehaved) and last.kind == kind


def test_a_chain_that_storage_refuses_is_told_and_left() -> None:
    first, second = pair()
    side = Dialogue(first, second).run().caller
    space = first.store.space("default")
    (window,) = [e for e in side.session.receive(framed(Window(b"x")), 0) if isinstance(e, IntegrateWindow)]
    assert window.data == b"x"
    refused = ChainRefused(space, TIP.author, 1, "clock_not_increasing")
    events = side.give(WindowIntegrated(0, refused=(refused,)))
    assert events[:2] == [refused, WindowStored(0, 0)]
    side.take(side.session.receive(framed(OFFER), NOW_MS))
    assert side.messages()[-1] == Want(())


# -- whatever the bytes ------------------------------------------------------------------------------------


@cache
def recorded() -> tuple[list[bytes], list[bytes]]:
    """What the caller and the answerer say in a conversation with a bit of everything."""
    first, second = pair(ours=70, theirs=3)
    talk = Dialogue(first, second, window_target_bytes=2_000).run()
    talk.write(talk.caller, "live", title="x")
    talk.run()
    return talk.caller.sent, talk.answerer.sent


def replay(segments: list[bytes], cut: Callable[[bytes], list[bytes]]) -> tuple[list[Event], list[bytes]]:
    """Events and bytes of an answerer that hears these; storage answers after each segment."""
    first, second = pair(ours=70, theirs=3)
    side = Side(second, session(second, first, is_caller=False, window_target_bytes=2_000))
    side.take(side.give(Begin()))
    for segment in segments:
        events: list[Event] = []
        for piece in cut(segment):
            events += side.session.receive(piece, 0)
        side.take(events)
    return side.events, side.sent


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    joined=st.lists(st.integers(1, 4), max_size=8),
    cuts=st.lists(st.integers(1, 900), max_size=60),
    more=st.lists(messages().map(framed), max_size=3),
)
def test_events_do_not_depend_on_how_the_bytes_were_cut(
    joined: list[int], cuts: list[int], more: list[bytes]
) -> None:
    said_by_caller, _ = recorded()
    stream = [*said_by_caller, *more]
    segments: list[bytes] = []
    while stream:
        size = joined.pop() if joined else 1
        segments.append(b"".join(stream[:size]))
        stream = stream[size:]

    def cut(segment: bytes) -> list[bytes]:
        pieces = []
        while segment:
            size = cuts.pop() if cuts else len(segment)
            pieces.append(segment[:size])
            segment = segment[size:]
        return pieces

    assert replay(segments, cut) == replay(segments, lambda segment: [segment])


# Of the very authors of these records, too.
known_messages = st.deferred(lambda: messages([record.author for record in pair()]))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    started=st.integers(0, 12),
    is_caller=st.booleans(),
    said=st.lists(st.one_of(known_messages, odd_messages, st.binary(max_size=20)), min_size=1, max_size=8),
    answers=st.lists(st.booleans(), max_size=8),
)
def test_no_message_from_a_peer_can_raise(
    started: int, is_caller: bool, said: list[Message | list[object] | bytes], answers: list[bool]
) -> None:
    first, second = pair(ours=3, theirs=3)
    talk = Dialogue(first, second)
    for _ in range(started):
        talk.step()
    side = talk.caller if is_caller else talk.answerer
    unanswered: list[Event] = []
    for item in said:
        if isinstance(item, bytes):
            data = item
        else:
            data = framed(item) if not isinstance(item, list) else to_frames(encode(item))
        events = side.session.receive(data, 0)
        ended = [event for event in events if isinstance(event, END)]
        assert ended == ([events[-1]] if side.session.is_closed and events else [])
        unanswered += events
        if answers.pop() if answers else True:
            side.take(unanswered)
            unanswered = []
        assert side.session.held_bytes < 200_000
    side.take(unanswered)
    assert side.record.store.counts()["commits"] <= 8


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.integers(0, 100_000), bit=st.integers(0, 7), by_caller=st.booleans())
def test_a_damaged_stream_never_brings_what_nobody_signed(place: int, bit: int, by_caller: bool) -> None:
    first, second = pair(ours=5, theirs=5)
    before = {**first.documents(), **second.documents()}
    talk = Dialogue(first, second)
    side, other = (talk.answerer, talk.caller) if by_caller else (talk.caller, talk.answerer)
    for _ in range(40):
        if side.heard < len(other.sent) and place < sum(map(len, other.sent)):
            start = sum(map(len, other.sent[: side.heard]))
            data = bytearray(other.sent[side.heard])
            if start <= place < start + len(data):
                data[place - start] ^= 1 << bit
                other.sent[side.heard] = bytes(data)
                place = 1 << 40
        if not talk.step():
            break
    for record in (first, second):
        documents = record.documents()
        assert all(before[key] == document for key, document in documents.items())
