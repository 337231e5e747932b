"""Being found and finding, with a radio that only pretends: names, hours, other networks, hostile announcements."""

import logging
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.net.discovery import HEARD_MAX, Discovery
from node.net.mdns import Announcement
from node.origins import Address
from protocol.beacon import HOUR_MS, Beacon
from protocol.ids import NetworkId
from tests.node.fakes import Clock

NETWORK, OTHER = NetworkId(b"n" * 32), NetworkId(b"o" * 32)


class Radio:
    """Everybody in the room hears everybody."""

    def __init__(
        self,
        room: "list[Radio]",
        on_heard: Callable[[Announcement], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.room = room
        self.on_heard = on_heard
        self.on_lost = on_lost
        self.said: Announcement | None = None
        self.opened: list[tuple[bool, Sequence[str] | None]] = []
        self.rescans = 0
        self.announced: list[Announcement] = []
        self.failure: Exception | None = None
        self.is_closed = False

    def addresses(self) -> tuple[str, ...]:
        """Of what is being said."""
        return self.said.addresses if self.said is not None else ()

    async def open(self, ipv6: bool, hosts: Sequence[str] | None) -> None:
        if self.failure is not None:
            raise self.failure
        self.opened.append((ipv6, hosts))
        self.room.append(self)
        for other in self.room:
            if other.said is not None:
                self.on_heard(other.said)

    async def announce(self, announcement: Announcement) -> None:
        await self.withdraw()
        self.said = announcement
        self.announced.append(announcement)
        for other in self.room:
            other.on_heard(announcement)

    async def withdraw(self) -> None:
        said, self.said = self.said, None
        if said is not None:
            for other in self.room:
                other.on_lost(said.label)

    async def rescan(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.rescans += 1

    async def close(self) -> None:
        await self.withdraw()
        self.is_closed = True


class Place:
    """One node's discovery, and what it told of it."""

    def __init__(
        self,
        room: list[Radio],
        clock: Clock,
        seed: int,
        *,
        network_id: NetworkId = NETWORK,
        listening: Address | None = None,
    ) -> None:
        self.found: list[Address] = []
        self.lost: list[Address] = []
        self.drawn = seed * 1_000
        self.discovery = Discovery(
            network_id,
            listening or Address("0.0.0.0", 4490 + seed),
            lambda heard, lost: self.tune(Radio(room, heard, lost)),
            on_found=self.found.append,
            on_lost=self.lost.append,
            clock_ms=clock,
            random_bytes=self.draw,
            log=logging.getLogger("tests.discovery"),
        )

    def tune(self, radio: Radio) -> Radio:
        self.radio = radio
        return radio

    def draw(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")


async def test_nodes_of_one_network_find_each_other_and_nobody_else() -> None:
    room: list[Radio] = []
    clock = Clock()
    a, b, c = Place(room, clock, 1), Place(room, clock, 2), Place(room, clock, 3, network_id=OTHER)
    for place, host in ((a, "10.0.0.1"), (b, "10.0.0.2"), (c, "10.0.0.3")):
        await place.discovery.refresh([host])
    assert a.found == [Address("10.0.0.2", 4492)]
    assert b.found == [Address("10.0.0.1", 4491)]
    assert c.found == []
    await b.discovery.stop()
    assert a.lost == [Address("10.0.0.2", 4492)]


async def test_what_is_announced_tells_no_name_and_no_lasting_id() -> None:
    room: list[Radio] = []
    place = Place(room, Clock(), 1)
    await place.discovery.refresh(["10.0.0.1"])
    (said,) = place.radio.announced
    assert len(said.label) == 16 and bytes.fromhex(said.label)
    assert len(said.tag) == 16
    assert NETWORK.hex()[:8] not in said.label
    assert (said.port, said.addresses) == (4491, ("10.0.0.1",))


async def test_every_hour_has_a_name_of_its_own() -> None:
    room: list[Radio] = []
    clock = Clock()
    a, b = Place(room, clock, 1), Place(room, clock, 2)
    for _ in range(3):
        for _ in range(4):  # a look every few seconds
            await a.discovery.refresh(["10.0.0.1"])
            await b.discovery.refresh(["10.0.0.2"])
        clock.pass_s(HOUR_MS / 1_000)
    assert len(a.radio.announced) == 3
    assert len({said.label for said in a.radio.announced}) == 3
    assert len({said.tag for said in a.radio.announced}) == 3
    assert set(b.found) == {Address("10.0.0.1", 4491)}


async def test_a_change_of_addresses_is_announced_after_a_rescan() -> None:
    room: list[Radio] = []
    a = Place(room, Clock(), 1)
    b = Place(room, Clock(), 2)
    await b.discovery.refresh(["10.0.0.2"])
    await a.discovery.refresh(["10.0.0.1"])
    await a.discovery.refresh(["192.168.0.9", "10.0.0.7"])
    assert a.radio.rescans == 1
    assert a.radio.addresses() == ("10.0.0.7", "192.168.0.9")
    assert b.lost == [Address("10.0.0.1", 4491)]
    assert b.found[1:] == [Address("10.0.0.7", 4491), Address("192.168.0.9", 4491)]
    await a.discovery.refresh([])  # the cable is out
    assert a.radio.addresses() == ()
    assert set(b.lost[1:]) == {Address("10.0.0.7", 4491), Address("192.168.0.9", 4491)}


async def test_where_it_listens_decides_what_is_announced() -> None:
    everywhere = Place([], Clock(), 1, listening=Address("::", 1))
    await everywhere.discovery.refresh(["10.0.0.1", "2001:db8::1"])
    assert everywhere.radio.opened == [(True, None)]
    assert everywhere.radio.addresses() == ("10.0.0.1", "2001:db8::1")
    four = Place([], Clock(), 1)
    await four.discovery.refresh(["10.0.0.1", "2001:db8::1"])
    assert four.radio.opened == [(False, None)]
    assert four.radio.addresses() == ("10.0.0.1",)
    one = Place([], Clock(), 1, listening=Address("10.0.0.8", 1))
    await one.discovery.refresh(["10.0.0.1", "10.0.0.8"])
    assert one.radio.opened == [(False, ["10.0.0.8"])]
    assert one.radio.addresses() == ("10.0.0.8",)


@pytest.mark.parametrize("failure", [OSError(19, "No such device"), RuntimeError("of the library")])
async def test_without_multicast_this_is_said_once_and_tried_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    place = Place([], Clock(), 1)
    place.radio.failure = failure
    for _ in range(5):
        await place.discovery.refresh(["10.0.0.1"])
    assert place.radio.addresses() == ()
    assert len(caplog.records) == 1 and "--peer" in caplog.text
    place.radio.failure = None
    await place.discovery.refresh(["10.0.0.1"])
    assert place.discovery.is_open and place.radio.addresses() == ("10.0.0.1",)


def announcement(name: bytes, **more: object) -> Announcement:
    hour = Clock()() // HOUR_MS
    fields = {
        "label": name.hex(),
        "tag": Beacon(NETWORK).tag(name, hour),
        "port": 1,
        "addresses": ("10.6.6.6",),
    }
    return Announcement(**{**fields, **more})  # type: ignore[arg-type]


async def test_announcements_that_are_none_of_ours_lead_nowhere() -> None:
    place = Place([], Clock(), 1)
    await place.discovery.refresh(["10.0.0.1"])
    good = announcement(b"goodgood")
    for odd in (
        announcement(b"goodgood", tag=b"x" * 16),
        announcement(b"goodgood", tag=b""),
        announcement(b"goodgood", port=0),
        announcement(b"goodgood", port=70_000),
        announcement(b"goodgood", label=good.label.upper()),
        announcement(b"goodgood", label="Living Room \x1b[2J"),
        announcement(b"goodgood", label=""),
        announcement(b"goodgood", addresses=()),
    ):
        place.discovery.on_heard(odd)
    assert place.found == []
    place.discovery.on_heard(good)
    assert place.found == [Address("10.6.6.6", 1)]


async def test_a_neighbour_that_announces_without_end_is_remembered_within_a_limit() -> None:
    place = Place([], Clock(), 1)
    for number in range(10 * HEARD_MAX):
        name = number.to_bytes(8, "big")
        place.discovery.on_heard(announcement(name, addresses=(f"10.1.{number // 256}.{number % 256}",)))
    assert len(place.found) == HEARD_MAX


async def test_an_address_that_two_names_announce_is_lost_with_the_last_of_them() -> None:
    place = Place([], Clock(), 1)
    one, two = announcement(b"one.one."), announcement(b"two.two.")
    place.discovery.on_heard(one)
    place.discovery.on_heard(two)
    place.discovery.on_lost(one.label)
    assert place.lost == []
    place.discovery.on_lost(two.label)
    place.discovery.on_lost("never heard of")
    assert place.lost == [Address("10.6.6.6", 1)]


@given(
    label=st.text(max_size=40),
    tag=st.binary(max_size=40),
    port=st.integers(-5, 100_000),
    addresses=st.lists(st.text(max_size=20), max_size=4),
)
def test_whatever_is_heard_nothing_raises(label: str, tag: bytes, port: int, addresses: list[str]) -> None:
    place = Place([], Clock(), 1)
    place.discovery.on_heard(Announcement(label, tag, port, tuple(addresses)))
    place.discovery.on_lost(label)
    assert place.found == []
