"""Between a transport and a machine: order, back-pressure, deadlines, and faults that go no further."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from node.net.link import EARLY_MAX_BYTES, LINGER_S, OUT_MAX_BYTES, STALLED_AFTER_S, Link, Speaker, State
from node.net.tls import fingerprint_of
from node.origins import Address
from protocol.handshake import HANDSHAKE_TIMEOUT_MS, Handshake, Local, Peer, Side
from tests.node.net.wires import Time, Transport, Wires
from tests.protocol.dialogue import KEYS, NOW_MS, Record

HERE = Record("here")
THERE = Record("there", founder=HERE)


class Parrot:
    """A machine that says what it is told to, and notes what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.to_say = b""
        self.events: list[Any] = []
        self.deadline_ms: int | None = None
        self.deadlines = 0
        self.ended = 0
        self.breaks = False

    def receive(self, data: bytes, now_ms: int) -> Sequence[Any]:
        if self.breaks:
            raise RuntimeError("a bug")
        self.heard += data
        events, self.events = self.events, []
        return events

    def receive_eof(self) -> Sequence[Any]:
        self.ended += 1
        return []

    def on_deadline(self, now_ms: int) -> Sequence[Any]:
        self.deadlines += 1
        self.deadline_ms = None
        return []

    def take_bytes(self) -> bytes:
        said, self.to_say = self.to_say, b""
        return said


class ParrotSpeaker(Speaker):
    def __init__(self, parrot: Parrot) -> None:
        self.parrot = parrot
        self.said: list[Any] = []

    @property
    def machine(self) -> Parrot:
        return self.parrot

    def begin(self) -> None:
        self.said.append("begin")

    def on_event(self, event: Any) -> None:
        self.said.append(event)

    def on_writable(self) -> None:
        self.said.append("writable")

    def on_end(self) -> None:
        self.said.append("end")


class Keeper:
    """Owns the links of these tests."""

    def __init__(self, record: Record, time: Time) -> None:
        identity = record.identity
        self.local = Local(KEYS, identity.author, identity.epoch, identity.network_id)
        self.time = time
        self.parrot = Parrot()
        self.speaker: ParrotSpeaker | None = ParrotSpeaker(self.parrot)
        self.is_overfull = False
        self.gone: list[Link] = []
        self.peers: list[Peer] = []

    def handshake(self, side: Side, fingerprint: bytes) -> Handshake:
        return Handshake(
            side,
            self.local,
            nonce=side.value.ljust(32),
            fingerprint=fingerprint,
            clock_ms=NOW_MS,
            now_ms=self.time.steady_ms(),
        )

    def on_peer(self, link: Link, peer: Peer) -> Speaker | None:
        self.peers.append(peer)
        if self.speaker is None:
            link.cut("not today")
        return self.speaker

    def on_gone(self, link: Link) -> None:
        self.gone.append(link)


class Pair:
    """Two links on one wire."""

    def __init__(self) -> None:
        self.wires = Wires()
        self.time = self.wires.time
        self.keepers = [Keeper(HERE, self.time), Keeper(THERE, self.time)]
        self.caller = self.link(Side.CALLER, self.keepers[0])
        self.answerer = self.link(Side.ANSWERER, self.keepers[1], fingerprint_of(b"certificate"))

    def link(self, side: Side, keeper: Keeper, fingerprint: bytes = b"") -> Link:
        return Link(
            1,
            side,
            Address("10.0.0.1", 1),
            keeper,
            timers=self.time,
            steady_ms=self.time.steady_ms,
            log=logging.getLogger("tests.link"),
            fingerprint=fingerprint,
        )

    def join(self, certificate: bytes = b"certificate") -> tuple[Transport, Transport]:
        return self.wires.join(self.caller, self.answerer, certificate)


async def joined() -> tuple[Pair, Transport, Transport]:
    pair = Pair()
    one, two = pair.join()
    await pair.wires.settle()
    assert pair.caller.state is pair.answerer.state is State.OPEN
    return pair, one, two


async def test_after_the_handshake_both_speakers_have_the_link() -> None:
    pair, _, _ = await joined()
    assert [keeper.peers[0].author for keeper in pair.keepers] == [THERE.author, HERE.author]
    assert [keeper.speaker.said for keeper in pair.keepers if keeper.speaker] == [["begin"], ["begin"]]
    assert pair.caller.bytes_in == pair.answerer.bytes_out > 0
    assert pair.caller.bytes_out == pair.answerer.bytes_in > 0


async def test_a_certificate_that_was_exchanged_on_the_way_ends_the_handshake() -> None:
    pair = Pair()
    pair.join(b"certificate of somebody in between")
    await pair.wires.settle()
    assert pair.answerer.fault == "stranger"
    assert pair.caller.fault == "gone"
    assert not pair.keepers[0].peers and not pair.keepers[1].peers
    assert [len(keeper.gone) for keeper in pair.keepers] == [1, 1]


async def test_bytes_go_out_before_events_are_told_and_what_comes_is_given_to_the_machine() -> None:
    pair, _, two = await joined()
    parrot = pair.keepers[0].parrot
    parrot.to_say, parrot.events = b"an answer", ["an event"]
    pair.keepers[1].parrot.to_say = b"a question"
    pair.answerer.step([])
    await pair.wires.settle()
    assert parrot.heard == b"a question"
    assert pair.keepers[1].parrot.heard == b"an answer"
    assert pair.keepers[0].speaker is not None and pair.keepers[0].speaker.said == ["begin", "an event"]
    assert not two.sent


async def test_what_came_along_with_the_end_of_the_handshake_is_for_the_speaker() -> None:
    pair = Pair()
    _, two = pair.join()
    while not pair.keepers[1].peers:  # until the answerer knows the caller
        two.pump() or two.other.pump()  # type: ignore[union-attr]
    pair = Pair()
    one, two = pair.join()
    for _ in range(20):
        if len(one.sent) and pair.caller.state is State.OPEN:
            break
        one.pump() or two.pump()
    one.sent[-1] += b"and more"  # the last word of the handshake and what follows arrive in one piece
    await pair.wires.settle()
    assert pair.keepers[1].parrot.heard == b"and more"


async def test_words_before_the_connection_is_told_of_are_kept_within_a_limit() -> None:
    pair = Pair()
    pair.answerer.data_received(b"x" * EARLY_MAX_BYTES)
    pair.answerer.data_received(b"y")  # too much: it is not kept
    assert len(pair.answerer._early) == EARLY_MAX_BYTES
    pair.join()
    await pair.wires.settle()
    assert pair.answerer.fault == "malformed" or pair.answerer.fault == "too_large"


async def test_a_stranger_gets_a_challenge_and_nothing_more() -> None:
    pair = Pair()
    one, two = pair.join()
    pair.caller._handshake = None  # it never answers
    await pair.wires.settle()
    said = pair.answerer.bytes_out
    assert 0 < said < 64
    pair.time.pass_s(HANDSHAKE_TIMEOUT_MS / 1_000 + 1)
    await pair.wires.settle()
    assert pair.answerer.bytes_out == said
    assert (pair.answerer.fault, pair.answerer.reason) == ("slow", "the peer was too slow")
    assert one.is_lost and two.is_lost


def full_and_reading(pair: Pair) -> tuple[bool, bool]:
    return pair.caller.is_full, pair.wires.transports[0].reads


async def test_a_full_transport_is_told_to_the_speaker_and_so_is_its_end() -> None:
    pair, one, _ = await joined()
    one.is_stuck = True
    one.high = 100
    parrot = pair.keepers[0].parrot
    parrot.to_say = b"x" * 101
    pair.caller.step([])
    assert full_and_reading(pair) == (True, True)  # answers may still come
    one.is_stuck = False
    await pair.wires.settle()
    assert full_and_reading(pair) == (False, True)
    assert pair.keepers[0].speaker is not None and pair.keepers[0].speaker.said[-1] == "writable"


async def test_a_link_whose_peer_takes_nothing_stops_reading_before_it_holds_too_much() -> None:
    pair, one, two = await joined()
    one.is_stuck = True
    one.high = 100
    parrot = pair.keepers[0].parrot
    parrot.to_say = b"x" * (OUT_MAX_BYTES + 1)
    pair.caller.step([])
    assert not one.reads
    two.write(b"more and more")
    await pair.wires.settle()
    assert parrot.heard == b""
    one.is_stuck = False
    await pair.wires.settle()
    assert parrot.heard == b"more and more"


async def test_a_peer_that_takes_nothing_for_long_is_gone_and_one_that_takes_little_is_not() -> None:
    pair, one, _ = await joined()
    one.is_stuck = True
    one.high = 100
    parrot = pair.keepers[0].parrot
    for _ in range(10):
        parrot.to_say = b"x" * 90
        pair.caller.step([])
    for _ in range(3):  # a slow one takes a little at a time
        pair.time.pass_s(STALLED_AFTER_S - 1)
        one.sent.popleft()
        assert pair.caller.state is State.OPEN
    pair.time.pass_s(2 * STALLED_AFTER_S)
    assert (pair.caller.state, pair.caller.fault) == (State.CLOSED, "stalled")


async def test_while_the_node_has_too_much_to_store_it_does_not_read_and_does_not_complain_of_silence() -> (
    None
):
    pair, one, two = await joined()
    keeper, parrot = pair.keepers[0], pair.keepers[0].parrot
    keeper.is_overfull = True
    parrot.deadline_ms = pair.time.steady_ms() + 5_000
    pair.caller.step([])
    two.write(b"a window")
    await pair.wires.settle()
    assert parrot.heard == b"" and not one.reads
    heard: list[bytes] = []

    def receive(data: bytes, now_ms: int) -> list[Any]:
        heard.append(data)
        parrot.deadline_ms = now_ms + 5_000
        return []

    parrot.receive = receive  # type: ignore[method-assign]
    pair.time.pass_s(6)
    assert heard == [b""]  # as if it had been heard
    keeper.is_overfull = False
    pair.caller.refresh()
    await pair.wires.settle()
    assert heard == [b"", b"a window"]


async def test_deadlines_ring_once_they_are_due_even_if_they_move() -> None:
    pair, _, _ = await joined()
    parrot = pair.keepers[0].parrot
    start_ms = pair.time.steady_ms()
    parrot.deadline_ms = start_ms + 1_000
    pair.caller.step([])
    parrot.deadline_ms = start_ms + 3_000  # heard something meanwhile
    pair.time.pass_s(2)
    assert parrot.deadlines == 0
    pair.time.pass_s(2)
    assert parrot.deadlines == 1
    parrot.deadline_ms = start_ms + 60_000
    pair.caller.step([])
    parrot.deadline_ms = start_ms + 6_000  # sooner than was thought
    pair.caller.step([])
    pair.time.pass_s(3)
    assert parrot.deadlines == 2


async def test_a_bug_in_a_machine_ends_its_link_and_leaves_no_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair, _, two = await joined()
    pair.keepers[0].parrot.breaks = True
    two.write(b"x")
    await pair.wires.settle()
    assert (pair.caller.state, pair.caller.fault) == (State.CLOSED, "internal")
    assert "a bug" in caplog.text
    assert pair.keepers[0].gone == [pair.caller]
    assert pair.keepers[0].speaker is not None and pair.keepers[0].speaker.said[-1] == "end"


async def test_an_end_lets_the_last_word_leave_and_does_not_wait_for_ever() -> None:
    pair, one, _ = await joined()
    pair.keepers[0].parrot.to_say = b"goodbye"
    pair.caller.end("enough")
    pair.caller.end("another reason", "a fault")  # the first counts
    await pair.wires.settle()
    assert pair.keepers[1].parrot.heard == b"goodbye"
    assert (pair.caller.reason, pair.caller.fault) == ("enough", None)
    assert pair.keepers[1].parrot.ended == 1
    pair, one, _ = await joined()
    one.is_stuck = True
    pair.keepers[0].parrot.to_say = b"goodbye"
    pair.caller.end("enough")
    await pair.wires.settle()
    lost = [one.is_lost]
    pair.time.pass_s(LINGER_S + 0.1)
    await pair.wires.settle()
    assert [*lost, one.is_lost] == [False, True]
    assert len(pair.keepers[0].gone) == 1


async def test_a_link_that_was_given_up_before_it_was_made_is_closed_when_it_is() -> None:
    pair = Pair()
    pair.answerer.end("displaced")
    assert pair.keepers[1].gone == [pair.answerer]
    one, two = pair.join()
    await pair.wires.settle()
    assert one.is_lost and two.is_lost
    assert pair.keepers[1].gone == [pair.answerer]


async def test_an_owner_that_wants_nobody_has_closed_the_link() -> None:
    pair = Pair()
    pair.keepers[1].speaker = None
    pair.join()
    await pair.wires.settle()
    assert pair.answerer.reason == "not today"
    assert pair.answerer.speaker is None
