"""Addresses that may be dialed: when, in which order, and how many are remembered."""

from random import Random

from node.net.contacts import (
    CONTACTS_MAX,
    PER_HOST_MAX,
    RETRY_FIRST_MS,
    RETRY_FORGOTTEN_MAX_MS,
    RETRY_MAX_MS,
    Contact,
    Contacts,
    Source,
)
from node.origins import Address
from protocol.ids import Author
from tests.node.net.wires import Time

A, B = Address("10.0.0.1", 4490), Address("10.0.0.2", 4490)
ANNA, BERT = Author(b"a" * 40), Author(b"b" * 40)


def contacts() -> tuple[Contacts, Time]:
    time = Time()
    return Contacts(steady_ms=time.steady_ms, chance=Random(1).random), time


def nobody(author: Author) -> bool:
    return False


def only(found: list[Contact]) -> Contact:
    (contact,) = found
    return contact


def test_what_is_new_is_due_at_once_and_once() -> None:
    known, _ = contacts()
    known.add(A, Source.CONFIGURED)
    contact = only(known.due(nobody))
    known.on_dialing(contact)
    assert known.due(nobody) == []
    assert known.next_due_ms(nobody) is None


def test_failures_double_the_delay_up_to_a_limit_with_chance_in_the_upper_half() -> None:
    for source, longest_ms in ((Source.CONFIGURED, RETRY_MAX_MS), (Source.LEARNED, RETRY_FORGOTTEN_MAX_MS)):
        known, time = contacts()
        known.add(A, source)
        expected_ms = RETRY_FIRST_MS
        for _ in range(30):
            contact = only(known.due(nobody))
            known.on_dialing(contact)
            known.on_failed(contact, "no answer")
            assert contact.due_ms is not None
            delay_ms = contact.due_ms - time.steady_ms()
            assert expected_ms / 2 <= delay_ms <= expected_ms
            assert known.due(nobody) == []
            time.pass_s(delay_ms / 1_000)
            expected_ms = min(longest_ms, expected_ms * 2)
        assert contact.fault == "no answer"


def test_two_nodes_that_failed_together_do_not_try_together() -> None:
    time = Time()
    delays = set()
    for seed in range(20):
        known = Contacts(steady_ms=time.steady_ms, chance=Random(seed).random)
        known.add(A, Source.CONFIGURED)
        contact = only(known.due(nobody))
        known.on_failed(contact, "x")
        delays.add(contact.due_ms)
    assert len(delays) > 15


def test_an_address_whose_node_is_linked_is_left_alone_until_the_link_is_lost() -> None:
    known, time = contacts()
    known.add(A, Source.CONFIGURED)
    contact = only(known.due(nobody))
    known.on_dialing(contact)
    known.on_reached(contact, ANNA)
    time.pass_s(1_000)
    assert known.due(lambda author: author == ANNA) == []
    assert known.next_due_ms(lambda author: author == ANNA) is None
    known.on_link_lost(BERT)
    known.on_link_lost(ANNA)
    assert contact.due_ms is not None and contact.due_ms - time.steady_ms() <= RETRY_FIRST_MS
    time.pass_s(1)
    assert only(known.due(nobody)) is contact


def test_an_address_that_leads_to_this_node_is_tried_again_only_when_the_network_changes() -> None:
    known, time = contacts()
    known.add(A, Source.CONFIGURED)
    contact = only(known.due(nobody))
    known.on_dialing(contact)
    known.on_reached(contact, ANNA, is_own=True)
    time.pass_s(10_000)
    assert known.due(nobody) == []
    known.wake()
    assert only(known.due(nobody)) is contact


def test_waking_forgets_failures_but_does_not_dial_twice_at_once() -> None:
    known, time = contacts()
    known.add(A, Source.CONFIGURED)
    known.add(B, Source.CONFIGURED)
    first, second = known.due(nobody)
    for _ in range(8):
        known.on_failed(first, "x")
    known.on_dialing(second)
    known.wake()
    assert known.due(nobody) == [first]
    assert first.failures == 0
    assert time.steady_ms() == first.due_ms


def test_what_shows_itself_nearby_is_tried_at_once() -> None:
    known, _ = contacts()
    known.add(A, Source.LEARNED)
    contact = only(known.due(nobody))
    for _ in range(8):
        known.on_failed(contact, "x")
    known.add(A, Source.LEARNED)
    assert known.due(nobody) == []
    known.add(A, Source.NEARBY)
    assert only(known.due(nobody)) is contact
    assert contact.source is Source.NEARBY


def test_what_failed_least_and_was_configured_comes_first() -> None:
    known, time = contacts()
    known.add(A, Source.LEARNED)
    known.add(B, Source.CONFIGURED)
    third = Address("10.0.0.3", 1)
    known.add(third, Source.CONFIGURED)
    known.on_failed(known.get(third), "x")  # type: ignore[arg-type]
    time.pass_s(10)
    assert [contact.address for contact in known.due(nobody)] == [B, A, third]


def test_no_neighbour_can_fill_the_list_and_what_is_configured_always_fits() -> None:
    known, _ = contacts()
    assert [known.add(Address("10.6.6.6", port), Source.NEARBY) for port in range(1, 20)].count(
        True
    ) == PER_HOST_MAX
    for number in range(2 * CONTACTS_MAX):
        known.add(Address(f"10.1.{number // 256}.{number % 256}", 1), Source.NEARBY)
    assert len(known) == CONTACTS_MAX
    assert known.add(A, Source.CONFIGURED)
    assert not known.add(B, Source.LEARNED)


def test_what_is_not_announced_any_more_is_forgotten_unless_somebody_was_there() -> None:
    known, _ = contacts()
    known.add(A, Source.NEARBY)
    known.add(B, Source.NEARBY)
    reached = known.get(B)
    assert reached is not None
    known.on_reached(reached, BERT)
    for address in (A, B, Address("10.0.0.3", 1)):
        known.forget_nearby(address)
    assert [(contact.address, contact.source) for contact in known] == [(B, Source.LEARNED)]
    known.add(A, Source.CONFIGURED)
    known.forget_nearby(A)
    assert known.get(A) is not None


def test_after_a_brief_link_the_address_that_led_to_it_waits() -> None:
    known, time = contacts()
    for address in (A, B):
        known.add(address, Source.CONFIGURED)
    one, other = known.due(nobody)
    for contact in (one, other):
        known.on_dialing(contact)
        known.on_reached(contact, ANNA)
    for _ in range(5):
        known.on_failed(one, "too brief")
    known.on_link_lost(ANNA, except_for=one)
    time.pass_s(RETRY_FIRST_MS / 1_000)
    assert known.due(nobody) == [other]
