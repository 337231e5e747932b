"""Where webhooks may go: addresses on the public internet, over ports that web servers use.

Room: judgement alone, of URLs when they are given and of addresses when they are connected to. A webhook makes
this machine send requests to where somebody else says, so what only this machine can reach must stay out of reach
(CWE-918): also by a name that resolves to it, and by an address that wraps another one.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from node.origins import IPV6_PATTERN

URL_MAX_CHARS = 2_048
_SCHEME_PORTS = {"http": 80, "https": 443}
_LOW_PORTS = frozenset({80, 443})  # others below 1024 are no web servers
# Ports that browsers refuse to send requests to (Fetch, "bad port"), of those from 1024 on.
_BAD_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697}
    | {10080}
)  # fmt: skip
_WELL_KNOWN = "|".join(map(str, sorted(_BAD_PORTS)))
_SPECIAL_IPV4 = (  # RFC 6890
    r"(?:0|10|127|2[2-5][0-9])\.|100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\.|169\.254\."
    r"|172\.(?:1[6-9]|2[0-9]|3[01])\.|192\.(?:0\.[02]|88\.99|168)\.|198\.(?:1[89]|51\.100)\.|203\.0\.113\."
)
_OCTET = "(?:[1-9]?[0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
# What `url_fault` takes where private addresses are not allowed, in the forms that targets have: names whose last
# label begins with a letter, and public addresses (of IPv6, what registries give out), at ports of web servers.
URL_PATTERN = (
    r"^[Hh][Tt][Tt][Pp][Ss]?://"
    rf"(?:(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.?"
    rf"|(?!{_SPECIAL_IPV4}){_OCTET}(?:\.{_OCTET}){{3}}"
    rf"|\[(?=2[4-9A-Fa-f][0-9A-Fa-f]{{2}}:|2001:[2-9A-Ca-c][0-9A-Fa-f]{{2}})(?:{IPV6_PATTERN})\])"
    rf"(?::(?!(?:{_WELL_KNOWN})(?:[/?]|$))(?:80|443|102[4-9]|10[3-9][0-9]|1[1-9][0-9]{{2}}|[2-9][0-9]{{3}}"
    r"|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    r'(?:[/?][!"$-\[\]-~]*)?$'
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291, section 2.5.5.1
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214, before the IPv4 address
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
Address = IPv4Address | IPv6Address


class TargetRefused(OSError):
    """An address that webhooks do not go to."""


def url_fault(url: object, *, allow_private: bool) -> str | None:
    """What is wrong with a URL as a target, as far as it says so itself; None if nothing is."""
    if not isinstance(url, str):
        return "Must be a text"
    if not 1 <= len(url) <= URL_MAX_CHARS:
        return f"Must have 1 to {URL_MAX_CHARS} characters"
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        return "Must be a URL in ASCII, with everything else percent-encoded"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "Must be an http or https URL"
    if parts.scheme not in _SCHEME_PORTS or not host:
        return "Must be an http or https URL"
    if "@" in parts.netloc:
        return "Must not hold a user name or password"
    if parts.fragment:
        return "Must not have a fragment"
    port = _SCHEME_PORTS[parts.scheme] if port is None else port
    if (port < 1024 and port not in _LOW_PORTS) or port in _BAD_PORTS:
        return f"Port {port} is none that webhooks are sent to"
    return _host_fault(host, allow_private=allow_private)


def _host_fault(host: str, *, allow_private: bool) -> str | None:
    address = _literal(host)
    if address is None:
        if ":" in host or not _HOST.fullmatch(host) or _is_number(host):
            return "Must name a host, or an address in its usual form"
        name = host.rstrip(".")
        if (name == "localhost" or name.endswith(".localhost")) and not allow_private:
            return _PRIVATE
        return None
    if is_never_sent_to(address) or not (allow_private or is_public(address)):
        return _PRIVATE
    return None


_PRIVATE = (
    "Webhooks go to public addresses only, unless this node is set up otherwise (webhooks_allow_private)"
)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_number(host: str) -> bool:
    """Whether the last label is a number: other spellings of IPv4 addresses (WHATWG URL, "ends in a number")."""
    last = host.rstrip(".").rpartition(".")[2]
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def is_public(address: Address) -> bool:
    """Whether it is an address of the public internet, and not one that leads to another one that is not."""
    if address in _NAT64:  # how networks without IPv4 reach the rest
        return is_public(_low(address))
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return True
    return not address.is_site_local and all(map(is_public, _wrapped(address)))


def _wrapped(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a packet to it may end up at."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _COMPATIBLE or address in _NAT64 or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        found.append(_low(address))
    return [each for each in found if each is not None]


def _low(address: Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def is_never_sent_to(address: Address) -> bool:
    """Addresses that are no single host's, and those where clouds keep credentials: never, whatever is allowed."""
    if isinstance(address, IPv6Address):
        if address.is_multicast or address.is_unspecified or address == _METADATA_6:
            return True
        return any(map(is_never_sent_to, _wrapped(address)))
    return (
        address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or int(address) == 0xFFFF_FFFF
        or address in _METADATA_4
    )


_METADATA_4 = frozenset({IPv4Address("169.254.169.254"), IPv4Address("100.100.100.200")})
_METADATA_6 = IPv6Address("fd00:ec2::254")


def raise_unless_allowed(
    host: str, port: int, *, allow_private: bool, is_own: Callable[[str, int], bool]
) -> None:
    """Judge an address that is about to be connected to. Raises `TargetRefused`.

    `is_own` says whether this node itself listens there: never, since that would be talking to oneself.
    """
    address = _literal(host)
    if address is None or is_never_sent_to(address) or not (allow_private or is_public(address)):
        raise TargetRefused("the target's address is not one that webhooks go to")
    if is_own(host, port):
        raise TargetRefused("the target is this node itself")
