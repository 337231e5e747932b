"""What the two directions of a sync session share: who talks, what has been named, what goes out.

Room: state and small words for `session`, `outgoing` and `incoming`; decides
nothing. Tables that a peer can fill have their limit here.
"""

from protocol.errors import TooLarge
from protocol.exchange import ChainKey, Effect, News, Shares
from protocol.frames import to_frames
from protocol.ids import Author, NetworkId, SpaceId, space_id
from protocol.messages import SPACES_MAX, Message, encode_message

REMEMBERED_MAX = 4_096  # chains; forgetting one costs an offer in vain


class Conversation:
    """One link, as both directions see it."""

    def __init__(
        self, *, network_id: NetworkId, author: Author, peer: Author, shares: Shares, now_ms: int
    ) -> None:
        """`author` is who we write as, `peer` who the other side has proved to be."""
        self.author = author
        self.peer = peer
        self.shares = shares
        self.now_ms = now_ms
        self.spoke_ms = now_ms
        self.names: set[str] = set()  # of spaces that both sides have heard of
        self.our_position = 0  # the newest arrival that we know of
        self.owes_root = False  # something has changed since we last told ours
        self.peer_has: dict[ChainKey, int] = {}  # it holds this, or was told that we do
        self.events: list[Effect | News] = []
        self.outbox = bytearray()
        self._network_id = network_id
        self._space_ids: dict[str, SpaceId] = {}

    def send(self, message: Message) -> None:
        self.outbox += to_frames(encode_message(message))
        self.spoke_ms = self.now_ms

    def emit(self, *events: Effect | News) -> None:
        self.events += events

    def arrived(self, position: int) -> None:
        self.our_position = max(self.our_position, position)

    def key(self, space: str, author: Author) -> ChainKey:
        known = self._space_ids.get(space)
        if known is None:
            if len(self._space_ids) >= 2 * SPACES_MAX:
                self._space_ids.clear()
            known = self._space_ids[space] = space_id(self._network_id, space)
        return known, author

    def learn(self, names: list[str]) -> None:
        """The peer has named these spaces."""
        self.names.update(names)
        if len(self.names) > 2 * SPACES_MAX:
            raise TooLarge("spaces on one link", size=len(self.names), size_max=2 * SPACES_MAX)

    def remember(self, key: ChainKey, seq: int) -> None:
        """The peer has this much of a chain, or was told that we have."""
        put_bounded(self.peer_has, key, max(seq, self.peer_has.pop(key, 0)))


def put_bounded(table: dict[ChainKey, int], key: ChainKey, seq: int) -> None:
    """Put the newest last; the oldest goes when there are too many."""
    table[key] = seq
    if len(table) > REMEMBERED_MAX:
        del table[next(iter(table))]
