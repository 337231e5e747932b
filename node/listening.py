"""Taking an address: bound sockets, and a reason in words where that fails.

Room: sockets before anybody speaks on them, for the API and for peers alike.
"""

import errno
import socket

from node.origins import Address
from node.ports import holder_of

BACKLOG = 512


class CannotListen(Exception):
    """An address cannot be taken. The message is one line that says why and what to do."""


class PortTaken(CannotListen):
    """Something else listens there. `holder` describes the process, where the system tells."""

    def __init__(self, address: Address, flag: str, holder: str | None) -> None:
        by = f" by {holder}" if holder else " by another program"
        super().__init__(f"{address} is taken{by}: stop it, or choose another address with {flag} HOST:PORT")
        self.address = address
        self.holder = holder


def bind(address: Address, flag: str) -> list[socket.socket]:
    """Listening sockets for every address the host name stands for, all with one port. Blocks for a look-up.

    Raises `CannotListen`, which names `flag` as the way out.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise CannotListen(f"{address}: no such host ({error.strerror})") from error
    sockets: list[socket.socket] = []
    port = address.port
    for family, kind, protocol, _, place in dict.fromkeys(found):  # a hosts file may name one address twice
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((place[0], port, *place[2:]))
            sock.listen(BACKLOG)  # now, since two programs may bind one port and only listening tells
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # localhost without IPv6: what is bound already suffices
            for bound in sockets:
                bound.close()
            raise _reason(address, flag, error) from error
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def is_of_this_machine(host: str) -> bool:
    """Whether an IP address is one of this machine's own. Does not block."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _reason(address: Address, flag: str, error: OSError) -> CannotListen:
    match error.errno:
        case errno.EADDRINUSE:
            return PortTaken(address, flag, holder_of(address.port))
        case errno.EACCES:
            return CannotListen(
                f"{address}: the system reserves ports below 1024: choose another with {flag}"
            )
        case errno.EADDRNOTAVAIL:
            return CannotListen(f"{address} is no address of this machine: choose another with {flag}")
    return CannotListen(f"{address}: {error.strerror}")
