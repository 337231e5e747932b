"""Addresses at which peers were reached, across restarts."""

from node.net.contacts import LEARNED_MAX
from node.net.known import FRESH_FOR_MS, KnownAddresses
from node.origins import Address
from protocol.ids import NodeId
from storage.changes import AnyChange
from tests.node.fakes import Clock
from tests.protocol.dialogue import NOW_MS, Record

NODE, OTHER = NodeId(b"n" * 32), NodeId(b"o" * 32)


class Book:
    def __init__(self) -> None:
        self.record = Record("r")
        self.clock = Clock()
        self.writes = 0
        self.open()

    def open(self) -> None:
        self.known = KnownAddresses(self.record.store, self.write, clock_ms=self.clock)

    def write(self, change: AnyChange) -> None:
        self.writes += 1
        self.record.integrator.write_one(change, NOW_MS)


def test_what_was_reached_is_known_after_a_restart_the_newest_first() -> None:
    book = Book()
    for port in (1, 2, 3):
        book.known.remember(Address("10.0.0.1", port), NODE)
        book.clock.pass_s(1)
    book.known.remember(Address("2001:db8::1", 4), NODE)
    book.record.open()
    book.open()
    assert [address.port for address in book.known.addresses()] == [4, 3, 2, 1]


def test_the_same_again_is_written_once_a_day_and_another_node_at_once() -> None:
    book = Book()
    for _ in range(5):
        book.known.remember(Address("a.example", 1), NODE)
    assert book.writes == 1
    book.known.remember(Address("a.example", 1), OTHER)
    assert book.writes == 2
    book.clock.pass_s(FRESH_FOR_MS / 1_000 + 1)
    book.known.remember(Address("a.example", 1), OTHER)
    assert book.writes == 3


def test_the_oldest_makes_room() -> None:
    book = Book()
    for port in range(1, LEARNED_MAX + 11):
        book.known.remember(Address("10.0.0.1", port), NODE)
        book.clock.pass_s(1)
    book.open()
    ports = {address.port for address in book.known.addresses()}
    assert ports == set(range(11, LEARNED_MAX + 11))


def test_addresses_that_mean_something_on_one_interface_only_are_not_kept() -> None:
    book = Book()
    book.known.remember(Address("fe80::1%eth0", 1), NODE)
    assert book.writes == 0 and book.known.addresses() == []


def test_a_record_that_cannot_be_read_is_passed_over() -> None:
    book = Book()
    book.record.integrator.write_one(lambda local: local.put("peer address", "no address", {}), NOW_MS)
    book.known.remember(Address("a.example", 1), NODE)
    book.open()
    assert book.known.addresses() == [Address("a.example", 1)]
