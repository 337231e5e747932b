"""What a node tells about its peers, for `GET /v1/sync/status` and `civicnode status`.

Room: the shape of that answer. Everything in it is this node's own view; nothing is asked of peers for it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from node.net.contacts import Source
from node.net.link import State
from node.net.peers import Peers
from node.net.talk import SyncTalk
from protocol.handshake import Side
from protocol.ids import NodeId, node_of

CLOCK_APART_MAX_MS = 60_000  # DESIGN, "The commit log": above it, `status` warns
_DIRECTIONS = {Side.CALLER: "out", Side.ANSWERER: "in"}
_SOURCES = {Source.CONFIGURED: "configured", Source.NEARBY: "nearby", Source.LEARNED: "learned"}


def report(
    peers: Peers,
    name_of: Callable[[NodeId], str | None],
    steady_ms: Callable[[], int],
    clock_ms: Callable[[], int],
) -> list[dict[str, Any]]:
    """One object for each link, then one for each known address that no link leads to."""
    age_ms = clock_ms() - steady_ms()
    found: list[dict[str, Any]] = []
    for link, talk in peers.talks.items():
        node = node_of(talk.peer.author)
        found.append(
            {
                "node_id": node.hex(),
                "name": name_of(node),
                "author": talk.peer.author.hex(),
                "address": str(link.address),
                "direction": _DIRECTIONS[link.side],
                "source": None,
                "state": _state_of(talk),
                "in_sync": talk.is_in_sync,
                "since": _time(link.since_ms + age_ms),
                "in_sync_at": _time(talk.in_sync_ms + age_ms) if talk.in_sync_ms is not None else None,
                "lag_arrivals": talk.lag_arrivals,
                "lag_ms": talk.lag_ms,
                "bytes_in": link.bytes_in,
                "bytes_out": link.bytes_out,
                "handshake_bytes": link.handshake_bytes,
                "clock_ahead_ms": peers.clock_ahead_ms.get(link, 0),
                "last_fault": None,
            }
        )
    for contact in peers.contacts:
        if contact.is_own or (contact.author is not None and peers.is_linked(contact.author)):
            continue
        is_dialing = contact.due_ms is None
        known = node_of(contact.author) if contact.author is not None else None
        found.append(
            {
                "node_id": known.hex() if known is not None else None,
                "name": name_of(known) if known is not None else None,
                "author": contact.author.hex() if contact.author is not None else None,
                "address": str(contact.address),
                "direction": "out",
                "source": _SOURCES[contact.source],
                "state": "connecting" if is_dialing else "unreachable" if contact.failures else "waiting",
                "in_sync": False,
                "since": None,
                "in_sync_at": None,
                "lag_arrivals": None,
                "lag_ms": None,
                "bytes_in": 0,
                "bytes_out": 0,
                "handshake_bytes": 0,
                "clock_ahead_ms": None,
                "last_fault": contact.fault,
            }
        )
    return found


def _state_of(talk: SyncTalk) -> str:
    if talk.link.state is not State.OPEN or talk.session.is_closed:
        return "closing"
    if talk.session.has_diverged:
        return "diverged"
    return "live" if talk.session.is_live else "syncing"


def warnings(peers: Peers) -> list[dict[str, str]]:
    """What a person should know: clocks that are apart, and what went wrong lately, newest first."""
    found = [
        {
            "kind": "clock",
            "text": f"the clock of {talk.peer.node.hex()[:8]} is {abs(ahead_ms) // 1_000} s "
            f"{'ahead of' if ahead_ms > 0 else 'behind'} this device's: set the clock of one of them",
        }
        for link, talk in peers.talks.items()
        if abs(ahead_ms := peers.clock_ahead_ms.get(link, 0)) > CLOCK_APART_MAX_MS
    ]
    notes = [
        {"kind": note.kind, "text": note.text, "at": _time(note.at_ms)} for note in reversed(peers.notes)
    ]
    return found + notes


def _time(ms: int) -> str:
    stamp = datetime.fromtimestamp(ms / 1_000, UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
