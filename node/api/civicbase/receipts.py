"""`Prefer: wait=peers:k` on writes (CONTRACT, "Receipts"; RFC 7240): the answer waits for other nodes.

Room: one request header read, two reply headers made; the body stays what it is. Who holds what is known by
`services.receipts`. As the RFC has it, a preference that is not understood is ignored.

    Prefer: wait=peers:2; timeout=5      or   Prefer: wait="peers:2", wait-timeout=5
    Preference-Applied: wait="peers:2"        if so many hold it
    X-Held-By-Peers: 2                        how many do, at the deadline too
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from node.services.receipts import Receipts

TIMEOUT_S = 10.0
TIMEOUT_MAX_S = 60.0
HELD_BY = "X-Held-By-Peers"
APPLIED = "Preference-Applied"
_PREFERENCES_MAX = 64
_COUNT = re.compile(r"peers:([0-9]{1,4})")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_PART = re.compile(r'\s*([^\s=;,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?\s*([;,]?)')

PREFER_NOTE = (
    "`Prefer: wait=peers:k; timeout=s` lets the answer wait until k other nodes hold the write on their disks, "
    f"for s seconds at most ({TIMEOUT_S:.0f} without it, {TIMEOUT_MAX_S:.0f} at most). `{HELD_BY}` then says how "
    f"many do, and `{APPLIED}` is there if they are enough."
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many other nodes are to hold a write, and how long that is worth waiting for."""

    count: int
    timeout_s: float


def wanted(values: Sequence[str]) -> Wanted | None:
    """What the `Prefer` headers of a request say about that; None if nothing that is understood."""
    count: int | None = None
    timeout_s: float | None = None
    for preference in _preferences(values):
        name, value = preference[0]
        if name == "wait" and count is None and (found := _COUNT.fullmatch(value)):
            count = int(found[1])
            parameters = [_seconds(given) for parameter, given in preference[1:] if parameter == "timeout"]
            timeout_s = next((s for s in parameters if s is not None), timeout_s)
        elif name == "wait-timeout" and timeout_s is None:
            timeout_s = _seconds(value)
    if count is None:
        return None
    return Wanted(count, min(TIMEOUT_S if timeout_s is None else timeout_s, TIMEOUT_MAX_S))


def _seconds(value: str) -> float | None:
    return float(value) if _SECONDS.fullmatch(value) else None


def _preferences(values: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Each preference with its parameters, as pairs of name and value; what is not of that form ends the list."""
    found: list[list[tuple[str, str]]] = []
    for text in values:
        current: list[tuple[str, str]] = []
        at = 0
        while at < len(text) and len(found) < _PREFERENCES_MAX:
            part = _PART.match(text, at)
            if part is None:
                break
            value = part[2] or ""
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            current.append((part[1].lower(), value))
            at = part.end()
            if part[3] != ";":
                found.append(current)
                current = []
            if not part[3]:
                break
        if current:
            found.append(current)
    return found


@dataclass(frozen=True, slots=True)
class PeerReceipts:
    """Waits for other nodes where a request prefers that."""

    receipts: Receipts

    async def headers(self, request: web.Request, application: str) -> dict[str, str]:
        """To be called once the write is durable: the headers to answer with, none as a rule."""
        if "Prefer" not in request.headers:
            return {}
        want = wanted(request.headers.getall("Prefer"))
        if want is None:
            return {}
        held_by = await self.receipts.wait(application, want.count, want.timeout_s)
        told = {HELD_BY: str(held_by)}
        return told | {APPLIED: f'wait="peers:{want.count}"'} if held_by >= want.count else told
