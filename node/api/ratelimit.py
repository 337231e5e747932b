"""How many requests a caller may send: fixed windows, counted in memory, one table a policy.

Room: counting alone. Who the caller is and what it may do is `middleware`'s; the numbers come from the
settings. Counts belong to this node and do not outlive it. Windows are aligned to the epoch, so that
`X-RateLimit-Reset` is the same for everybody and one comparison empties the table.
"""

from dataclasses import dataclass

# One entry is about 150 bytes. Newcomers beyond that share one count: a flood of new keys can slow down
# other newcomers for the rest of the window, never make the node grow.
KEYS_MAX = 50_000
_OVERFLOW = "*"


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """Requests a window for a signed-in caller, and for any other."""

    window_s: int
    signed_in: int
    anonymous: int


class RateLimiter:
    """The counts of one policy."""

    __slots__ = ("_counts", "_head_anonymous", "_head_signed_in", "_policy", "_window", "reset_s")

    def __init__(self, policy: RatePolicy) -> None:
        self._policy = policy
        self._window = -1
        self._counts: dict[str, int] = {}
        self._head_signed_in = b""
        self._head_anonymous = b""
        self.reset_s = 0  # when the present window ends, epoch seconds

    @property
    def policy(self) -> RatePolicy:
        """The numbers in force."""
        return self._policy

    def take(self, key: str, signed_in: bool, now_s: int) -> tuple[bytes, bool]:
        """Count one request: the `X-RateLimit-*` header lines for its reply, and whether it may pass."""
        policy = self._policy
        if now_s // policy.window_s != self._window:
            self._begin(now_s)
        counts = self._counts
        count = counts.get(key)
        if count is None:
            if len(counts) >= KEYS_MAX:
                key = _OVERFLOW
            count = counts.get(key, 0)
        limit, head = (
            (policy.signed_in, self._head_signed_in)
            if signed_in
            else (policy.anonymous, self._head_anonymous)
        )
        if count >= limit:
            return head % 0, False
        counts[key] = count + 1
        return head % (limit - count - 1), True

    def _begin(self, now_s: int) -> None:
        policy = self._policy
        self._window = now_s // policy.window_s
        self._counts = {}
        self.reset_s = (self._window + 1) * policy.window_s
        line = b"X-RateLimit-Limit: %d\r\nX-RateLimit-Reset: %d\r\nX-RateLimit-Remaining: %%d\r\n"
        self._head_signed_in = line % (policy.signed_in, self.reset_s)
        self._head_anonymous = line % (policy.anonymous, self.reset_s)
