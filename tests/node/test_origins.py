import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.origins import HOST_PATTERN, PORT_PATTERN, Address, parse_address, parse_host, parse_origin


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[0:0::1]:8080", Address("::1", 8080)),
        ("[1:2:3:4:5:6:7::]:65535", Address("1:2:3:4:5:6:7:0", 65535)),
        ("[1::3:4:5:6:7:8]:1", Address("1:0:3:4:5:6:7:8", 1)),
        ("0.0.0.0:4490", Address("0.0.0.0", 4490)),
        (" Box.Example:1 ", Address("box.example", 1)),
        ("müller.example:1", Address("xn--mller-kva.example", 1)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address
    is_plain = text.isascii() and text == text.strip() and address.port != 0
    assert is_plain == (re.fullmatch(f"{HOST_PATTERN}:{PORT_PATTERN}", text) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8080",
        ":8080",
        "host",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:1 2",
        "h:٣",
        "a b:1",
        "[::1]",
        "[1::2::3]:80",
        "[1:2:3:4:5:6:7]:80",
        "[1:2:3:4:5:6:7:8:9]:80",
        "[::1:80",
        "[host]:80",
        "[::zz]:80",
        "-x:1",
        "a..b:1",
        f"{'a' * 64}:1",
    ],
)
def test_what_is_no_address_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)
    assert not re.fullmatch(f"{HOST_PATTERN}:{PORT_PATTERN}", text)


@pytest.mark.parametrize(
    ("host", "is_loopback", "is_wildcard"),
    [
        ("127.0.0.1", True, False),
        ("127.8.8.8", True, False),
        ("::1", True, False),
        ("localhost", True, False),
        ("localhost.evil.example", False, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("192.168.1.5", False, False),
        ("box", False, False),
    ],
)
def test_who_can_reach_an_address(host: str, is_loopback: bool, is_wildcard: bool) -> None:
    address = Address(host, 1)
    assert (address.is_loopback, address.is_wildcard) == (is_loopback, is_wildcard)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:3000", "http://localhost:3000"),
        ("HTTP://LocalHost:3000/", "http://localhost:3000"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text: str, origin: str) -> None:
    assert parse_origin(text) == origin
    assert parse_origin(origin) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "localhost:3000",
        "http://",
        "http:///x",
        "http://a/path",
        "http://a?q",
        "http://a#f",
        "http://user@a",
        "http://a b",
        "http://a:0",
        "http://a:99999",
        "http://a:x",
        "http://*.a",
        "1x://a",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_origin(text)


def test_a_host_stands_without_a_port() -> None:
    assert parse_host(" [::1] ") == "::1"
    with pytest.raises(ValueError, match="box:80"):
        parse_host("box:80")


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    for parse in (parse_address, parse_origin, parse_host):
        try:
            parsed = parse(text)
        except ValueError:
            continue
        assert parse(str(parsed)) == parsed
