"""Whatever comes, nothing breaks: spoilt messages, windows and updates, and what is said no to.

Seeded, so that a failure names the seed that finds it again.
"""

import inspect
import re
from collections.abc import Callable
from random import Random
from types import ModuleType

import pytest

from protocol import encoding, errors, frames, handshake, incoming, messages, outgoing, session
from protocol.errors import ProtocolError
from protocol.integrate import RULES, Verdict
from tests.protocol.fuzzing import Decoders, Found, Grounds, feed_handshake

TRIES = 20_000
TRIES_SOAK = 1_000_000
OFTEN = 50  # what is only decoded takes a hundredth of the time of what goes through a record


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
        decode_some, update_some, meet_some, grounds.attack, grounds.feed_window, grounds.attack
    ]  # fmt: skip
    seed = first_seed
    while found.tried < tries:
        feed = feeds[seed % len(feeds)]
        try:
            feed(Random(seed))
        except Exception as failure:
            raise AssertionError(f"{feed.__name__} with seed {seed}: {failure!r}") from failure
        seed += 1
    return found


@pytest.fixture(scope="module")
def found() -> Found:
    return fuzz(TRIES)


def test_nothing_but_the_documented_answers_comes_out(found: Found) -> None:
    assert found.tried >= TRIES
    for where in ("message", "window", "body", "statement", "ticket", "update", "handshake", "session"):
        assert len(found[where]) >= 2, f"{where}: only {found[where]}"


@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_nothing_else_comes_out_of_a_million(part: int) -> None:
    fuzz(TRIES_SOAK // 10, first_seed=(part + 1) * 10_000_000)
