"""Who may talk to the node's API: the rules for `Host`, `Origin` and `Sec-Fetch-Site`.

Room: pure decisions over header values; `middleware` reads the headers and answers. A loopback address is no
fence: any page in the user's browser can send requests to it, and by DNS rebinding it can even do so under a
name of its own (CVE-2025-66416 is one of many). So a request must name a host that the node serves, and one
that a foreign page caused must carry a valid token. Sources: RFC 9110 section 7.2 (Host, 421), the Fetch
standard (Origin), Fetch Metadata (Sec-Fetch-Site).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from node.origins import DEFAULT_PORTS, Address, bracketed, parse_origin

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class Source(Enum):
    """What caused a request."""

    PROGRAM = "program"  # no browser, or the user's own typing, or a page of the node itself
    OWN = "own"  # a page the node served
    ALLOWED = "allowed"  # a page of an origin the user allowed
    FOREIGN = "foreign"  # any other page


@dataclass(frozen=True, slots=True)
class Served:
    """What the node answers to. `hosts` are whole `Host` values; a wildcard bind sets `wildcard_port`."""

    scheme: str
    hosts: frozenset[str]
    own: frozenset[str]
    allowed: frozenset[str]
    is_loopback: bool
    wildcard_port: int | None = None


def served_at(
    bound: Address, *, tls: bool = False, names: Iterable[str] = (), allowed: Iterable[str] = ()
) -> Served:
    """What a node bound to `bound`, its real port, answers to; `names` are more hosts of its own."""
    scheme = "https" if tls else "http"
    hosts = set(LOOPBACK_HOSTS) if bound.is_loopback or bound.is_wildcard else set()
    if not bound.is_wildcard:
        hosts.add(bracketed(bound.host))
    hosts.update(bracketed(name) for name in names)
    values = {f"{host}:{bound.port}" for host in hosts}
    if DEFAULT_PORTS[scheme] == bound.port:
        values |= hosts
    return Served(
        scheme=scheme,
        hosts=frozenset(values),
        own=frozenset(parse_origin(f"{scheme}://{value}") for value in values),
        allowed=frozenset(allowed),
        is_loopback=bound.is_loopback,
        wildcard_port=bound.port if bound.is_wildcard else None,
    )


def is_served(hosts: Sequence[str], served: Served, local_ip: str | None = None) -> bool:
    """Whether the request's `Host` headers name this node: exactly one, and a form that browsers send.

    `local_ip` is the address of ours that the connection reached; it counts on a wildcard bind alone, where
    it cannot be known in advance. An address literal is safe there: rebinding needs a name.
    """
    if len(hosts) != 1:
        return False
    host = hosts[0]
    if host in served.hosts:
        return True
    if served.wildcard_port is not None and local_ip is not None:
        literal = bracketed(local_ip.removeprefix("::ffff:"))
        if host == f"{literal}:{served.wildcard_port}":
            return True
        if host == literal and DEFAULT_PORTS[served.scheme] == served.wildcard_port:
            return True
    return host.isascii() and host != (lower := host.lower()) and is_served([lower], served, local_ip)


def source_of(origins: Sequence[str], site: str | None, host: str, served: Served) -> Source:
    """What caused the request, given its `Origin` headers, its `Sec-Fetch-Site` and its accepted `Host`.

    `Origin`, which no page can forge, decides where there is one; `null` and several at once are foreign.
    """
    if not origins:
        return Source.PROGRAM if site is None or site in ("same-origin", "none") else Source.FOREIGN
    if len(origins) > 1:
        return Source.FOREIGN
    origin = origins[0]
    if origin in served.own or origin == f"{served.scheme}://{host.lower()}":
        return Source.OWN
    return Source.ALLOWED if origin in served.allowed else Source.FOREIGN


def presentable(origin: str) -> str | None:
    """An origin that may be repeated to the user in a message, or None for `null`, noise and oddities."""
    try:
        return parse_origin(origin) if len(origin) <= 255 else None
    except ValueError:
        return None
