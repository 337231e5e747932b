"""Frames: messages come out as they went in, however the bytes were cut, and limits hold before memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.frames import FRAME_SIZE_MAX_BYTES, HEADER_BYTES, PAYLOAD_SIZE_MAX_BYTES, FrameReader, to_frames

LIMIT_BYTES = 3 << 20


def reader(limit_bytes: int = LIMIT_BYTES) -> FrameReader:
    return FrameReader(lambda head: limit_bytes)


def taken(frames: FrameReader) -> list[bytes]:
    found = []
    while (message := frames.next()) is not None:
        found.append(message)
    return found


@given(messages=st.lists(st.binary(min_size=1, max_size=40), max_size=5), cuts=st.lists(st.integers(1, 9)))
def test_messages_do_not_depend_on_how_the_bytes_were_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream, frames, found = b"".join(map(to_frames, messages)), reader(), list[bytes]()
    while stream:
        size = cuts.pop() if cuts else len(stream)
        frames.feed(stream[:size])
        stream = stream[size:]
        found += taken(frames)
    assert found == messages
    assert frames.held_bytes == 0


@pytest.mark.parametrize("extra", [-1, 0, 1, PAYLOAD_SIZE_MAX_BYTES, PAYLOAD_SIZE_MAX_BYTES + 1])
def test_a_message_longer_than_a_frame_travels_in_several(extra: int) -> None:
    message = bytes(range(256)) * ((PAYLOAD_SIZE_MAX_BYTES + extra) // 256 + 1)
    message = message[: PAYLOAD_SIZE_MAX_BYTES + extra]
    framed, frames = to_frames(message), reader()
    assert len(framed) == len(message) + HEADER_BYTES * -(-len(message) // PAYLOAD_SIZE_MAX_BYTES)
    for start in range(0, len(framed), 100_000):
        frames.feed(framed[start : start + 100_000])
    assert taken(frames) == [message]


def test_a_frame_over_the_limit_is_refused_by_its_header_alone() -> None:
    frames = reader()
    frames.feed(FRAME_SIZE_MAX_BYTES.to_bytes(4, "big"))
    with pytest.raises(TooLarge):
        frames.next()


def test_a_message_over_its_limit_is_refused_before_its_bytes_are_here() -> None:
    frames = FrameReader(lambda head: 10 if head == b"ab" else 100)
    frames.feed((11).to_bytes(4, "big") + b"xb")
    assert frames.next() is None
    frames = FrameReader(lambda head: 10 if head == b"ab" else 100)
    frames.feed((11).to_bytes(4, "big") + b"ab")
    with pytest.raises(TooLarge):
        frames.next()


def test_a_message_in_many_frames_ends_at_its_limit() -> None:
    frames = reader(2 * PAYLOAD_SIZE_MAX_BYTES)
    full = (PAYLOAD_SIZE_MAX_BYTES | 1 << 31).to_bytes(4, "big") + bytes(PAYLOAD_SIZE_MAX_BYTES)
    frames.feed(full)
    frames.feed(full)
    assert frames.next() is None
    assert frames.held_bytes == 2 * PAYLOAD_SIZE_MAX_BYTES
    frames.feed((1).to_bytes(4, "big"))
    with pytest.raises(TooLarge):
        frames.next()


@pytest.mark.parametrize("header", [bytes(4), (1 << 31).to_bytes(4, "big"), (1 << 31 | 5).to_bytes(4, "big")])
def test_empty_frames_and_crumbs_are_refused(header: bytes) -> None:
    frames = reader()
    frames.feed(header + b"12345")
    with pytest.raises(Malformed):
        frames.next()


@given(data=st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_fault_of_the_peer(data: bytes) -> None:
    frames = reader()
    frames.feed(data)
    try:
        taken(frames)
    except ProtocolError:
        pass
    assert frames.held_bytes <= len(data)


def test_what_follows_the_last_message_is_handed_over() -> None:
    frames = reader()
    frames.feed(to_frames(b"first") + b"\0\0")
    assert taken(frames) == [b"first"]
    assert frames.rest() == b"\0\0"
    assert frames.rest() == b""
