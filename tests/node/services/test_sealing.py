"""Keys of users and what is sealed to them: nobody else opens it, wherever it is moved to."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services import recovery
from node.services.keyring import Keyring, UserKey
from node.services.refusals import InvalidFields, KeyLocked
from node.services.sealing import Sealing
from node.services.user_keys import KEYS_MAX, first_key, next_key, read_keys
from protocol.changes import Edit, EditKind, Record
from protocol.schema import parse_definition
from protocol.sealed import LOCKED, Unsealed

NOTE = parse_definition(
    {"name": "Note", "fields": {name: {"type": "json", "encrypted": True} for name in ("body", "other")}},
    application="default",
)
ANN, BOB, EVE = (UserKey.of(bytes([n]) * 32) for n in (1, 2, 3))
KEYS = {"ann": ANN, "bob": BOB, "eve": EVE}


class Desk:
    """A sealing with one stored note, and users who are signed in by sessions of their names."""

    def __init__(self, *signed_in: str) -> None:
        self.values: dict[str, Any] = {}
        self.keyring = Keyring()
        for user in signed_in:
            self.keyring.put(user, "default", user, KEYS[user].seed)

        def public_key_of(application: str, user: str) -> bytes | None:
            return KEYS[user].public if user in KEYS else None

        self.sealing = Sealing(self.keyring, self.record, public_key_of, os.urandom)

    def record(self, model: Any, id: str) -> Record | None:
        return Record(id, NOTE, self.values, 0, 0, "ann", "v") if self.values else None

    def write(self, user: str, value: Any, readers: tuple[str, ...] | None = None) -> None:
        edit = Edit(EditKind.UPDATE, NOTE, "one", {"body": Unsealed(value, readers)})
        self.sealing.seal([edit], user)
        self.values = {**self.values, **edit.values}

    def read(self, user: str, *, id: str = "one", field: str = "body") -> Any:
        content: dict[str, Any] = {"id": id, field: LOCKED}
        self.sealing.open(NOTE, id, content, user, user)
        return content[field]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists, max_leaves=5
    )
)
def test_the_writer_and_the_readers_open_it_and_nobody_else(value: Any) -> None:
    desk = Desk("ann", "bob", "eve")
    desk.write("ann", value, ("bob",))
    assert desk.read("ann") == desk.read("bob") == value
    assert desk.read("eve") == desk.read("nobody") == LOCKED


def test_readers_stay_until_others_are_named() -> None:
    desk = Desk("ann", "bob")
    desk.write("ann", 1, ("bob",))
    desk.write("bob", 2)
    assert (desk.read("ann"), desk.read("bob")) == (2, 2)
    desk.write("ann", 3, ())
    assert (desk.read("ann"), desk.read("bob")) == (3, LOCKED)


def test_without_a_session_here_nothing_is_written_or_opened() -> None:
    desk = Desk("ann")
    desk.write("ann", 1)
    with pytest.raises(KeyLocked):
        desk.write("bob", 2)
    desk.keyring.drop("ann")
    assert desk.read("ann") == LOCKED
    with pytest.raises(KeyLocked):
        desk.write("ann", 2)


def test_every_reader_without_a_key_is_named() -> None:
    with pytest.raises(InvalidFields) as refused:
        Desk("ann").write("ann", 1, ("bob", "nobody", "noone"))
    assert refused.value.faults == {"body": "There is no key to encrypt for: nobody, noone"}


def test_a_value_that_was_moved_does_not_open() -> None:
    desk = Desk("ann")
    desk.write("ann", "secret")
    assert desk.read("ann", id="two") == LOCKED
    desk.values["other"] = desk.values["body"]
    assert desk.read("ann", field="other") == LOCKED


def test_two_envelopes_of_one_value_have_nothing_in_common() -> None:
    desk = Desk("ann")
    desk.write("ann", "same")
    first = desk.values["body"]
    desk.write("ann", "same")
    assert first["box"] != desk.values["body"]["box"] and first["keys"] != desk.values["body"]["keys"]


# -- the list of a user's keys -----------------------------------------------------------------------------------


def test_a_list_is_continuous_while_each_key_is_signed_by_the_one_before() -> None:
    listed = first_key("ann", ANN)
    assert read_keys("ann", listed) == (ANN.public, True)
    signed = next_key("ann", listed, BOB, ANN)
    assert read_keys("ann", signed) == (BOB.public, True)
    reset = next_key("ann", listed, BOB, None)
    assert read_keys("ann", reset) == (BOB.public, False)
    assert read_keys("bob", listed) == (ANN.public, False), "a list says whose it is"
    for _ in range(KEYS_MAX + 3):
        reset = next_key("ann", reset, EVE, None)
    found = read_keys("ann", reset)
    assert found is not None and found.newest == EVE.public and len(reset) == KEYS_MAX


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_whatever_a_peer_writes_there_raises_nothing(listed: Any) -> None:
    assert read_keys("ann", listed) is None or isinstance(listed, list)


# -- recovery codes ----------------------------------------------------------------------------------------------


@given(st.binary(min_size=20, max_size=20), st.text())
def test_a_recovery_code_opens_the_key_of_its_user(code: bytes, other: str) -> None:
    sealed = recovery.seal(code, ANN.seed, "ann", os.urandom)
    text = recovery.code_text(code)
    for spelling in (text, text.lower(), text.replace("-", ""), text.replace("-", " ")):
        assert recovery.opened(spelling, sealed, "ann") == ANN.seed
    assert recovery.opened(text, sealed, "bob") is None
    assert recovery.opened(text, None, "ann") is None and recovery.opened(text, "!", "ann") is None
    assert other == text or recovery.opened(other, sealed, "ann") is None


# -- the memory of keys ------------------------------------------------------------------------------------------


def test_a_key_goes_with_the_last_session_of_its_user() -> None:
    keyring = Keyring()
    for session in ("one", "two"):
        keyring.put(session, "default", "ann", ANN.seed)
    keyring.put("three", "default", "bob", BOB.seed)
    keyring.drop("one")
    assert keyring.holds("default", "ann") and keyring.of_session("one") is None
    keyring.drop_unless("ann", lambda application, session: session != "two")
    assert not keyring.holds("default", "ann") and keyring.holds("default", "bob")
    keyring.drop("two")
    assert keyring.of_session("three") == BOB and keyring.of_session(None) is None
