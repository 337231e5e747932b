"""Who shares whose interests.

Room: an in-memory index from interest to users, one per application, built from the accounts on
first use and kept true by the feed. It holds nothing that the accounts do not; dropping it loses
nothing. Alike is the share of interests two users have in common among all that either has
(Jaccard), compared without regard to case.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from node.services.account_models import ACCOUNT
from node.services.accounts import Account, Accounts
from node.services.turns import Turns
from protocol.ids import builtin_model_id

TOP_N_DEFAULT = 5
TOP_N_MAX = 100
APPLICATIONS_MAX = 16  # indexes kept; the longest unused goes


@dataclass(frozen=True, slots=True)
class Recommendation:
    user: str
    username: str
    score: float  # 0 to 1
    shared_interests: tuple[str, ...]


class _Index:
    """The interests of one application's users."""

    def __init__(self) -> None:
        self.interests: dict[str, dict[str, str]] = {}  # user -> folded -> as written
        self.users: dict[str, set[str]] = {}  # folded interest -> users

    def put(self, user: str, account: Account | None) -> None:
        for word in self.interests.pop(user, ()):
            users = self.users[word]
            users.discard(user)
            if not users:
                del self.users[word]
        if account is None or account.is_disabled or not account.interests:
            return
        words = {interest.casefold(): interest for interest in account.interests}
        self.interests[user] = words
        for word in words:
            self.users.setdefault(word, set()).add(user)

    def nearest(self, user: str, top_n: int) -> list[tuple[str, float, tuple[str, ...]]]:
        mine = self.interests.get(user, {})
        shared = Counter(other for word in mine for other in self.users[word] if other != user)
        scored = [
            (count / (len(mine) + len(self.interests[other]) - count), other)
            for other, count in shared.items()
        ]
        scored.sort(key=lambda entry: (-entry[0], entry[1]))
        return [
            (other, score, tuple(sorted(mine[word] for word in mine.keys() & self.interests[other].keys())))
            for score, other in scored[:top_n]
        ]


class Recommendations:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._indexes: dict[str, _Index] = {}
        self._turns = Turns()
        self._fed: dict[str, tuple[str, _Index]] = {}  # account model's id -> application and index

    async def for_user(self, account: Account, top_n: int) -> Sequence[Recommendation]:
        """The `top_n` users most alike, best first; users with nothing in common are left out."""
        index = await self._index(account.application)
        found = []
        for user, score, shared in index.nearest(account.id, top_n):
            other = self._accounts.get(account.application, user)
            if other is not None:
                found.append(Recommendation(user, other.username, round(score, 4), shared))
        return found

    def on_change(self, model: str, id: str) -> None:
        """An account changed, here or elsewhere. `model` is the model's id."""
        fed = self._fed.get(model)
        if fed is not None:
            application, index = fed
            index.put(id, self._accounts.get(application, id))

    async def _index(self, application: str) -> _Index:
        index = self._indexes.pop(application, None)
        if index is None:
            async with self._turns.take(application):
                index = self._indexes.pop(application, None) or await self._build(application)
        self._indexes[application] = index  # the latest used comes last
        while len(self._indexes) > APPLICATIONS_MAX:
            longest_unused = next(iter(self._indexes))
            del self._indexes[longest_unused]
            del self._fed[builtin_model_id(longest_unused, ACCOUNT)]
        return index

    async def _build(self, application: str) -> _Index:
        index = _Index()
        # Fed from here on. Each account is read again when it is put in, so that a change while the
        # pages are read is never undone by an older page.
        self._fed[builtin_model_id(application, ACCOUNT)] = (application, index)
        async for account in self._accounts.each(application):
            index.put(account.id, self._accounts.get(application, account.id))
        return index
