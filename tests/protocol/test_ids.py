import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidId
from protocol.ids import (
    application_space_name,
    author_of,
    builtin_model_id,
    check_application_id,
    check_chosen_id,
    check_instance_id,
    derived_model_id,
    is_name,
    node_of,
    sortable_id,
    space_id,
)
from protocol.limits import APPLICATION_ID_LENGTH_MAX, INSTANCE_ID_LENGTH_MAX, NAME_LENGTH_MAX

PLAIN = string.ascii_letters + string.digits
CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
moments = st.integers(0, (1 << 48) - 1)
randoms = st.integers(0, (1 << 80) - 1)


@given(moments, randoms, moments, randoms)
def test_ids_sort_as_their_times_and_then_as_their_random_part(
    one_ms: int, one: int, other_ms: int, other: int
) -> None:
    assert (sortable_id(one_ms, one) < sortable_id(other_ms, other)) == ((one_ms, one) < (other_ms, other))


@given(moments, randoms)
def test_an_id_holds_its_time_and_random_part_in_26_characters(now_ms: int, random: int) -> None:
    text = sortable_id(now_ms, random)
    number = 0
    for character in text:
        number = number * 32 + CROCKFORD.index(character)
    assert (len(text), number) == (26, now_ms << 80 | random)
    assert check_instance_id(text) == text


@pytest.mark.parametrize("text", ["a", "A.b_c:d~e-9", "x" * INSTANCE_ID_LENGTH_MAX])
def test_instance_ids_that_are_allowed(text: str) -> None:
    assert check_instance_id(text) == text
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    ["", "x" * (INSTANCE_ID_LENGTH_MAX + 1), "a b", "a\n", "a\0", "é", "a/b", "$a", "a$", "٣", None, 7, b"a"],
)  # fmt: skip
def test_instance_ids_that_are_refused(text: object) -> None:
    with pytest.raises(InvalidId):
        check_instance_id(text)


@pytest.mark.parametrize("text", ["aggregate", "queries"])
def test_what_an_address_means_otherwise_is_no_id_to_choose(text: str) -> None:
    assert check_instance_id(text) == text  # peers and files may bring such documents
    with pytest.raises(InvalidId):
        check_chosen_id(text)


@pytest.mark.parametrize("text", ["default", "my-app_1.2", "x" * APPLICATION_ID_LENGTH_MAX])
def test_application_ids_that_are_allowed(text: str) -> None:
    assert check_application_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "x" * (APPLICATION_ID_LENGTH_MAX + 1), "a:b", "a/b", "a\n", "ä", None, 1]
)
def test_application_ids_that_are_refused(text: object) -> None:
    with pytest.raises(InvalidId):
        check_application_id(text)


@given(st.text(st.sampled_from(PLAIN + "_.:~-$ \n\0é"), max_size=6))
def test_a_name_is_a_word_that_may_begin_with_a_dollar_sign(text: str) -> None:
    word = text.removeprefix("$")
    assert is_name(text) == (bool(word) and set(word) <= set(PLAIN + "_.:~-"))


def test_a_name_has_a_limit() -> None:
    assert is_name("$" + "x" * NAME_LENGTH_MAX)
    assert not is_name("x" * (NAME_LENGTH_MAX + 1))


def test_what_the_program_names_itself_is_a_name() -> None:
    assert is_name(builtin_model_id("x" * APPLICATION_ID_LENGTH_MAX, "$account"))
    assert len(derived_model_id("default", "Task")) == 8


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=8, max_size=8))
def test_an_author_tells_its_node(node: bytes, incarnation: bytes) -> None:
    assert node_of(author_of(node, incarnation)) == node


def test_spaces_differ_by_network_and_by_name() -> None:
    networks, names = (bytes(32), b"\1" * 32), ("system", application_space_name("system"), "app/x")
    assert len({space_id(network, name) for network in networks for name in names}) == 6


def test_models_differ_by_application_and_by_name() -> None:
    assert derived_model_id("a", "bc") != derived_model_id("ab", "c")
