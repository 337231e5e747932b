"""Joining and introductions: who is let in by what, what a stranger sees, and every way in which it ends."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import evidence as evidence_module
from protocol.body import body_hash
from protocol.commit import NO_PREVIOUS, Header, sign_commit
from protocol.encoding import encode
from protocol.errors import LocalMisuse
from protocol.exchange import PeerMisbehaved
from protocol.frames import to_frames
from protocol.ids import author_of
from protocol.joining import Opening
from protocol.keys import KeyPair
from protocol.meeting import (
    IDLE_AFTER_MS,
    WHOLE_TIMEOUT_MS,
    Acquainted,
    AdmissionWritten,
    Admitted,
    Joined,
    Learned,
    LoadStatements,
    NotMet,
    Reason,
    StatementsLoaded,
)
from protocol.membership import Rights, Role
from protocol.messages import Admission, Message, Met, Open, Shown, Who, encode_message
from protocol.packing import pack_window, unpack_window
from protocol.statements import Grant, ask_admission, encode_statement
from protocol.tickets import Ticket
from protocol.window import Run
from simulations.harness import Node
from storage import showing
from tests.protocol.meetings import End, admitter, answer, invite, join, joiner, meet, network
from tests.protocol.message_strategies import messages, odd_messages

LAPTOP = KeyPair.from_seed(b"l" * 32)
PHONE = KeyPair.from_seed(b"p" * 32)
SALT = bytes(16)


def not_met(end: End) -> Reason:
    assert isinstance(end.last, NotMet), end.last
    return end.last.reason


def role_of(node: Node, keys: KeyPair) -> Role | None:
    return node.store.members.role_of(keys.public)


def commits_of_system(node: Node) -> int:
    return len(showing.statements(node.store))


# -- joining ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_a_ticket_lets_a_device_in_with_its_role(role: Role) -> None:
    _, (ann,) = network()
    caller, answerer = join(invite(ann, role), LAPTOP, ann)
    joined = caller.last
    assert isinstance(joined, Joined)
    assert joined.rights == Rights(role)
    assert answerer.last == Admitted(LAPTOP.public)
    assert role_of(ann, LAPTOP) is role
    assert joined.members.roles == ann.store.members.roles
    assert len(joined.evidence.commits) == commits_of_system(ann)


def test_any_member_can_let_a_device_in_and_the_inviter_need_not_be_there() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    ticket = invite(ann)
    introduce(ann, bob)
    bob_learns(bob, ann)
    caller, _ = join(ticket, LAPTOP, bob)
    assert isinstance(caller.last, Joined)
    assert role_of(bob, LAPTOP) is Role.MEMBER and role_of(ann, LAPTOP) is None


def test_a_stranger_is_told_statements_of_membership_and_nothing_else() -> None:
    _, (ann,) = network()
    ann.put("secret", title="hidden")
    made_up = replace(invite(ann), secret=b"s" * 16)
    caller, answerer = join(made_up, LAPTOP, ann)
    assert not_met(caller) is Reason.NO_INVITATION and not_met(answerer) is Reason.NO_INVITATION
    shown = [message for message in answerer.messages() if isinstance(message, Shown)]
    assert len(shown) == 1 and len(answerer.messages()) == 2
    runs = unpack_window(shown[0].data)
    assert {run.commits[0].header.space for run in runs} == {ann.store.system}


def test_a_joiner_proves_nothing_to_one_that_is_not_of_the_network() -> None:
    _, (ann,) = network()
    caller = End(joiner(invite(ann), LAPTOP, ann, peer=PHONE.public))
    caller.take(caller.machine.begin(0))
    data = shown_by(ann)  # what ann would show, shown by somebody else
    caller.take(caller.machine.receive(to_frames(encode_message(Shown(data, True))), 0))
    assert not_met(caller) is Reason.NO_ROLE
    assert not any(isinstance(message, Admission) for message in caller.messages())


def test_a_ticket_is_used_once_but_its_device_may_ask_again() -> None:
    _, (ann,) = network()
    ticket = invite(ann)
    assert isinstance(join(ticket, LAPTOP, ann)[0].last, Joined)
    before = commits_of_system(ann)
    assert not_met(join(ticket, PHONE, ann)[0]) is Reason.TICKET_USED
    again, _ = join(ticket, LAPTOP, ann)  # as if the answer had been lost
    assert isinstance(again.last, Joined)
    assert commits_of_system(ann) == before and role_of(ann, PHONE) is None


def test_a_member_may_come_back_with_a_ticket_that_stays_unused() -> None:
    _, (ann,) = network()
    join(invite(ann), LAPTOP, ann)
    ticket = invite(ann, number=1)
    assert isinstance(join(ticket, LAPTOP, ann)[0].last, Joined)
    assert isinstance(join(ticket, PHONE, ann)[0].last, Joined)


def test_a_ticket_that_has_expired_admits_nobody() -> None:
    _, (ann,) = network()
    caller, _ = join(invite(ann, expires_in_ms=0), LAPTOP, ann)
    assert not_met(caller) is Reason.EXPIRED
    assert isinstance(caller.last, NotMet) and "expired" in caller.last.text


def test_a_ticket_that_is_not_known_yet_sends_the_joiner_elsewhere() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    caller, _ = join(invite(ann), LAPTOP, bob)
    assert not_met(caller).may_help_elsewhere and not_met(caller) is Reason.NO_INVITATION


def test_a_reader_admits_nobody() -> None:
    _, (ann, bob) = network(Role.READER)
    ticket = invite(ann)
    bob_learns(bob, ann)
    assert not_met(join(ticket, LAPTOP, bob)[0]) is Reason.CANNOT_ADMIT


def test_a_revoked_node_shows_nothing() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    ticket = invite(ann)
    ann.revoke(bob)
    bob_learns(bob, ann)
    caller, answerer = join(ticket, LAPTOP, bob)
    assert not_met(caller) is Reason.CANNOT_ADMIT
    assert not any(isinstance(message, Shown) for message in answerer.messages())


def test_a_revoked_key_is_told_so() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    ann.revoke(bob)
    caller, _ = join(invite(ann), bob.node_keys, ann)
    assert not_met(caller) is Reason.REVOKED


def test_one_ticket_used_twice_apart_suspends_both_until_one_is_granted() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    ticket = invite(ann)
    bob_learns(bob, ann)
    first, _ = join(ticket, LAPTOP, ann)
    second, _ = join(ticket, PHONE, bob)
    assert isinstance(first.last, Joined) and isinstance(second.last, Joined)  # neither knew better
    bob_learns(bob, ann)
    bob_learns(ann, bob)
    for node in (ann, bob):
        assert role_of(node, LAPTOP) is None and role_of(node, PHONE) is None
        assert node.store.members.is_suspended(LAPTOP.public)
    late, _ = join(ticket, PHONE, ann)
    assert not_met(late) is Reason.TICKET_USED
    ann.say(lambda members, header: encode_statement(Grant(PHONE.public, Rights(Role.MEMBER)), SALT))
    assert role_of(ann, PHONE) is Role.MEMBER and role_of(ann, LAPTOP) is None
    assert isinstance(join(ticket, PHONE, ann)[0].last, Joined)


def test_a_joiner_that_is_suspended_in_the_end_is_told_so() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    ticket = invite(ann)
    bob_learns(bob, ann)
    join(ticket, PHONE, bob)
    caller = End(joiner(ticket, LAPTOP, ann))
    answerer = End(admitter(ann, LAPTOP.public), ann)
    late = bob

    def write_then_learn(effect: Any) -> Any:
        done = answer(ann, effect)
        if isinstance(done, AdmissionWritten):
            bob_learns(ann, late)  # the other use comes to light before the joiner has been answered
        return done

    answerer.perform = write_then_learn  # type: ignore[method-assign]
    meet(caller, answerer)
    assert not_met(caller) is Reason.TICKET_USED
    assert isinstance(caller.last, NotMet) and "administrator" in caller.last.text


def test_another_network_under_the_name_of_this_one_is_found_out() -> None:
    _, (ann,) = network()
    ticket = replace(invite(ann), network_id=type(ann.identity.network_id)(b"n" * 32))
    caller = End(joiner(ticket, LAPTOP, ann, network_id=ticket.network_id))
    answerer = End(admitter(ann, LAPTOP.public), ann)
    meet(caller, answerer)
    assert isinstance(caller.last, PeerMisbehaved)
    assert not any(isinstance(message, Admission) for message in caller.messages())


@pytest.mark.parametrize(
    "forge",
    [
        lambda ticket, ann: ask_admission(ticket.keys, PHONE, ann.identity.network_id),  # another's
        lambda ticket, ann: replace(_asked(ticket, ann), ticket_proof=bytes(64)),
        lambda ticket, ann: replace(_asked(ticket, ann), joiner_proof=bytes(64)),
        lambda ticket, ann: replace(_asked(ticket, ann), ticket_key=PHONE.public),
        lambda ticket, ann: ask_admission(ticket.keys, LAPTOP, b"n" * 32),  # of another network
        lambda ticket, ann: Grant(LAPTOP.public, Rights(Role.ADMIN)),  # no admission at all
    ],
)
def test_a_forged_admission_is_not_written_down(forge: Callable[[Ticket, Node], Any]) -> None:
    _, (ann,) = network()
    statement = forge(invite(ann), ann)
    answerer = End(admitter(ann, LAPTOP.public), ann)
    before = commits_of_system(ann)
    tell(answerer, Who(), Admission(encode_statement(statement, SALT), "laptop"))
    assert not_met(answerer) is Reason.NOT_PROVEN
    assert commits_of_system(ann) == before and role_of(ann, LAPTOP) is None


def test_bytes_that_are_no_statement_are_no_admission() -> None:
    _, (ann,) = network()
    answerer = End(admitter(ann, LAPTOP.public), ann)
    tell(answerer, Who(), Admission(b"\xff", "laptop"))
    assert not_met(answerer) is Reason.NOT_PROVEN


def test_an_admission_recorded_elsewhere_is_of_no_use_to_another() -> None:
    """The proofs say who joins: whoever hears them can write them down, and let in nobody else."""
    _, (ann, bob) = network(Role.MEMBER)
    caller, _ = join(invite(ann), LAPTOP, ann)
    recorded = next(message for message in caller.messages() if isinstance(message, Admission))
    answerer = End(admitter(bob, PHONE.public), bob)
    tell(answerer, Who(), recorded)
    assert not_met(answerer) is Reason.NOT_PROVEN


def test_without_a_ticket_a_node_only_gets_to_know_the_network() -> None:
    _, (ann,) = network()
    caller = End(joiner(None, LAPTOP, ann))
    meet(caller, End(admitter(ann, LAPTOP.public), ann))
    assert isinstance(caller.last, Learned)
    assert caller.last.members.roles == {ann.node_keys.public: Role.ADMIN}


def test_many_statements_are_shown_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "SHOWN_TARGET_BYTES", 2_000)
    _, (ann,) = network()
    tickets = [invite(ann, number=number) for number in range(200)]
    caller, answerer = join(tickets[77], LAPTOP, ann)
    assert isinstance(caller.last, Joined)
    shown = [message for message in answerer.messages() if isinstance(message, Shown)]
    assert len(shown) > 2
    assert len(caller.last.evidence.commits) == commits_of_system(ann)


# -- members who do not know each other yet --------------------------------------------------------------------


def introduce(who: Node, to: Node) -> tuple[End, End]:
    """A node calls another, which does not know it; it takes it for a session, and is asked who it is."""
    caller = End(admitter(who, to.node_keys.public, Opening.ASKED), who)
    answerer = End(admitter(to, who.node_keys.public), to)
    tell(answerer, Open(bytes(32), 0, 0))
    assert [type(message) for message in answerer.messages()] == [Who]
    answerer.sent.clear()
    meet_begun(caller, answerer)
    return caller, answerer


def meet_begun(caller: End, answerer: End) -> None:
    caller.take(caller.machine.begin(0))
    for _ in range(100):
        for end, other in ((answerer, caller), (caller, answerer)):
            while end.heard < len(other.sent):
                end.heard += 1
                end.take(end.machine.receive(other.sent[end.heard - 1], 0))


def bob_learns(bob: Node, ann: Node) -> None:
    """All statements of one reach the other, as a sync would bring them."""
    for commit in showing.statements(ann.store):
        bob.integrator.receive(commit, bob.clock_ms())


def test_a_member_admitted_elsewhere_shows_itself() -> None:
    _, (_ann, bob, cat) = network(Role.MEMBER, Role.MEMBER)
    assert bob.store.members.role_of(cat.node_keys.public) is None
    caller, answerer = introduce(cat, bob)
    assert caller.last == Acquainted() and answerer.last == Acquainted()
    assert bob.store.members.role_of(cat.node_keys.public) is Role.MEMBER


def test_a_member_that_does_not_know_whom_it_called_asks() -> None:
    _, (_ann, bob, cat) = network(Role.MEMBER, Role.MEMBER)
    caller = End(admitter(bob, cat.node_keys.public, Opening.ASKS), bob)
    answerer = End(admitter(cat, bob.node_keys.public, Opening.ASKED), cat)
    caller.take(caller.machine.begin(0))
    caller.sent.clear()  # the session at the other end has heard `who`
    answerer.take(answerer.machine.begin(0))
    for _ in range(10):
        for end, other in ((answerer, caller), (caller, answerer)):
            while end.heard < len(other.sent):
                end.heard += 1
                end.take(end.machine.receive(other.sent[end.heard - 1], 0))
    assert caller.last == Acquainted() and answerer.last == Acquainted()
    assert bob.store.members.role_of(cat.node_keys.public) is Role.MEMBER


def test_two_that_do_not_know_each_other_both_show_themselves() -> None:
    world, (_ann, bob) = network(Role.MEMBER)
    cat = world.node()
    caller = End(admitter(bob, cat.node_keys.public, Opening.ASKS), bob)
    answerer = End(admitter(cat, bob.node_keys.public, Opening.WAITS), cat)
    meet(caller, answerer)
    assert caller.last == Acquainted() and answerer.last == Acquainted()
    assert bob.store.members.role_of(cat.node_keys.public) is Role.MEMBER


def test_a_revoked_node_introduces_itself_in_vain_and_nothing_of_it_is_kept() -> None:
    _, (ann, _bob, cat) = network(Role.MEMBER, Role.MEMBER)
    ann.revoke(cat)
    before = commits_of_system(ann)
    caller, answerer = introduce(cat, ann)
    assert not_met(caller) is Reason.REVOKED and not_met(answerer) is Reason.REVOKED
    assert commits_of_system(ann) == before


def test_whom_a_revoked_node_brought_back_dated_is_not_let_in() -> None:
    _, (ann, bob) = network(Role.ADMIN)
    ann.revoke(bob)
    caller, _ = join(invite(bob), LAPTOP, bob)  # bob does not know yet, or does not care
    assert isinstance(caller.last, Joined)
    assert caller.last.members.role_of(LAPTOP.public) is Role.MEMBER
    before = commits_of_system(ann)
    answerer = End(admitter(ann, LAPTOP.public), ann)
    data = shown_by(bob, everything=True)
    tell(answerer, Open(bytes(32), 0, 0), Shown(data, True))
    assert not_met(answerer) is Reason.NO_ROLE
    assert commits_of_system(ann) == before


def test_what_has_no_bearing_on_the_peer_is_not_taken_in() -> None:
    _, (ann, bob, cat) = network(Role.MEMBER, Role.MEMBER)
    runs = [*unpack_window(shown_by(cat)), spam(ann)]
    answerer = End(admitter(bob, cat.node_keys.public), bob)
    before = commits_of_system(bob)
    tell(answerer, Open(bytes(32), 0, 0), Shown(pack_window(runs), True))
    assert not_met(answerer) is Reason.TOO_MUCH
    assert commits_of_system(bob) == before


def test_evidence_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (ann,) = network()
    ticket = invite(ann)
    for name, limit in (("SHOWN_COMMITS_MAX", 1), ("SHOWN_SIZE_MAX_BYTES", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(evidence_module, name, limit)
            caller, _ = join(ticket, LAPTOP, ann)
            assert isinstance(caller.last, PeerMisbehaved) and caller.last.kind == "too_large"


def test_commits_of_another_space_are_not_looked_at() -> None:
    _, (ann,) = network()
    ann.put("one", title="x")
    with ann.store.read() as snapshot:
        chain = ann.store.names.chain(ann.store.space("default"), ann.identity.author)
        assert chain is not None
        commit = snapshot.log.commit(chain, 1)
    assert commit is not None
    data = pack_window([Run((commit,))])
    caller = End(joiner(invite(ann), LAPTOP, ann))
    caller.take(caller.machine.begin(0))
    caller.take(caller.machine.receive(to_frames(encode_message(Shown(data, True))), 0))
    assert isinstance(caller.last, PeerMisbehaved)


# -- the machines ----------------------------------------------------------------------------------------------


def machines(ann: Node) -> list[End]:
    ticket = invite(ann)
    found = [
        End(joiner(ticket, LAPTOP, ann)),
        *(End(admitter(ann, LAPTOP.public, opening), ann) for opening in Opening),
    ]
    for end in found:
        end.take(end.machine.begin(0))
    return found


ANN = network()[1][0]


@given(
    heard=st.lists(st.one_of(messages(), odd_messages), max_size=4), cut=st.integers(1, 40), data=st.data()
)
def test_no_message_from_a_peer_can_raise(heard: list[Any], cut: int, data: st.DataObject) -> None:
    stream = b"".join(
        to_frames(encode(message) if isinstance(message, list) else encode_message(message))
        for message in heard
    )
    for end in machines(ANN):
        for start in range(0, len(stream), cut):
            end.take(end.machine.receive(stream[start : start + cut], 0))
        assert end.machine.is_closed == bool(end.news)
        assert len(end.news) <= 1
        assert end.machine.is_closed or end.machine.deadline_ms is not None


def test_events_do_not_depend_on_how_the_bytes_were_cut() -> None:
    _, (ann,) = network()
    ticket = invite(ann)
    caller = End(joiner(ticket, LAPTOP, ann))
    answerer = End(admitter(ann, LAPTOP.public), ann)
    for end in (caller, answerer):
        end.take(end.machine.begin(0))
    for _ in range(20):
        for end, other in ((answerer, caller), (caller, answerer)):
            while end.heard < len(other.sent):
                end.heard += 1
                for byte in other.sent[end.heard - 1]:
                    end.take(end.machine.receive(bytes([byte]), 0))
    assert isinstance(caller.last, Joined) and isinstance(answerer.last, Admitted)


def test_a_silent_peer_is_not_waited_for_and_neither_is_a_slow_one() -> None:
    _, (ann,) = network()
    for end in machines(ann):
        machine = end.machine
        assert machine.deadline_ms == IDLE_AFTER_MS
        assert machine.on_deadline(IDLE_AFTER_MS - 1) == []
        end.take(machine.on_deadline(IDLE_AFTER_MS))
        assert not_met(end) is Reason.OTHER and machine.deadline_ms is None
    slow = machines(ann)[1]
    for now_ms in range(0, WHOLE_TIMEOUT_MS, IDLE_AFTER_MS // 2):
        slow.take(slow.machine.receive(b"", now_ms))
    slow.take(slow.machine.on_deadline(WHOLE_TIMEOUT_MS))
    assert not_met(slow) is Reason.OTHER


def test_an_answer_that_was_not_asked_for_is_a_bug() -> None:
    _, (ann,) = network()
    with pytest.raises(LocalMisuse):
        machines(ann)[1].machine.send(AdmissionWritten(), 0)


def test_a_link_that_ends_ends_the_conversation_once() -> None:
    _, (ann,) = network()
    for end in machines(ann):
        end.take(end.machine.receive_eof())
        end.take(end.machine.receive_eof())
        end.take(end.machine.receive(b"more", 0))
        assert len(end.news) == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words_for_people(reason: Reason) -> None:
    assert reason.text and reason.text[0].islower() and not reason.text.endswith(".")


def test_what_was_received_beyond_is_kept_for_the_session() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    end = End(admitter(ann, bob.node_keys.public, Opening.ASKED), ann)
    end.take(end.machine.begin(0))
    rest = to_frames(encode_message(Open(bytes(32), 0, 0)))
    end.take(end.machine.receive(to_frames(encode_message(Met())) + rest, 0))
    assert end.last == Acquainted() and end.machine.rest() == rest


# -- helpers ---------------------------------------------------------------------------------------------------


def _asked(ticket: Ticket, ann: Node) -> Any:
    return ask_admission(ticket.keys, LAPTOP, ann.identity.network_id)


def tell(end: End, *messages: Message) -> None:
    """Begin, and let a peer say these."""
    end.take(end.machine.begin(0))
    for message in messages:
        end.take(end.machine.receive(to_frames(encode_message(message)), 0))


def shows(node: Node, *, everything: bool = False) -> LoadStatements:
    return LoadStatements(node.node_keys.public, everything, {})


def shown_by(node: Node, *, everything: bool = False) -> bytes:
    """The window of statements that a node would show."""
    loaded = answer(node, shows(node, everything=everything))
    assert isinstance(loaded, StatementsLoaded)
    return loaded.data


def spam(ann: Node) -> Run:
    """A statement by somebody who may say nothing, in a chain of its own."""
    keys = KeyPair.from_seed(b"j" * 32)
    body = encode_statement(Grant(keys.public, Rights(Role.ADMIN)), SALT)
    author = author_of(keys.public, bytes(8))
    header = Header(ann.store.system, author, 1, NO_PREVIOUS, 1 << 60, (), (body_hash(body),))
    return Run((sign_commit(keys, header, [body]),))
