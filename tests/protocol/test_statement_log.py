"""The log of statements: what is placed where, and what given statements add up to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import LocalMisuse
from protocol.membership import Rights, Role
from protocol.standing import Standings
from protocol.statement_log import StatementLog, bits
from tests.protocol.membership_world import (
    GENESIS,
    LAST,
    SETUP,
    SPACE,
    Said,
    admit,
    grant,
    invite,
    next_by,
    node,
    recover,
    revoke,
    say,
)


def log_of(*said: Said) -> StatementLog:
    standings = Standings(GENESIS)
    for each in (*SETUP.values(), *said):
        standings.append(each.read)
    return standings.log


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 300)))
def test_the_bits_of_a_set_come_in_order(numbers: set[int]) -> None:
    assert list(bits(sum(1 << number for number in numbers))) == sorted(numbers)


def test_a_commit_comes_once_and_after_its_causes() -> None:
    log = StatementLog(GENESIS)
    log.place(SETUP["a1"].read)
    for commit in (SETUP["a1"].read, SETUP["a3"].read):
        with pytest.raises(LocalMisuse):
            log.place(commit)


def test_what_was_said_before_is_in_the_past_of_what_comes_after() -> None:
    said = next_by("bob", invite("ticket of eve"), admit("ticket of eve", "joe"))
    log = log_of(said)
    first, second = log.commits[said.link].numbers
    before = log.commits[LAST["cat"].link].reach
    assert log.items[first].past & before == before
    assert log.items[second].past == log.items[first].past | 1 << first
    assert log.commits[said.link].reach == log.items[second].past | 1 << second


def test_a_branch_is_a_chain_and_nothing_else() -> None:
    log = log_of()
    chain = [log.commits[SETUP[name].link].numbers.start - 1 for name in ("a1", "a2", "a3", "ann")]
    assert list(bits(log.commits[LAST["ann"].link].branch)) == chain


def test_two_commits_with_one_seq_are_noticed() -> None:
    one, other = next_by("bob", invite("ticket of eve")), next_by("bob", grant("mia", Role.READER))
    third = next_by("bob", grant("mia", Role.ADMIN))
    assert log_of(one).forks == {}
    assert [(seq, mask.bit_count()) for seq, mask in log_of(one, other, third).forks[one.read.author]] == [
        (2, 3)
    ]


def test_rights_are_what_the_given_statements_say() -> None:
    limited = next_by("bob", grant("mia", Role.ADMIN, frozenset({SPACE})))
    member = next_by("cat", grant("mia", Role.MEMBER))
    later = next_by("dan", grant("mia", Role.READER), seen=[limited, member])
    log = log_of(limited, member, later)
    everything = (1 << len(log.items)) - 1

    def number(said: Said) -> int:
        return log.commits[said.link].numbers[0]

    without_later = everything & ~(1 << number(later))
    assert log.rights(node("mia"), everything) == Rights(Role.READER)
    assert log.rights(node("mia"), without_later) == Rights(Role.MEMBER, frozenset({SPACE}))
    assert log.rights(node("mia"), without_later & ~(1 << number(limited))) == Rights(Role.MEMBER)
    assert log.rights(node("mia"), 0) is None
    assert log.rights(node("ann"), 0) == Rights(Role.ADMIN)


def test_a_statement_rests_on_what_gave_its_author_the_right() -> None:
    said = next_by("mia", admit("ticket of bob", "joe"))
    log = log_of(said)
    seats, admissions = log.commits[SETUP["a2"].link].numbers, log.commits[SETUP["a3"].link].numbers
    invitation = log.commits[LAST["bob"].link].numbers[0]
    item = log.items[log.commits[said.link].numbers[0]]
    assert list(bits(item.rests_on)) == [seats[-1], admissions[-1], invitation]
    assert list(bits(item.invites)) == [invitation]


def test_whoever_was_admitted_or_recovered_is_known_for_good() -> None:
    gone = next_by("ann", revoke("mia"))
    recovered = say("eve", recover(), seen=LAST.values())
    log = log_of(gone, recovered)
    everything = (1 << len(log.items)) - 1
    assert all(log.is_known(node(name), everything) for name in ("ann", "bob", "mia", "eve"))
    assert log.is_known(node("ann"), 0) and not log.is_known(node("bob"), 0)
    assert not log.is_known(node("joe"), everything)
