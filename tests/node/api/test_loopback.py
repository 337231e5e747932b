import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.loopback import Served, Source, is_served, presentable, served_at, source_of
from node.origins import Address

LOOPBACK = served_at(Address("127.0.0.1", 8080), allowed=["http://localhost:3000", "tauri://localhost"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "LOCALHOST:8080", "LocalHost:8080"]
)
def test_the_loopback_names_with_our_port_are_served(host: str) -> None:
    assert is_served([host], LOOPBACK)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["127.0.0.1:8080", "127.0.0.1:8080"],
        ["127.0.0.1:8080", "evil.example"],
        [""],
        ["127.0.0.1"],
        ["127.0.0.1:"],
        ["127.0.0.1:80"],
        ["127.0.0.1:08080"],
        ["127.0.0.1:8080 "],
        [" 127.0.0.1:8080"],
        ["127.0.0.1:8080, evil.example"],
        ["evil.example"],
        ["evil.example:8080"],
        ["127.0.0.1.evil.example:8080"],
        ["localhost.evil.example:8080"],
        ["evil.localhost:8080"],
        ["localhost.:8080"],
        ["127.0.0.1.:8080"],
        ["user@127.0.0.1:8080"],
        ["user:word@localhost:8080"],
        ["127.1:8080"],
        ["2130706433:8080"],
        ["0x7f.0.0.1:8080"],
        ["0.0.0.0:8080"],
        ["::1:8080"],
        ["[::1]"],
        ["[::1]:80"],
        ["[0:0:0:0:0:0:0:1]:8080"],
        ["[::ffff:127.0.0.1]:8080"],
        ["[::1%25lo]:8080"],
        ["localhost:8080/"],
        ["localhost:8080#"],
        ["http://localhost:8080"],
        ["ⓛocalhost:8080"],
        ["192.168.1.5:8080"],
    ],
)
def test_any_other_host_is_not(hosts: list[str]) -> None:
    assert not is_served(hosts, LOOPBACK)
    assert not is_served(hosts, LOOPBACK, "192.168.1.5")


@given(st.text(max_size=40))
def test_no_text_but_the_served_names_passes(host: str) -> None:
    assert is_served([host], LOOPBACK) == (host.lower() in LOOPBACK.hosts and host.isascii())


def test_the_port_may_be_left_out_where_it_is_the_schemes_own() -> None:
    assert is_served(["localhost"], served_at(Address("127.0.0.1", 80)))
    assert is_served(["localhost"], served_at(Address("127.0.0.1", 443), tls=True))
    assert not is_served(["localhost"], served_at(Address("127.0.0.1", 443)))


def test_an_address_of_its_own_and_given_names_are_served_beside_nothing_else() -> None:
    served = served_at(Address("192.168.1.5", 8443), tls=True, names=["box.example"])
    assert is_served(["192.168.1.5:8443"], served)
    assert is_served(["box.example:8443"], served)
    assert not is_served(["localhost:8443"], served)
    assert not served.is_loopback


def test_on_a_wildcard_the_address_the_connection_reached_is_served_as_a_literal() -> None:
    served = served_at(Address("0.0.0.0", 8080))
    assert is_served(["192.168.1.5:8080"], served, "192.168.1.5")
    assert is_served(["192.168.1.5:8080"], served, "::ffff:192.168.1.5")
    assert is_served(["[fd00::5]:8080"], served, "fd00::5")
    assert is_served(["localhost:8080"], served, "127.0.0.1")
    assert is_served(["192.168.1.5"], served_at(Address("0.0.0.0", 80)), "192.168.1.5")
    assert not is_served(["192.168.1.6:8080"], served, "192.168.1.5")
    assert not is_served(["0.0.0.0:8080"], served, "192.168.1.5")
    assert not is_served(["evil.example:8080"], served, "192.168.1.5")
    assert not is_served(["192.168.1.5:8080"], served, None)


@pytest.mark.parametrize(
    ("origins", "site", "source"),
    [
        ([], None, Source.PROGRAM),
        ([], "none", Source.PROGRAM),
        ([], "same-origin", Source.PROGRAM),
        ([], "same-site", Source.FOREIGN),
        ([], "cross-site", Source.FOREIGN),
        ([], "CROSS-SITE", Source.FOREIGN),
        ([], "", Source.FOREIGN),
        ([], "surprise", Source.FOREIGN),
        (["http://127.0.0.1:8080"], "same-origin", Source.OWN),
        (["http://localhost:8080"], "cross-site", Source.OWN),
        (["http://[::1]:8080"], None, Source.OWN),
        (["http://localhost:3000"], "same-site", Source.ALLOWED),
        (["http://localhost:3000"], None, Source.ALLOWED),
        (["tauri://localhost"], "cross-site", Source.ALLOWED),
        (["https://localhost:3000"], None, Source.FOREIGN),
        (["http://localhost:3001"], "same-site", Source.FOREIGN),
        (["http://localhost"], None, Source.FOREIGN),
        (["http://127.0.0.1:3000"], None, Source.FOREIGN),
        (["https://127.0.0.1:8080"], None, Source.FOREIGN),
        (["http://evil.example"], "cross-site", Source.FOREIGN),
        (["http://evil.example:8080"], "same-origin", Source.FOREIGN),
        (["http://127.0.0.1:8080.evil.example"], None, Source.FOREIGN),
        (["null"], None, Source.FOREIGN),
        (["null"], "same-origin", Source.FOREIGN),
        ([""], None, Source.FOREIGN),
        (["http://localhost:3000/"], None, Source.FOREIGN),
        (["http://localhost:3000", "http://localhost:3000"], None, Source.FOREIGN),
    ],
)
def test_what_caused_a_request(origins: list[str], site: str | None, source: Source) -> None:
    assert source_of(origins, site, "127.0.0.1:8080", LOOPBACK) is source


def test_the_origin_of_the_accepted_host_is_our_own_also_where_it_was_not_known_in_advance() -> None:
    served: Served = served_at(Address("0.0.0.0", 8080))
    assert source_of(["http://192.168.1.5:8080"], None, "192.168.1.5:8080", served) is Source.OWN
    assert source_of(["http://192.168.1.6:8080"], None, "192.168.1.5:8080", served) is Source.FOREIGN


def test_only_a_proper_origin_is_repeated_to_the_user() -> None:
    assert presentable("https://App.Example.org:443") == "https://app.example.org"
    assert presentable("null") is None
    assert presentable("http://x; rm -rf /") is None
    assert presentable("http://" + "a" * 300) is None
