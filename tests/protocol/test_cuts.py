"""Cuts: what of a chain they leave, alone and together."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.cuts import Cut, Cuts, decode_cuts, is_settled, is_within
from protocol.errors import LocalMisuse, Malformed
from protocol.ids import SpaceId, author_of

SPACE, OTHER = SpaceId(b"s" * 16), SpaceId(b"t" * 16)
LIFE, NEXT = b"1" * 8, b"2" * 8
HASH = b"h" * 32
AT_5 = Cuts((Cut(SPACE, LIFE, 5, HASH),))
AT_3 = Cuts((Cut(SPACE, LIFE, 3, HASH),))


def test_a_chain_counts_up_to_the_named_header() -> None:
    assert [is_within([AT_5], SPACE, LIFE, seq, HASH) for seq in (1, 4, 5, 6)] == [True, True, True, False]
    assert is_within([AT_5], SPACE, LIFE, 4, b"any")
    assert not is_within([AT_5], SPACE, LIFE, 5, b"another branch")


def test_a_chain_that_is_not_named_ends_before_it_begins() -> None:
    assert not is_within([AT_5], OTHER, LIFE, 1, HASH)
    assert not is_within([AT_5], SPACE, NEXT, 1, HASH)
    assert not is_within([Cuts()], SPACE, LIFE, 1, HASH)
    assert is_within([], SPACE, LIFE, 1, HASH)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([AT_5, AT_3, Cuts()]), max_size=3), st.integers(1, 6))
def test_of_several_cuts_the_lowest_counts(cuts: list[Cuts], seq: int) -> None:
    ends = [{id(AT_5): 5, id(AT_3): 3}.get(id(each), 0) for each in cuts]
    assert is_within(cuts, SPACE, LIFE, seq, HASH) == (seq <= min(ends, default=99))


def test_a_fork_is_settled_when_every_cut_leads_on() -> None:
    assert not is_settled([], SPACE, LIFE, lambda cut: True)
    assert is_settled([AT_5], SPACE, LIFE, lambda cut: cut.seq == 5)
    assert not is_settled([AT_5, AT_3], SPACE, LIFE, lambda cut: cut.seq == 5)
    assert not is_settled([AT_5, Cuts()], SPACE, LIFE, lambda cut: True)


def test_cuts_at_heads_are_in_the_order_of_the_wire() -> None:
    heads = [(OTHER, author_of(bytes(32), LIFE), 2, HASH), (SPACE, author_of(bytes(32), NEXT), 1, HASH)]
    cuts = Cuts.at_heads([*heads, (SPACE, author_of(bytes(32), LIFE), 7, HASH)])
    assert [(cut.space, cut.incarnation, cut.seq) for cut in cuts.cuts] == [
        (SPACE, LIFE, 7),
        (SPACE, NEXT, 1),
        (OTHER, LIFE, 2),
    ]
    assert decode_cuts(cuts.to_lists()) == cuts


def test_cuts_are_made_of_one_head_a_chain_and_of_one_node() -> None:
    mine, other = (SPACE, author_of(bytes(32), LIFE)), (OTHER, author_of(b"n" * 32, LIFE))
    for heads in ([(*mine, 1, HASH), (*mine, 2, HASH)], [(*mine, 1, HASH), (*other, 1, HASH)]):
        with pytest.raises(LocalMisuse):
            Cuts.at_heads(heads)


def test_cuts_of_another_form_are_refused() -> None:
    good = [SPACE, LIFE, 5, HASH]
    assert decode_cuts([good]) == AT_5
    bad_ones: list[Any] = [
        None, (), [None], [[]], [good[:3]], [[*good, 0]], [[SPACE[1:], *good[1:]]],
        [[SPACE, LIFE[1:], 5, HASH]], [[SPACE, LIFE, 0, HASH]], [[SPACE, LIFE, True, HASH]],
        [[SPACE, LIFE, 1 << 63, HASH]], [[SPACE, LIFE, 5, HASH[1:]]], [good, good],
        [[OTHER, LIFE, 1, HASH], good],
    ]  # fmt: skip
    for bad in bad_ones:
        with pytest.raises(Malformed):
            decode_cuts(bad)
