"""Which URLs and addresses webhooks may go to."""

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.webhook_targets import (
    URL_MAX_CHARS,
    URL_PATTERN,
    TargetRefused,
    raise_unless_allowed,
    url_fault,
)

is_described = jsonschema_rs.validator_for({"pattern": URL_PATTERN}).is_valid
PRIVATE = [
    "127.0.0.1", "127.8.9.10", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "169.254.169.254",
    "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "198.18.0.1", "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "2a00:1450::5efe:7f00:1",
]  # fmt: skip
NEVER = ["169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "fd00:ec2::254",
         "ff02::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"]


def _nowhere(host: str, port: int) -> bool:
    return False


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_not_connected_to(address: str) -> None:
    with pytest.raises(TargetRefused):
        raise_unless_allowed(address, 443, allow_private=False, is_own=_nowhere)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_refused_whatever_is_allowed(address: str) -> None:
    with pytest.raises(TargetRefused):
        raise_unless_allowed(address, 443, allow_private=True, is_own=_nowhere)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_connected_to(address: str) -> None:
    raise_unless_allowed(address, 443, allow_private=False, is_own=_nowhere)


@pytest.mark.parametrize("address", ["127.0.0.1", "192.168.1.1", "::1", "fd00::1"])
def test_private_addresses_can_be_allowed(address: str) -> None:
    raise_unless_allowed(address, 80, allow_private=True, is_own=_nowhere)


def test_the_node_does_not_talk_to_itself() -> None:
    with pytest.raises(TargetRefused, match="this node itself"):
        raise_unless_allowed("127.0.0.1", 8080, allow_private=True, is_own=lambda host, port: port == 8080)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(TargetRefused):
        raise_unless_allowed("localhost", 80, allow_private=True, is_own=_nowhere)


@pytest.mark.parametrize(
    "url",
    [
        "https://your-app.com/webhook-endpoint",
        "http://example.org",
        "https://example.org:8443/a?b=c%20d",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/x",
        "https://example.org./x",
    ],
)
def test_good_urls(url: str) -> None:
    assert url_fault(url, allow_private=False) is None
    assert is_described(url)


@pytest.mark.parametrize(
    "url",
    [
        None, 7, "", "x" * 3_000, "example.org", "ftp://example.org/", "file:///etc/passwd", "https://",
        "https://user:secret@example.org/", "https://user@example.org/", "https://example.org/#part",
        "https://example.org:22/", "https://example.org:6667/", "https://example.org:0/", "https://example.org:99999/",
        "https://example.org:x/", "https://exa mple.org/", "https://example.org\\@127.0.0.1/", "https://bücher.example/",
        "https://example.org/\n", "https://[::1", "https://-a-.example/", "https://a..b/",
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://1.2.3.256/",
    ],
)  # fmt: skip
def test_bad_urls(url: object) -> None:
    assert url_fault(url, allow_private=True) is not None
    assert not isinstance(url, str) or len(url) > URL_MAX_CHARS or not is_described(url)


@pytest.mark.parametrize("address", sorted({*PRIVATE, *NEVER} - {"2a00:1450::5efe:7f00:1"}))
def test_the_pattern_of_urls_names_no_special_address(address: str) -> None:
    assert not is_described(f"https://[{address}]/" if ":" in address else f"https://{address}/")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "10.1.2.3"])
def test_private_urls_are_for_nodes_that_allow_them(host: str) -> None:
    assert "webhooks_allow_private" in str(url_fault(f"http://{host}:8000/x", allow_private=False))
    assert url_fault(f"http://{host}:8000/x", allow_private=True) is None


@given(
    st.one_of(st.text(), st.text().map("https://{}".format), st.text(alphabet="htp:/[]%@.0x1#?\\").map(str))
)
def test_a_url_of_any_kind_is_judged(url: str) -> None:
    fault = url_fault(url, allow_private=False)
    assert fault is None or isinstance(fault, str)
