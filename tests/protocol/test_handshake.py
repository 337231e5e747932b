"""The handshake: who is let in, who is not, and what a stranger learns."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import LocalMisuse
from protocol.frames import to_frames
from protocol.handshake import HANDSHAKE_TIMEOUT_MS, Handshake, HandshakeFailed, Local, Peer, Side
from protocol.ids import NetworkId, author_of
from protocol.keys import KeyPair
from protocol.messages import Identity, Message, decode_message, encode_message
from tests.protocol.message_strategies import messages, odd_messages

NETWORK = NetworkId(b"n" * 32)
FINGERPRINT = b"f" * 32
Events = list[Peer | HandshakeFailed]


def local(number: int, network: NetworkId = NETWORK, versions: tuple[int, int] = (1, 1)) -> Local:
    keys = KeyPair.from_seed(bytes([number]) * 32)
    return Local(keys, author_of(keys.public, bytes([number]) * 8), f"epoch{number}", network, versions)


ALICE, BOB = local(1), local(2)


def caller(who: Local = ALICE, *, fingerprint: bytes = FINGERPRINT, nonce: bytes = b"1" * 32) -> Handshake:
    return Handshake(Side.CALLER, who, nonce=nonce, fingerprint=fingerprint, clock_ms=1_000, now_ms=0)


def answerer(who: Local = BOB, *, fingerprint: bytes = FINGERPRINT, nonce: bytes = b"2" * 32) -> Handshake:
    return Handshake(Side.ANSWERER, who, nonce=nonce, fingerprint=fingerprint, clock_ms=2_000, now_ms=0)


def talk(a: Handshake, b: Handshake) -> tuple[Events, Events, list[bytes]]:
    """Let two machines talk until neither has anything to say: events of both, and what was said."""
    events: tuple[Events, Events] = ([], [])
    said: list[bytes] = []
    for _ in range(10):
        for machine, other, heard in ((b, a, events[0]), (a, b, events[1])):
            data = machine.take_bytes()
            if data:
                said.append(data)
                heard += other.receive(data)
    return *events, said


def test_both_sides_learn_who_is_there() -> None:
    ours, theirs, said = talk(caller(), answerer())
    assert ours == [Peer(BOB.author, BOB.epoch, 2_000, 1)]
    assert theirs == [Peer(ALICE.author, ALICE.epoch, 1_000, 1)]
    assert len(said) == 4
    assert isinstance(ours[0], Peer) and ours[0].node == BOB.keys.public


def test_a_stranger_learns_a_nonce_and_nothing_else() -> None:
    machine = answerer()
    ours, theirs, said = talk(caller(local(3, NetworkId(b"x" * 32))), machine)
    assert ours == []
    assert theirs == [HandshakeFailed("the caller does not know this network")]
    assert len(said) == 2 and len(said[0]) == 4 + 36
    assert machine.take_bytes() == b""


def test_an_answerer_that_does_not_know_the_network_is_found_out() -> None:
    machine = caller()
    challenge = encode_message(decode_message(encode([0, b"2" * 32])))
    assert machine.receive(to_frames(challenge)) == []
    machine.take_bytes()
    forged = Identity(1, b"m" * 32, BOB.keys.public, bytes(8), "e", 0, bytes(64))
    assert machine.receive(to_frames(encode_message(forged))) == [
        HandshakeFailed("the answerer does not know this network")
    ]
    assert machine.take_bytes() == b""


def test_words_passed_on_by_someone_in_between_fit_no_other_channel() -> None:
    ours, theirs, _ = talk(caller(fingerprint=b"m" * 32), answerer())
    assert (ours, theirs) == ([], [HandshakeFailed("the caller does not know this network")])


def test_a_recorded_handshake_is_worthless() -> None:
    _, _, said = talk(caller(), answerer())
    again = answerer(nonce=b"3" * 32)
    again.take_bytes()
    assert again.receive(said[1]) == [HandshakeFailed("the caller does not know this network")]


def test_a_node_must_hold_the_key_that_it_names() -> None:
    impostor = replace(ALICE, author=author_of(BOB.keys.public, bytes(8)))
    _, theirs, _ = talk(caller(impostor), answerer())
    assert theirs == [HandshakeFailed("the peer does not hold the key of the node that it says it is")]


@pytest.mark.parametrize("field", ["version", "mac", "node", "incarnation", "epoch", "clock_ms", "signature"])
def test_every_field_that_tells_who_is_there_is_bound_by_the_signature(field: str) -> None:
    a, b = caller(), answerer()
    a.receive(b.take_bytes())
    b.receive(a.take_bytes())
    told = decode_message(b.take_bytes()[4:])
    assert isinstance(told, Identity)
    value: Any = getattr(told, field)
    other: Any = "other"
    if isinstance(value, bytes):
        other = bytes([value[0] ^ 1]) + value[1:]
    elif isinstance(value, int):
        other = value + 1
    changed = replace(told, **{field: other})
    (event,) = a.receive(to_frames(encode_message(changed)))
    assert isinstance(event, HandshakeFailed)


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [((1, 2), (2, 3), 2), ((1, 3), (1, 2), 2), ((3, 4), (1, 3), 3)]
)
def test_the_highest_common_version_is_agreed(
    ours: tuple[int, int], theirs: tuple[int, int], agreed: int
) -> None:
    found, _, _ = talk(caller(local(1, versions=ours)), answerer(local(2, versions=theirs)))
    assert isinstance(found[0], Peer) and found[0].version == agreed


def test_without_a_common_version_there_is_no_link() -> None:
    _, theirs, _ = talk(caller(local(1, versions=(1, 2))), answerer(local(2, versions=(3, 4))))
    assert theirs == [HandshakeFailed("versions 1 to 2, this node speaks 3 to 4")]


def test_one_side_cannot_be_made_to_answer_for_the_other() -> None:
    machine = answerer()
    challenge = machine.take_bytes()
    (event,) = machine.receive(challenge)
    assert isinstance(event, HandshakeFailed)


def test_a_slow_peer_and_a_closed_connection_end_it() -> None:
    machine = caller()
    assert machine.on_deadline(HANDSHAKE_TIMEOUT_MS - 1) == []
    assert machine.on_deadline(HANDSHAKE_TIMEOUT_MS) == [HandshakeFailed("the peer was too slow")]
    assert machine.deadline_ms is None
    assert answerer().receive_eof() == [HandshakeFailed("the peer has closed the connection")]


def test_what_follows_the_handshake_is_handed_over() -> None:
    a, b = caller(), answerer()
    a.receive(b.take_bytes())
    b.receive(a.take_bytes())
    a.receive(b.take_bytes())
    assert len(b.receive(a.take_bytes() + b"more")) == 1
    assert b.rest() == b"more"


@given(cuts=st.lists(st.integers(1, 40), max_size=40))
def test_the_outcome_does_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    a, b = caller(), answerer()
    events: Events = []
    for _ in range(4):
        for machine, other in ((b, a), (a, b)):
            data = machine.take_bytes()
            while data:
                size = cuts.pop() if cuts else len(data)
                events += other.receive(data[:size])
                data = data[size:]
    assert [type(event) for event in events] == [Peer, Peer]


@given(
    rounds=st.integers(0, 3),
    odd=st.lists(st.one_of(messages(), odd_messages), max_size=3),
    by_caller=st.booleans(),
)
def test_no_message_can_raise_and_none_but_the_right_one_is_answered(
    rounds: int, odd: list[Message | list[object]], by_caller: bool
) -> None:
    a, b = caller(), answerer()
    for number in range(rounds):
        (a if number % 2 == 0 else b).receive((b if number % 2 == 0 else a).take_bytes())
    machine = b if by_caller else a
    events: Events = []
    for message in odd:
        data = encode(message) if isinstance(message, list) else encode_message(message)
        events += machine.receive(to_frames(data) if data else b"")
    assert len(events) <= 1
    assert not any(isinstance(event, Peer) for event in events)


def test_random_and_clock_have_their_sizes() -> None:
    with pytest.raises(LocalMisuse):
        caller(nonce=b"short")
