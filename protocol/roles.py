"""What a node may do in a network: a role, and the spaces it holds in.

Room: the order of roles and how two grants of rights combine. Who holds which
rights is `membership`'s; what each statement needs is `statement_log`'s.
"""

from dataclasses import dataclass
from enum import StrEnum

from protocol.ids import SpaceId


class Role(StrEnum):
    """What a node may do: `admin` everything, `member` write data, `reader` nothing but read."""

    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"

    @property
    def rank(self) -> int:
        """The number of the role on the wire, which grows with what it allows. Numbers are for ever."""
        return _RANKS[self]


_RANKS = {Role.READER: 1, Role.MEMBER: 2, Role.ADMIN: 3}
ROLE_OF_RANK = {rank: role for role, rank in _RANKS.items()}


@dataclass(frozen=True, slots=True)
class Rights:
    """A role in some spaces, or in all of them (`spaces` is None)."""

    role: Role
    spaces: frozenset[SpaceId] | None = None

    @property
    def may_govern(self) -> bool:
        """Whether they allow statements that bind the whole network: `admin`, limited to no space."""
        return self.role is Role.ADMIN and self.spaces is None

    @property
    def may_write(self) -> bool:
        """Whether they allow writing anywhere at all."""
        return self.role is not Role.READER and (self.spaces is None or len(self.spaces) > 0)

    def role_in(self, space: SpaceId) -> Role | None:
        return self.role if self.spaces is None or space in self.spaces else None

    def meet(self, other: "Rights") -> "Rights":
        """What both allow: in every space the lower role of the two."""
        role = min(self.role, other.role, key=lambda role: role.rank)
        if self.spaces is None or other.spaces is None:
            return Rights(role, other.spaces if self.spaces is None else self.spaces)
        return Rights(role, self.spaces & other.spaces)
