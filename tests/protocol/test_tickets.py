"""Tickets and recovery codes: what is written can be read, however people copy it, and mistakes are found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.ids import NetworkId, NodeId
from protocol.keys import KeyPair
from protocol.roles import Role
from protocol.tickets import (
    ADDRESSES_PER_TICKET_MAX,
    TEXT_LENGTH_MAX,
    Ticket,
    _armour,
    _unarmour,
    decode_recovery_code,
    decode_ticket,
    encode_recovery_code,
    encode_ticket,
)
from tests.protocol.membership_tables import sample_ticket

QUICK = settings(max_examples=60, deadline=None)
hosts = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True) | st.just("[2001:db8::7%eth0.1]")
addresses = st.builds(lambda host, port: f"{host}:{port}", hosts, st.integers(0, 65_535))
digits = st.text("0123456789abcdefghjkmnpqrstvwxyz", max_size=300)
tickets = st.builds(
    Ticket,
    st.binary(min_size=32, max_size=32).map(NetworkId),
    st.binary(min_size=32, max_size=32).map(NodeId),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(Role),
    st.integers(0, (1 << 48) - 1),
    st.lists(addresses, max_size=8).map(tuple),
)


@QUICK
@given(tickets)
def test_what_is_written_can_be_read(ticket: Ticket) -> None:
    text = encode_ticket(ticket)
    assert text.isascii() and text.isalnum() and text == text.lower()
    assert decode_ticket(text) == ticket


@QUICK
@given(st.binary(max_size=200))
def test_armour_keeps_bytes_of_any_length(data: bytes) -> None:
    text = _armour("civic1", data)
    if data:
        assert _unarmour("civic1", text, "a ticket") == data


def test_capitals_hyphens_and_line_breaks_do_not_matter() -> None:
    ticket = sample_ticket()
    text = encode_ticket(ticket)
    wrapped = "\n> ".join(text[start : start + 60] for start in range(0, len(text), 60)).replace(">", "")
    for copied in (text.upper(), f"  {text}\r\n", wrapped, "-".join(text)):
        assert decode_ticket(copied) == ticket
    digits = text.removeprefix("civic1")
    assert decode_ticket("civic1" + digits.replace("0", "o").replace("1", "l")) == ticket


@QUICK
@given(st.data())
def test_a_mistyped_ticket_is_refused(data: st.DataObject) -> None:
    text = encode_ticket(sample_ticket())
    place = data.draw(st.integers(len("civic1"), len(text) - 1))
    digit = data.draw(st.sampled_from([d for d in "0123456789abcdefghjkmnpqrstvwxyz" if d != text[place]]))
    with pytest.raises(Malformed):
        decode_ticket(text[:place] + digit + text[place + 1 :])


def test_a_ticket_that_is_cut_short_or_runs_on_is_refused() -> None:
    text = encode_ticket(sample_ticket())
    for size in range(len(text)):
        with pytest.raises(Malformed):
            decode_ticket(text[:size])
    for more in ("0", "00", "00000000", text):
        with pytest.raises(Malformed):
            decode_ticket(text + more)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300) | digits.map("civic1".__add__))
def test_no_text_can_raise_anything_else(text: str) -> None:
    for decode in (decode_ticket, decode_recovery_code):
        with pytest.raises(ProtocolError):
            decode(text)


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 1 << 50) | st.binary(max_size=32) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=8),
    )
)
def test_odd_values_in_good_armour_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_ticket(_armour("civic1", encode(value)))


def test_every_field_of_a_ticket_is_checked() -> None:
    good = [1, bytes(32), bytes(32), bytes(16), 2, 5, ["host:1"]]
    assert decode_ticket(_armour("civic1", encode(good))).addresses == ("host:1",)
    bad: list[tuple[int, object]] = [
        (0, 2), (0, True), (1, bytes(31)), (2, bytes(33)), (3, bytes(15)), (4, 0), (4, 4), (4, True),
        (4, "admin"), (5, -1), (5, 1 << 48), (5, True), (6, ["host"]), (6, ["host:123456"]), (6, ["a b:1"]),
        (6, [1]), (6, ["\x1b[2J:1"]), (6, ["host:1\n"]), (6, ["[::1:1"]), (6, ["x" * 256 + ":1"]),
        (6, ["a:1"] * 9), (6, None),
    ]  # fmt: skip
    for place, value in bad:
        fields = [*good[:place], value, *good[place + 1 :]]
        with pytest.raises(ProtocolError):
            decode_ticket(_armour("civic1", encode(fields)))
    for fields in (good[:-1], [*good, 0], []):
        with pytest.raises(ProtocolError):
            decode_ticket(_armour("civic1", encode(fields)))
    with pytest.raises(Malformed, match="version 2"):
        decode_ticket(_armour("civic1", encode([2, "anything"])))


def test_a_ticket_with_too_much_in_it_is_neither_read_nor_written() -> None:
    ticket = sample_ticket()
    many = tuple(f"host:{port}" for port in range(ADDRESSES_PER_TICKET_MAX + 1))
    with pytest.raises(TooLarge):
        encode_ticket(Ticket(ticket.network_id, ticket.inviter, ticket.secret, ticket.role, 5, many))
    with pytest.raises(TooLarge):
        decode_ticket("civic1" + "0" * TEXT_LENGTH_MAX)


def test_the_secret_is_not_shown() -> None:
    ticket = sample_ticket()
    assert ticket.secret.hex() not in repr(ticket) and repr(ticket.secret) not in repr(ticket)


def test_a_ticket_expires_at_its_time() -> None:
    ticket = sample_ticket()
    assert not ticket.is_expired(ticket.expires_ms - 1)
    assert ticket.is_expired(ticket.expires_ms)


@QUICK
@given(st.binary(min_size=32, max_size=32))
def test_a_recovery_code_gives_the_key_back(seed: bytes) -> None:
    keys = KeyPair.from_seed(seed)
    code = encode_recovery_code(keys)
    assert decode_recovery_code(code) == keys
    assert decode_recovery_code(code.replace("-", " ").upper()) == keys


def test_a_ticket_is_no_recovery_code_and_the_other_way_round() -> None:
    with pytest.raises(Malformed, match="not a recovery code"):
        decode_recovery_code(encode_ticket(sample_ticket()))
    with pytest.raises(Malformed, match="not a ticket"):
        decode_ticket(encode_recovery_code(KeyPair.from_seed(bytes(32))))
    with pytest.raises(Malformed, match="wrong length"):
        decode_recovery_code(_armour("civickey1", bytes(31)))
