"""What a node calls itself on the local network: something that only members of its network recognise.

Room: names and their recognition, as values. Who is told and who listens is the driver's. A name is drawn anew
every hour, so that nobody can follow a device by it; its tag is made from the network id, the hour and the name,
so that to all others two nodes of one network look like any two.

    key   SHA-256("civicnode beacon key 1\\0" + network id)
    tag   the first 16 bytes of HMAC-SHA-256(key, hour + name)

The hour is the number of whole hours since 1970 (UTC), 8 bytes, big-endian; the name is 8 random bytes. Whoever
hears a tag tries the hours around its own clock's: devices without a network clock may be a day apart.
"""

import hmac
from collections.abc import Iterator
from hashlib import sha256

from protocol.errors import LocalMisuse
from protocol.ids import NetworkId

HOUR_MS = 3_600_000
NAME_BYTES = 8
TAG_BYTES = 16
HOURS_APART_MAX = 25  # a day, and the hour that one of both may not have begun
_KEY_DOMAIN = b"civicnode beacon key 1\0"


class Beacon:
    """Tags of one network."""

    def __init__(self, network_id: NetworkId) -> None:
        self._key = sha256(_KEY_DOMAIN + network_id).digest()

    def tag(self, name: bytes, hour: int) -> bytes:
        """The tag that goes with a name in an hour."""
        if len(name) != NAME_BYTES or not 0 <= hour < 1 << 63:
            raise LocalMisuse("a name has 8 bytes, and an hour is counted from 1970")
        return hmac.digest(self._key, hour.to_bytes(8, "big") + name, "sha256")[:TAG_BYTES]

    def is_ours(self, name: bytes, tag: bytes, now_ms: int) -> bool:
        """Whether somebody who knows this network has made the tag, not much more than a day from now."""
        if len(name) != NAME_BYTES or len(tag) != TAG_BYTES:
            return False
        return any(hmac.compare_digest(tag, self.tag(name, hour)) for hour in _around(now_ms // HOUR_MS))


def _around(hour: int) -> Iterator[int]:
    """An hour and those around it, the nearest first."""
    yield hour
    for distance in range(1, HOURS_APART_MAX + 1):
        yield hour + distance
        if hour >= distance:
            yield hour - distance
