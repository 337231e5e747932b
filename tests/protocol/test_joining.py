"""Joining and introductions: who is let in by what, what a stranger sees, and every way in which it ends."""

import pytest

from protocol.exchange import PeerMisbehaved
from protocol.joining import Acquainted, Admitted, Joined, NotMet, Opening, Reason
from protocol.keys import KeyPair
from protocol.membership import Role
from tests.protocol.meetings import End, admitter, invite, join, joiner, meet, network

LAPTOP = KeyPair.from_seed(b"l" * 32)
PHONE = KeyPair.from_seed(b"p" * 32)


def test_a_ticket_lets_a_device_in() -> None:
    _, (ann,) = network()
    caller, answerer = join(invite(ann), LAPTOP, ann)
    joined = caller.last
    assert isinstance(joined, Joined)
    assert joined.rights.role is Role.MEMBER and joined.rights.spaces is None
    assert answerer.last == Admitted(LAPTOP.public)
    assert ann.store.members.role_of(LAPTOP.public) is Role.MEMBER
    assert joined.members.roles == ann.store.members.roles
