"""The sync session: what two peers say to each other until they hold the same, and what they never do."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.commit import DEP_HASH_BYTES
from protocol.encoding import encode
from protocol.errors import LocalMisuse
from protocol.exchange import (
    EVERYTHING,
    Arrived,
    Begin,
    ChainRefused,
    Close,
    Compare,
    Compared,
    Diverged,
    Ended,
    Event,
    ForkFound,
    Fresh,
    InSync,
    IntegrateWindow,
    LackingFound,
    LoadArrivals,
    LoadRuns,
    PeerHolds,
    PeerMisbehaved,
    RolledBack,
    Shares,
    StateLoaded,
    Unacquainted,
    WindowIntegrated,
    WindowStored,
    shares_of,
)
from protocol.frames import to_frames
from protocol.ids import Author, NetworkId, space_id
from protocol.messages import (
    Ack,
    Done,
    Error,
    Message,
    Offer,
    Open,
    Ping,
    Root,
    Roots,
    SpaceTips,
    Tip,
    Want,
    Who,
    Window,
    Yours,
    encode_message,
)
from protocol.roles import Rights, Role
from protocol.session import (
    IDLE_AFTER_MS,
    PING_EVERY_MS,
    ROOT_EVERY_MS,
    ROUNDS_MAX,
    SLOW_BYTES,
    STALLED_AFTER_MS,
)
from protocol.window import decode_run
from storage.kv import Table
from storage.memory_kv import MemoryKeyValueStore
from tests.protocol.dialogue import NOW_MS, Dialogue, Record, Side, pair, session
from tests.protocol.message_strategies import messages, odd_messages

END = (PeerMisbehaved, Ended, RolledBack, Unacquainted)


def kinds(side: Side) -> list[str]:
    return [type(message).__name__ for message in side.messages()]


def framed(message: Message) -> bytes:
    return to_frames(encode_message(message))


# -- getting in sync ---------------------------------------------------------------------------------------


def test_two_that_were_apart_end_with_the_same() -> None:
    first, second = pair(ours=5, theirs=4)
    talk = Dialogue(first, second).run()
    assert talk.is_in_sync
    assert first.documents() == second.documents()
    assert len(first.documents()) == 9
    assert first.exchange.root() == second.exchange.root()


def test_in_sync_is_one_round_trip_of_at_most_a_hundred_bytes() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    talk = Dialogue(second, first).run()
    assert kinds(talk.caller) == kinds(talk.answerer) == ["Open"]
    assert talk.is_in_sync
    assert sum(len(data) for side in (talk.caller, talk.answerer) for data in side.sent) <= 100


def test_two_empty_records_of_one_network_are_in_sync_once_both_have_its_founding() -> None:
    first = Record("first")
    talk = Dialogue(Record("second", founder=first), first).run()
    assert talk.is_in_sync


def test_a_known_neighbour_is_told_what_has_arrived_since() -> None:
    first, second = pair(ours=30)
    talk = Dialogue(first, second).run()
    for side in (talk.caller, talk.answerer):
        peer = second if side.record is first else first
        newest = [event for event in side.events if isinstance(event, InSync)][-1]
        side.record.exchange.keep_cursor(peer.author, peer.identity.epoch, newest.position)
    first.put("new", title="one")
    talk = Dialogue(first, second).run()
    assert talk.is_in_sync
    assert "Roots" not in kinds(talk.caller) + kinds(talk.answerer)
    (offer,) = [message for message in talk.caller.messages() if isinstance(message, Offer)]
    assert [tip.author for space in offer.spaces for tip in space.tips] == [first.author]
    assert sum(len(data) for data in talk.caller.sent + talk.answerer.sent) < 1_000


def test_a_cursor_of_another_epoch_counts_for_nothing() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    first.exchange.keep_cursor(second.author, "an older epoch", 3)
    second.exchange.keep_cursor(first.author, "an older epoch", 3)
    first.put("new", title="one")
    talk = Dialogue(first, second).run()
    assert talk.is_in_sync
    assert "Roots" in kinds(talk.caller)


def test_many_small_windows_bring_the_same_as_a_few_large_ones() -> None:
    first, second = pair(ours=300, theirs=100)
    talk = Dialogue(first, second, window_target_bytes=1_000).run()
    assert talk.is_in_sync
    assert len([kind for kind in kinds(talk.caller) if kind == "Window"]) >= 4
    assert first.documents() == second.documents()


def test_spaces_that_are_not_shared_stay_where_they_are() -> None:
    first, second = pair()
    first.put("secret", application="private", title="x")
    shares = Shares(frozenset({"system", "app/default"}))
    talk = Dialogue(first, second, shares=shares).run()
    assert talk.is_in_sync
    assert second.store.names.chains_of(first.store.space("private")) == []
    assert Dialogue(first, second).run().is_in_sync
    assert second.seq(first.author, "private") == 1


# -- live --------------------------------------------------------------------------------------------------


def test_a_new_commit_of_ours_goes_out_at_once() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    before = len(talk.caller.sent)
    talk.write(talk.caller, "live", title="now")
    assert kinds(talk.caller)[before:] == ["Window"]
    talk.run()
    assert first.documents() == second.documents()


def test_a_commit_of_others_is_offered_and_not_pushed() -> None:
    first, second = pair()
    third = Record("third", founder=first)
    talk = Dialogue(first, second).run()
    third.put("c", title="third")
    Dialogue(third, first).run()
    before = len(talk.caller.sent)
    talk.caller.take(talk.caller.give(Arrived(first.exchange.position)))
    assert kinds(talk.caller)[before:] == ["Offer"]
    talk.run()
    assert second.seq(third.author) == 1


def test_what_came_from_the_peer_is_not_offered_back() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    before = kinds(talk.answerer)
    talk.write(talk.caller, "live", title="now")
    talk.run()
    assert kinds(talk.answerer)[len(before) :] == ["Ack"]


def test_the_first_commit_in_a_new_space_is_offered_so_that_its_name_is_known() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    first.put("x", application="another", title="x")
    talk.caller.take(talk.caller.give(Arrived(first.exchange.position)))
    talk.run()
    assert second.store.space("another") == first.store.space("another")
    assert second.seq(first.author, "another") == 1
    with second.store.read() as snapshot:
        assert snapshot.applications() == ["default", "another"]


def test_on_a_live_link_roots_are_told_once_a_second_at_most() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    for number in range(5):
        talk.write(talk.caller, f"live{number}", title="now")
        talk.run()
    told = kinds(talk.caller).count("Root")
    deadline = talk.caller.session.deadline_ms
    assert deadline is not None and deadline <= ROOT_EVERY_MS
    for side in (talk.caller, talk.answerer):
        side.wait_until(ROOT_EVERY_MS)
    talk.run()
    assert kinds(talk.caller).count("Root") == told + 1
    assert isinstance(talk.caller.events[-1], InSync)


def test_a_missed_commit_is_found_when_roots_are_told() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    second.put("unheard", title="the session was not told of this")
    talk.write(talk.caller, "heard", title="of this it was")
    talk.run()
    for side in (talk.caller, talk.answerer):
        side.wait_until(ROOT_EVERY_MS)
    talk.run()
    assert first.documents() == second.documents()


def test_who_asks_hears_that_the_peer_holds_the_same_and_when_it_said_so() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    caller = talk.caller
    assert caller.session.compared_ms is None
    caller.now_ms = talk.answerer.now_ms = 700
    caller.take(caller.give(Compare()))
    talk.run()
    assert [type(event) for event in caller.events].count(Compared) == 1
    assert caller.session.compared_ms == 700


def test_who_asks_waits_for_what_the_peer_has_not_told_of() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    second.put("unheard", title="the session was not told of this")
    talk.caller.take(talk.caller.give(Compare()))
    talk.run()
    assert any(isinstance(event, Compared) for event in talk.caller.events)
    assert first.documents() == second.documents()


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


# -- cuts --------------------------------------------------------------------------------------------------


def test_a_conversation_may_be_cut_after_any_message() -> None:
    length = 0
    for cut in range(40):
        first, second = pair(ours=80, theirs=3)
        talk = Dialogue(first, second, window_target_bytes=3_000)
        for _ in range(cut):
            if not talk.step():
                length = cut
                break
        for side in (talk.caller, talk.answerer):
            side.take(side.session.receive_eof())
            assert side.session.is_closed and side.session.deadline_ms is None
            side.record.open()
        assert Dialogue(second, first).run().is_in_sync
        assert first.documents() == second.documents()
        if length:
            break
    assert length > 12


def test_nothing_of_a_closed_session_is_answered() -> None:
    first, second = pair()
    talk = Dialogue(first, second)
    side = talk.caller
    side.take(side.give(Close("enough")))
    assert isinstance(side.messages()[-1], Error)
    assert side.session.receive(framed(Ping()), 0) == side.session.on_deadline(10**9) == []
    assert side.give(LackingFound((), ())) == []
    assert side.session.receive_eof() == []
    talk.run()
    assert talk.answerer.events[-1] == Ended("the peer ended it: enough")


# -- our own past ------------------------------------------------------------------------------------------


def rolled_back(record: Record) -> Callable[[], None]:
    """What brings a record back to how it is now."""
    now = MemoryKeyValueStore()
    with record.keys.read() as source, now.write() as target:
        for table in Table:
            for key, value in source.scan(table, b"", None):
                target.put(table, key, value)

    def restore() -> None:
        record.keys = now
        record.open()

    return restore


@pytest.mark.parametrize("is_known", [False, True])
def test_who_lacks_commits_of_its_own_is_told_before_it_sends_any(is_known: bool) -> None:
    first, second = pair()
    Dialogue(first, second).run()
    restore = rolled_back(first)
    first.put("later", title="after the backup")
    Dialogue(first, second).run()
    if is_known:
        second.exchange.keep_cursor(first.author, first.identity.epoch, first.exchange.position)
    restore()
    talk = Dialogue(first, second).run()
    assert isinstance(talk.caller.events[-1], RolledBack)
    assert "Window" not in kinds(talk.caller) and "Offer" not in kinds(talk.caller)
    assert isinstance(talk.answerer.events[-1], Ended)


def test_a_fork_of_our_own_chain_is_found_too() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    restore = rolled_back(first)
    first.put("one", title="one way")
    Dialogue(first, second).run()
    restore()
    first.put("other", title="the other way")
    talk = Dialogue(first, second).run()
    assert talk.caller.events[-1] == RolledBack("app/default", first.seq(first.author))


def test_a_fork_of_another_is_found_by_both_and_the_rest_still_converges() -> None:
    first, second = pair()
    third = Record("third", founder=first)
    Dialogue(third, first).run()
    Dialogue(third, second).run()
    restore = rolled_back(third)
    third.put("one", title="told to the first")
    Dialogue(third, first).run()
    restore()
    third.put("other", title="told to the second")
    third.put("more", title="told to the second")
    Dialogue(third, second).run()
    first.put("honest", application="other", title="of the first")
    second.put("honest-too", application="other", title="of the second")
    talk = Dialogue(first, second).run()
    for side in (talk.caller, talk.answerer):
        (fork,) = [event for event in side.events if isinstance(event, ForkFound)]
        assert (fork.author, fork.seq) == (third.author, 1)
        assert decode_run(fork.run).commits[0].header.seq == 1
    assert isinstance(talk.caller.events[-1], InSync)  # both leave out the chain from the fork on
    assert first.exchange.root() == second.exchange.root()
    assert not any(id in ("one", "other", "more") for _, _, id in [*first.documents(), *second.documents()])
    assert first.seq(second.author, "other") == second.seq(first.author, "other") == 1
    talk = Dialogue(second, first).run()
    assert not any(isinstance(event, ForkFound) for event in talk.caller.events + talk.answerer.events)


# -- time --------------------------------------------------------------------------------------------------


def test_a_session_keeps_itself_alive_and_gives_up_a_silent_peer() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    side = talk.caller
    now_ms = 0
    while now_ms < IDLE_AFTER_MS:
        deadline = side.session.deadline_ms
        assert deadline is not None and deadline > now_ms
        now_ms = deadline
        side.wait_until(now_ms)
    assert kinds(side).count("Ping") == 2
    assert now_ms == IDLE_AFTER_MS and PING_EVERY_MS * 3 == IDLE_AFTER_MS
    assert side.events[-1] == Ended("the peer is silent")


def alive_until_it_ends(
    side: Side, *, until_ms: int, more: Callable[[int], bytes] = lambda now_ms: b""
) -> int:
    """A peer that says that it is alive, and `more`, and nothing else. When the session ended, or `until_ms`."""
    now_ms = 0
    while not side.session.is_closed and now_ms < until_ms:
        now_ms += PING_EVERY_MS
        side.wait_until(now_ms)
        side.take(side.session.receive(framed(Ping()) + more(now_ms), now_ms))
    return now_ms


@pytest.mark.parametrize("lost", range(12))
def test_a_peer_that_is_alive_and_does_not_answer_is_given_up(lost: int) -> None:
    """Whichever message is lost, no session waits for ever for what follows from it."""
    first, second = pair(ours=3, theirs=3)
    talk = Dialogue(first, second)
    for _ in range(lost):
        assert talk.step()
    for side, other in ((talk.caller, talk.answerer), (talk.answerer, talk.caller)):
        if other.heard < len(side.sent):
            other.heard = len(side.sent)  # never came
            break
    talk.run()
    ended = [
        alive_until_it_ends(side, until_ms=2 * STALLED_AFTER_MS) for side in (talk.caller, talk.answerer)
    ]
    if not talk.is_in_sync:
        assert min(ended) <= STALLED_AFTER_MS + PING_EVERY_MS  # at once, if something else comes out of turn
    else:
        assert min(ended) == 2 * STALLED_AFTER_MS  # only the last root was lost


def test_a_long_message_on_a_slow_line_is_an_answer_and_crumbs_are_none() -> None:
    for step_bytes, is_enough in ((SLOW_BYTES // 4, True), (64, False)):
        first, second = pair()
        talk = Dialogue(first, second)
        while "Offer" not in kinds(talk.caller):
            assert talk.step()
        window = framed(Window(bytes(4 * SLOW_BYTES + (1 << 20))))
        pieces = [window[at : at + step_bytes] for at in range(0, len(window), step_bytes)]
        now_ms = 0
        for piece in pieces:
            now_ms += PING_EVERY_MS
            talk.caller.wait_until(now_ms)
            talk.caller.take(talk.caller.session.receive(piece, now_ms))
            if now_ms > 3 * STALLED_AFTER_MS:
                break
        assert talk.caller.session.is_closed is not is_enough


def test_pings_in_between_are_no_answer() -> None:
    first, second = pair()
    talk = Dialogue(first, second)
    assert (
        alive_until_it_ends(talk.caller, until_ms=10 * STALLED_AFTER_MS) <= STALLED_AFTER_MS + PING_EVERY_MS
    )
    assert talk.caller.events[-1] == Ended("the peer does not answer")


def test_a_ping_keeps_the_other_side_patient() -> None:
    first, second = pair()
    side = Dialogue(first, second).run().caller
    side.take(side.session.receive(framed(Ping()), 20_000))
    side.wait_until(IDLE_AFTER_MS)
    assert not side.session.is_closed


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


# -- whatever the bytes ------------------------------------------------------------------------------------


def recorded() -> tuple[list[bytes], list[bytes]]:
    """What the caller and the answerer say in a conversation with a bit of everything."""
    first, second = pair(ours=70, theirs=3)
    talk = Dialogue(first, second, window_target_bytes=2_000).run()
    talk.write(talk.caller, "live", title="x")
    talk.run()
    return talk.caller.sent, talk.answerer.sent


SAID_BY_CALLER, SAID_BY_ANSWERER = recorded()


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
    data=st.data(),
)
def test_events_do_not_depend_on_how_the_bytes_were_cut(
    joined: list[int], cuts: list[int], data: st.DataObject
) -> None:
    stream = [*SAID_BY_CALLER, *data.draw(st.lists(messages().map(framed), max_size=3))]
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


AUTHORS = [record.author for record in pair()]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    started=st.integers(0, 12),
    is_caller=st.booleans(),
    said=st.lists(st.one_of(messages(AUTHORS), odd_messages, st.binary(max_size=20)), min_size=1, max_size=8),
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


def test_the_session_asks_for_nothing_it_was_not_told_to_share() -> None:
    first, second = pair()
    first.put("secret", application="private", title="x")
    shares = Shares(frozenset({"system", "app/default"}))
    first_side = Side(first, session(first, second, is_caller=True))
    second_side = Side(second, session(second, first, is_caller=False, shares=shares))
    talk = Dialogue.__new__(Dialogue)
    talk.caller, talk.answerer = first_side, second_side
    for side in (talk.answerer, talk.caller):
        side.take(side.give(Begin()))
    talk.run()
    assert second.seq(first.author) == 3
    assert second.store.names.chains_of(first.store.space("private")) == []


def test_every_word_of_a_conversation_is_used() -> None:
    said = {type(m).__name__ for m in Dialogue(*pair()).run().caller.messages()}
    assert said == {"Open", "Yours", "Roots", "Offer", "Want", "Window", "Ack", "Done", "Root"}


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


@pytest.mark.parametrize("is_caller", [True, False])
def test_a_peer_that_does_not_know_this_node_may_ask_and_the_link_goes_on(is_caller: bool) -> None:
    first, second = pair()
    talk = Dialogue(first, second)
    side = talk.caller if is_caller else talk.answerer
    beyond = framed(Ping())
    assert side.session.receive(framed(Who()) + beyond, 0) == [Unacquainted()]
    assert side.session.is_closed and side.session.take_bytes() == b""
    assert side.session.rest() == beyond
    assert side.session.deadline_ms is None


def test_who_comes_first_or_not_at_all() -> None:
    first, second = pair()
    talk = Dialogue(first, second).run()
    (event,) = talk.caller.session.receive(framed(Who()), 0)
    assert isinstance(event, PeerMisbehaved)


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


# -- what may cross ----------------------------------------------------------------------------------------


def test_what_two_nodes_may_both_hold_may_cross_their_link_and_membership_always() -> None:
    network = NetworkId(b"n" * 32)
    one, two = space_id(network, "app/one"), space_id(network, "app/two")
    everywhere, only_one = Rights(Role.ADMIN), Rights(Role.READER, frozenset({one}))
    both, neither = Rights(Role.MEMBER, frozenset({one, two})), Rights(Role.MEMBER, frozenset())
    assert shares_of(everywhere, everywhere, network) == EVERYTHING
    assert "app/whatever" in EVERYTHING
    for shares, crossing in (
        (shares_of(everywhere, only_one, network), {"system", "app/one"}),
        (shares_of(both, only_one, network), {"system", "app/one"}),
        (shares_of(both, everywhere, network), {"system", "app/one", "app/two"}),
        (shares_of(neither, everywhere, network), {"system"}),
    ):
        assert {name for name in ("system", "app/one", "app/two", "app/three") if name in shares} == crossing


def test_rights_limited_to_a_space_keep_the_rest_where_it_is() -> None:
    first, second = pair()
    first.put("secret", application="private", title="x")
    space = first.store.space("default")
    shares = Shares(ids=frozenset({space}), network_id=first.identity.network_id)
    talk = Dialogue(first, second, shares=shares).run()
    assert talk.is_in_sync
    assert second.seq(first.author) == first.seq(first.author)
    assert second.store.names.chains_of(first.store.space("private")) == []
