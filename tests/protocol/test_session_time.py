"""The sync session: when it speaks unasked, and when it gives a peer up."""

from collections.abc import Callable

import pytest

from protocol.exchange import (
    Ended,
)
from protocol.messages import (
    Ping,
    Window,
)
from protocol.session import (
    IDLE_AFTER_MS,
    PING_EVERY_MS,
    SLOW_BYTES,
    STALLED_AFTER_MS,
)
from tests.protocol.dialogue import Dialogue, Side, framed, kinds, pair


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
