"""Addresses and web origins as values: how they are written, read and compared.

Room: pure text. Which of them may talk to the node is decided in `node.api.loopback`; where they come from is
said in `node.settings`. Nothing here resolves a name or opens a socket.
"""

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# RFC 3986 names a scheme so; RFC 1123 a host name, to which browsers add the underscore.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# The same for JSON Schema, in which the length of the whole is not said: a name, or an IPv6 address in brackets.
_QUAD = "[0-9A-Fa-f]{1,4}"
IPV6_PATTERN = "|".join(
    [
        f"(?:{_QUAD}:){{7}}{_QUAD}",
        *(f"(?:{_QUAD}:){{1,{8 - after}}}(?::{_QUAD}){{1,{after - 1}}}" for after in range(2, 8)),
        f"(?:{_QUAD}:){{1,7}}:",
        f":(?:(?::{_QUAD}){{1,7}}|:)",
    ]
)
HOST_PATTERN = rf"(?:(?!-)[A-Za-z0-9_-]{{1,63}}(?:\.[A-Za-z0-9_-]{{1,63}})*|\[(?:{IPV6_PATTERN})\])"
PORT_PATTERN = (
    "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 0 is none
)
_HOST_MAX_CHARS = 253  # RFC 1035, section 2.3.4, without the trailing dot


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens. `host` is a name or an IP address without brackets; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost counts as reachable."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every address of the machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def bracketed(host: str) -> str:
    """A host as it stands before `:port`."""
    return f"[{host}]" if ":" in host else host


def parse_address(text: str) -> Address:
    """Read `HOST:PORT` or `[IPV6]:PORT`. Raises `ValueError` with a message for the user."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return Address(_host(host, text), int(port))


def parse_origin(text: str) -> str:
    """A web origin as browsers write it: lower case, without the scheme's own port.

    Any scheme goes, for apps that run in a shell of their own (`tauri://localhost`). Raises `ValueError` with
    a message for the user; a path is refused rather than dropped, since an origin does not have one.
    """
    scheme, marks, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not marks or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"{text!r} is not an origin such as https://app.example.org")
    rest = rest.removesuffix("/")
    if re.search(r"[/?#@\\\s]", rest):
        raise ValueError(f"{text!r}: an origin is scheme://host[:port] and nothing more")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        return f"{scheme}://{bracketed(_host(rest, text))}"
    if not (port.isascii() and port.isdigit() and 0 < len(port) <= 5 and 0 < int(port) <= 65_535):
        raise ValueError(f"{text!r}: the port must be a number from 1 to 65535")
    host = bracketed(_host(host, text))
    return (
        f"{scheme}://{host}" if DEFAULT_PORTS.get(scheme) == int(port) else f"{scheme}://{host}:{int(port)}"
    )


def parse_host(text: str) -> str:
    """A host name or IP address, lower case, without brackets. Raises `ValueError` with a message."""
    return _host(text.strip(), text)


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r}: only an IPv6 address stands in brackets")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv6 address") from None
    host = host.lower()
    if not host.isascii():
        host = _punycode(host, text)
    if len(host) > _HOST_MAX_CHARS or not _NAME.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is not a host name")
    return host


def _punycode(host: str, text: str) -> str:
    """An international name as browsers send it."""
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise ValueError(f"{text!r}: {host!r} is not a host name") from None
