"""Whatever comes, nothing breaks: spoilt messages, windows and updates, and what is said no to.

Seeded, so that a failure names the seed that finds it again.
"""

import inspect
import re
import time
from collections.abc import Callable
from random import Random
from types import ModuleType

import pytest

from protocol import conversation, encoding, errors, frames, handshake, incoming, messages, outgoing, session
from protocol.errors import ProtocolError
from protocol.integrate import RULES, Verdict
from protocol.keys import KeyPair, verify
from tests.protocol.fuzz_grounds import Found, Grounds
from tests.protocol.fuzzing import Decoders, feed_handshake

TRIES = 20_000
TRIES_SOAK = 1_000_000
OFTEN = 20  # what is only decoded takes a hundredth of the time of what goes through a record


def fuzz(tries: int, first_seed: int = 0) -> Found:
    """So many inputs, each of a seed of its own. Fails with the seed of the first that breaks anything."""
    found = Found()
    grounds = Grounds(found)
    decoders = Decoders(found, grounds)

    def decode_some(random: Random) -> None:
        for _ in range(OFTEN):
            decoders.feed(random)

    def update_some(random: Random) -> None:
        for _ in range(OFTEN):
            decoders.feed_update(random)

    def meet_some(random: Random) -> None:
        for _ in range(3):
            feed_handshake(found, random)

    feeds: list[Callable[[Random], None]] = [
        decode_some,
        update_some,
        meet_some,
        grounds.attack,
        grounds.feed_window,
        grounds.attack,
        grounds.feed_window,
    ]
    whole = feeds[2:]  # what goes through a handshake or a record, as in a node
    seed = first_seed
    while found.tried < tries:
        feed = feeds[seed % len(feeds)]
        before = time.thread_time()
        try:
            feed(Random(seed))
        except Exception as failure:
            raise AssertionError(f"{feed.__name__} with seed {seed}: {failure!r}") from failure
        spent_s = time.thread_time() - before
        if feed in whole and spent_s > found.longest_s:
            before = time.thread_time()
            feed(Random(seed))  # again: of a collection of garbage it is not to blame
            found.longest_s = max(found.longest_s, min(spent_s, time.thread_time() - before))
        seed += 1
    return found


@pytest.fixture(scope="module")
def found() -> Found:
    """What the run has met, and a few directed cases for what chance may miss."""
    found = fuzz(TRIES)
    grounds = Grounds(found)
    Decoders(found, grounds).feed_good()
    grounds.break_every_rule()
    grounds.say_what_is_out_of_place()
    return found


def test_nothing_but_the_documented_answers_comes_out(found: Found) -> None:
    assert found.tried >= TRIES
    for where in ("message", "window", "body", "statement", "ticket", "update", "handshake", "session"):
        assert len(found[where]) >= 2, f"{where}: only {found[where]}"


def signatures_s(count: int) -> float:
    """CPU time of checking so many signatures here: a measure of this machine."""
    keys = KeyPair.from_seed(b"k" * 32)
    signature = keys.sign(b"a commit")
    before = time.thread_time()
    for _ in range(count // 20):
        assert verify(keys.public, b"a commit", signature)
    return (time.thread_time() - before) * 20


def test_nothing_holds_a_node_up_for_longer_than_a_quarter_of_a_second(found: Found) -> None:
    """On a machine that checks ten thousand signatures in one."""
    assert 0 < found.longest_s < signatures_s(2_500)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_nothing_else_comes_out_of_a_million(part: int) -> None:
    assert fuzz(TRIES_SOAK // 10, first_seed=(part + 1) * 10_000_000).longest_s < signatures_s(2_500)


# -- every way of saying no --------------------------------------------------------------------------------

# What is raised for a peer's bytes while a machine handles them; each class has one word.
OF_HANDSHAKES = (handshake, frames, messages, encoding)
OF_SESSIONS = (session, outgoing, incoming, conversation, frames, messages, encoding)


def kinds_in(modules: tuple[ModuleType, ...]) -> set[str]:
    """Every word that code of these modules may count a peer's fault by, found in the code itself."""
    kinds: set[str] = set()
    for module in modules:
        source = inspect.getsource(module)
        for name in re.findall(r"raise (\w+)\(", source):
            raised = getattr(module, name)
            if issubclass(raised, ProtocolError) and not issubclass(raised, errors.InvalidId):
                kinds.add(_word(raised))
        kinds.update(re.findall(r"(?:_fail|PeerMisbehaved)\(.*\"(\w+)\"\)", source))
    return kinds


def _word(raised: type[ProtocolError]) -> str:
    return raised.__new__(raised).kind


def test_the_words_are_found_in_the_code() -> None:
    assert {"stranger", "other_version", "false_identity", "slow", "gone"} <= kinds_in(OF_HANDSHAKES)
    assert {"window", "too_much_at_once", "not_answerable", "unexpected"} <= kinds_in(OF_SESSIONS)


def test_every_end_of_a_handshake_has_been_seen(found: Found) -> None:
    assert found["handshake"] == kinds_in(OF_HANDSHAKES)


def test_every_fault_of_a_peer_has_been_seen(found: Found) -> None:
    assert found["session"] == kinds_in(OF_SESSIONS)


def test_every_verdict_and_every_rule_of_integration_has_been_seen(found: Found) -> None:
    assert found["verdict"] == {verdict.value for verdict in Verdict}
    assert found["refused"] == set(RULES)
    assert found["outcome"] == {"Known", "Fork", "Waiting"}


def test_every_kind_of_fault_of_a_decoder_has_been_seen(found: Found) -> None:
    for where in ("window", "run", "shown"):
        assert found[where] >= {"good", "malformed", "too_large", "bad_signature"}, where
    for where in ("message", "body", "frames"):
        assert found[where] >= {"good", "malformed", "too_large"}, where
    for where in ("statement", "genesis"):
        assert found[where] >= {"good", "malformed", "bad_signature"}, where
    for where in ("header", "ticket", "ticket inside"):
        assert found[where] >= {"good", "malformed"}, where
    assert found["update"] == {"good", "rule", "malformed", "too_large"}


def test_what_a_session_tells_of_a_hostile_peer_has_been_seen(found: Found) -> None:
    assert found["news"] >= {
        "ForkFound",
        "ChainRefused",
        "RolledBack",
        "WindowStored",
        "Unacquainted",
        "Ended",
        "InSync",
    }
