"""Packed windows: the same bytes come out, fewer of them travel, and no packing makes much out of little."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import body_hash
from protocol.commit import NO_PREVIOUS, Commit, Header, sign_commit
from protocol.encoding import encode
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.ids import SpaceId, author_of
from protocol.keys import KeyPair
from protocol.packing import MARKS_MAX, UNPACKED_SIZE_MAX_BYTES, pack_window, unpack, unpack_window
from protocol.window import Run, encode_window

KEYS = KeyPair.from_seed(b"k" * 32)


def chain(bodies: list[list[bytes]], *, life: int = 1) -> Run:
    """A run with these bodies, commit by commit."""
    author, commits, previous = author_of(KEYS.public, bytes([life]) * 8), list[Commit](), NO_PREVIOUS
    for number, held in enumerate(bodies):
        hashes = tuple(map(body_hash, held))
        header = Header(SpaceId(b"s" * 16), author, number + 1, previous, (number + 1) << 16, (), hashes)
        commits.append(sign_commit(KEYS, header, held))
        previous = commits[-1].hash
    return Run(tuple(commits))


def records(count: int) -> list[list[bytes]]:
    """Commits of one body each, as an application makes them."""
    random = Random(1)
    bodies = []
    for number in range(count):
        values = {"title": f"task {number}", "description": "none", "priority": "high", "rank": number}
        id = f"{random.getrandbits(80):026}"
        body = [random.randbytes(16), "someone", "task_01234567", id, [], [[0, values]]]
        bodies.append([encode(body)])
    return bodies


@given(bodies=st.lists(st.lists(st.binary(max_size=80), max_size=3), min_size=1, max_size=8))
def test_any_window_comes_out_as_it_went_in(bodies: list[list[bytes]]) -> None:
    runs = [chain(bodies), chain(bodies[:1], life=2)]
    packed = pack_window(runs)
    assert unpack(packed) == encode_window(runs)
    assert [[c.hash for c in run.commits] for run in unpack_window(packed)] == [
        [c.hash for c in run.commits] for run in runs
    ]


LOOKALIKES = [b"\xff", b"\xff\x00", b"\x00", b"\x01", b"titletitle", b"\x65title"]


@given(marks=st.lists(st.sampled_from(LOOKALIKES), max_size=60))
def test_bytes_that_look_like_marks_come_out_too(marks: list[bytes]) -> None:
    runs = [chain([[b"".join(marks)], *records(12)])]
    assert unpack(pack_window(runs)) == encode_window(runs)


def test_what_repeats_is_said_once() -> None:
    runs = [chain(records(200))]
    packed, window = pack_window(runs), encode_window(runs)
    assert len(packed) < 0.7 * len(window)
    assert packed.count(b"description") == 1
    assert unpack(packed) == window


def test_what_does_not_repeat_travels_as_it_is() -> None:
    runs = [chain([[Random(2).randbytes(3_000)]])]
    assert len(pack_window(runs)) <= len(encode_window(runs)) + 8


def test_the_same_runs_are_packed_the_same() -> None:
    assert pack_window([chain(records(30))]) == pack_window([chain(records(30))])


packings = st.lists(st.binary(max_size=40), max_size=5).map(encode)


@given(data=st.one_of(st.binary(max_size=40), packings))
def test_any_bytes_give_a_window_or_a_fault(data: bytes) -> None:
    for read in (unpack, unpack_window):
        try:
            read(data)
        except ProtocolError:
            pass


@pytest.mark.parametrize(
    "parts",
    [
        [b"\xff", b"a"],
        [b"\xff\x02", b"a"],
        [b"\xff\x40", b"a"],
        [b"\xff\xff", b"a"],
        [b"", "a"],
        [b"", b"x" * 300],
        [],
        [0, b"x"],
    ],
)
def test_packing_that_makes_no_sense_is_refused(parts: list[object]) -> None:
    with pytest.raises(Malformed):
        unpack(encode(parts))


def test_little_that_would_become_much_is_refused_before_it_does() -> None:
    with pytest.raises(TooLarge):
        unpack(encode([b"\xff\x01" * (UNPACKED_SIZE_MAX_BYTES // 256 + 1), b"x" * 256]))
    with pytest.raises(TooLarge):
        unpack(encode([b"\xff\x01" * (MARKS_MAX + 1), b"x"]))
