"""Random messages: well-formed ones of every kind, and odd ones inside the same envelope.

Room: hypothesis strategies only. Authors, spaces and numbers are drawn from small
pools beside the wide ones, so that messages fit a conversation now and then.
"""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from protocol.ids import AUTHOR_BYTES, Author, NodeId
from protocol.messages import (
    Ack,
    Admission,
    Challenge,
    Declined,
    Done,
    Error,
    Identity,
    Lack,
    Message,
    Met,
    More,
    Offer,
    Open,
    Ping,
    Proof,
    Root,
    Roots,
    Shown,
    SpaceRoot,
    SpaceTips,
    Tip,
    Want,
    Who,
    Window,
    Yours,
)

numbers = st.one_of(st.integers(0, 4), st.sampled_from([23, 24, 255, 2**32, 2**63 - 1]))
roots = st.one_of(st.sampled_from([bytes(32), b"r" * 32]), st.binary(min_size=32, max_size=32))
names = st.sampled_from(["system", "app/default", "app/a", "app/other-1.x"])


def tips(authors: Sequence[Author] = ()) -> st.SearchStrategy[Tip]:
    drawn = st.one_of(
        st.sampled_from([*authors, Author(b"a" * 40), Author(b"b" * 40)]),
        st.binary(min_size=AUTHOR_BYTES, max_size=AUTHOR_BYTES).map(Author),
    )
    seqs = st.one_of(st.integers(1, 5), st.integers(1, 2**63 - 1))
    return st.builds(Tip, drawn, seqs, st.binary(min_size=16, max_size=16))


def space_tips(
    authors: Sequence[Author] = (), *, min_size: int = 0
) -> st.SearchStrategy[tuple[SpaceTips, ...]]:
    some = (
        st.lists(tips(authors), min_size=1, max_size=4, unique_by=lambda tip: tip.author)
        .map(sorted)
        .map(tuple)
    )
    spaces = st.lists(
        st.builds(SpaceTips, names, some), min_size=min_size, max_size=3, unique_by=lambda s: s.space
    )
    return spaces.map(lambda found: tuple(sorted(found)))


def messages(authors: Sequence[Author] = ()) -> st.SearchStrategy[Message]:
    """Well-formed messages of every kind."""
    bytes32 = st.binary(min_size=32, max_size=32)
    lacks = st.lists(
        st.builds(Lack, st.integers(0, 5), numbers), max_size=4, unique_by=lambda lack: lack.index
    )
    all_roots = st.lists(st.builds(SpaceRoot, names, roots), max_size=4, unique_by=lambda item: item.space)
    versions = st.lists(st.integers(0, 9), min_size=2, max_size=2).map(sorted)
    return st.one_of(
        st.builds(Challenge, bytes32),
        st.builds(lambda v, nonce, mac: Proof(v[0], v[1], nonce, mac), versions, bytes32, bytes32),
        st.builds(Identity, st.integers(0, 9), st.one_of(st.just(b""), bytes32), bytes32.map(NodeId),
                  st.binary(min_size=8, max_size=8), st.text(max_size=32).filter(encodable),
                  st.integers(0, 2**48 - 1), st.binary(min_size=64, max_size=64)),
        st.builds(Open, roots, numbers, numbers),
        st.builds(Root, roots, numbers),
        st.builds(lambda found: Roots(tuple(sorted(found))), all_roots),
        st.builds(Yours, space_tips(authors)),
        st.builds(Offer, space_tips(authors, min_size=1)),
        st.builds(lambda found: Want(tuple(sorted(found))), lacks),
        st.builds(Window, st.binary(min_size=1, max_size=30)),
        st.builds(Ack, numbers, st.integers(0, 255)),
        st.builds(Done, numbers),
        st.just(Ping()),
        st.builds(Error, st.integers(0, 255), st.text(max_size=200).filter(encodable)),
        membership_messages(),
    )  # fmt: skip


def membership_messages() -> st.SearchStrategy[Message]:
    """Those that joining and introductions consist of."""
    return st.one_of(
        st.just(Who()),
        st.builds(Shown, st.binary(min_size=1, max_size=30), st.booleans()),
        st.just(Shown(b"", True)),
        st.just(More()),
        st.builds(Admission, st.binary(min_size=1, max_size=320), st.text(max_size=64).filter(encodable)),
        st.just(Met()),
        st.builds(Declined, st.integers(0, 255)),
    )


def encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


leaves: list[st.SearchStrategy[Any]] = [
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(),
    st.text(max_size=8).filter(encodable),
    st.binary(max_size=40),
    st.sampled_from(["system", "app/default", "app/", bytes(32), bytes(40), 2**63]),
]
odd_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(leaves),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.integers(0, 3), inner, max_size=2)
    ),
    max_leaves=12,
)
# Arrays that begin with a kind, and hold anything.
odd_messages = st.builds(
    lambda kind, rest: [kind, *rest], st.integers(0, 26), st.lists(odd_values, max_size=7)
)
