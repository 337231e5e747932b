"""Messages: every one survives its bytes, and no bytes at all give anything but a message or a fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.ids import Author
from protocol.messages import (
    ADMIT_SIZE_MAX_BYTES,
    HEADS_MAX,
    NODE_NAME_MAX,
    SPACES_MAX,
    WINDOW_MESSAGE_MAX_BYTES,
    Ack,
    Admission,
    Declined,
    Error,
    Lack,
    Message,
    Offer,
    Open,
    Root,
    Roots,
    SpaceRoot,
    SpaceTips,
    Tip,
    Want,
    check_space_name,
    decode_message,
    encode_message,
    message_size_max,
)
from tests.protocol.message_strategies import messages, odd_messages


@given(message=messages())
def test_every_message_survives_its_bytes(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(data=st.one_of(st.binary(max_size=60), odd_messages.map(encode)))
def test_any_bytes_give_a_message_or_a_fault(data: bytes) -> None:
    try:
        message = decode_message(data)
    except ProtocolError:
        return
    assert encode_message(message) == data


@given(message=messages(), data=st.data())
def test_a_changed_byte_gives_another_message_or_a_fault(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_message(bytes(encoded))
    except ProtocolError:
        return
    assert found != message


def test_the_largest_message_of_each_kind_fits_its_limit() -> None:
    longest = "app/" + "x" * 60
    authors = [Author(number.to_bytes(40, "big")) for number in range(HEADS_MAX)]
    tips = tuple(Tip(author, 2**63 - 1, bytes(16)) for author in authors)
    spread = tuple(SpaceTips(f"{longest}{number:04}", (tip,)) for number, tip in enumerate(tips))
    largest: list[Message] = [
        Open(bytes(32), 2**63 - 1, 2**63 - 1),
        Root(bytes(32), 2**63 - 1),
        Roots(tuple(SpaceRoot(f"{longest}{number:04}", bytes(32)) for number in range(SPACES_MAX))),
        Offer((SpaceTips("system", tips),)),
        Offer(spread),
        Want(tuple(Lack(number, 2**63 - 1) for number in range(HEADS_MAX))),
        Ack(2**63 - 1, 255),
        Error(255, "\U0001f600" * 200),
        Admission(bytes(ADMIT_SIZE_MAX_BYTES), "\U0001f600" * NODE_NAME_MAX),
        Declined(255),
    ]
    for message in largest:
        assert decode_message(encode_message(message)) == message


def test_what_is_too_many_is_refused() -> None:
    tips = [[number.to_bytes(40, "big"), 1, bytes(16)] for number in range(HEADS_MAX + 1)]
    with pytest.raises(TooLarge):
        decode_message(encode([7, [["system", tips]]]))
    halves = [["app/a", tips[: HEADS_MAX // 2]], ["app/b", tips[HEADS_MAX // 2 :]]]
    with pytest.raises(TooLarge):
        decode_message(encode([7, halves]))


def test_the_limit_of_a_message_is_known_from_its_first_bytes() -> None:
    assert message_size_max(b"\x81\x0c") == 8
    assert message_size_max(encode([9, bytes(1_000)])[:2]) == WINDOW_MESSAGE_MAX_BYTES
    for head in (b"", b"\x81", b"\x80\x00", b"\x81\x14", b"\xa1\x00", b"\x89\x00", b"\x81\xff"):
        with pytest.raises(Malformed):
            message_size_max(head)


@pytest.mark.parametrize(
    "items",
    [
        [3, bytes(32), 1],
        [3, bytes(31), 0, 0],
        [3, bytes(32), -1, 0],
        [3, bytes(32), True, 0],
        [3, bytes(32), 1.0, 0],
        [3, bytes(32), 2**63, 0],
        [5, [["app/b", bytes(32)], ["app/a", bytes(32)]]],
        [5, [["app/a", bytes(32)], ["app/a", bytes(32)]]],
        [5, [["app", bytes(32)]]],
        [7, []],
        [7, [["system", []]]],
        [7, [["system", [[bytes(40), 0, bytes(16)]]]]],
        [7, [["system", [[bytes(40), 1, bytes(16)], [bytes(40), 2, bytes(16)]]]]],
        [8, [[1, 0], [0, 0]]],
        [8, [[0, 0], [0, 0]]],
        [9, b""],
        [12, 0],
        [14, 0],
        [15, b"x", 1],
        [15, b"", False],
        [15, "x", True],
        [17, b"", "name"],
        [17, bytes(ADMIT_SIZE_MAX_BYTES + 1), "name"],
        [17, b"x", "n" * (NODE_NAME_MAX + 1)],
        [17, b"x", b"name"],
        [19, -1],
        [19, 256],
    ],
)
def test_a_message_that_breaks_its_layout_is_refused(items: list[object]) -> None:
    with pytest.raises(ProtocolError):
        decode_message(encode(items))


@pytest.mark.parametrize(
    "name", ["", "App/a", "app/", "app/a b", "app/" + "x" * 65, "systems", b"system", None, 1]
)
def test_a_name_that_no_space_has_is_refused(name: object) -> None:
    with pytest.raises(Malformed):
        check_space_name(name)


def test_an_answer_that_all_is_in_sync_takes_less_than_fifty_bytes() -> None:
    assert len(encode_message(Open(bytes(32), 2**32 - 1, 2**32 - 1))) + 4 <= 50
