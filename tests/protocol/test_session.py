"""The sync session: what two peers say to each other until they hold the same, and from then on."""

from collections.abc import Callable

import pytest

from protocol.exchange import (
    EVERYTHING,
    Arrived,
    Begin,
    Close,
    Compare,
    Compared,
    Ended,
    ForkFound,
    InSync,
    LackingFound,
    PeerMisbehaved,
    RolledBack,
    Shares,
    Unacquainted,
    shares_of,
)
from protocol.ids import NetworkId, space_id
from protocol.messages import (
    Error,
    Offer,
    Ping,
    Who,
)
from protocol.roles import Rights, Role
from protocol.session import (
    ROOT_EVERY_MS,
)
from protocol.window import decode_run
from tests.protocol.dialogue import Dialogue, Record, Side, copied, framed, kinds, pair, session

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


def test_every_word_of_a_conversation_is_used() -> None:
    said = {type(m).__name__ for m in Dialogue(*pair()).run().caller.messages()}
    assert said == {"Open", "Yours", "Roots", "Offer", "Want", "Window", "Ack", "Done", "Root"}


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
    now = copied(record.keys)

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


# -- who is not known yet ------------------------------------------------------------------------------------


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
