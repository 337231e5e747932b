"""Who belongs to a network, as a fold over the signed statements of its `system` space.

Room: the questions that the rest of the program asks. A `Members` is what one
knows who has seen a given set of statements: all that are here, or those in the
causal past of one commit. It never changes; `with_commits` and `at` give others.
MEMBERSHIP.md has the rules, `statements` the layouts, `standing` what counts.

A network begins with a genesis statement by its founder and is named by that
statement's hash. A lone node is a network of one: its founder is its only
member and an administrator.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protocol.cuts import Cut, Cuts, is_settled, is_within
from protocol.errors import LocalMisuse
from protocol.ids import NODE_ID_BYTES, Author, NodeId, SpaceId, node_of
from protocol.roles import Rights, Role
from protocol.standing import Standing, Standings, View, lower
from protocol.statement_log import Fault, Items, Link, SystemCommit, bits, read_system_commit
from protocol.statements import (
    Admit,
    Genesis,
    Invite,
    Statement,
    StatementKind,
    decode_genesis,
    found_network,
    is_proven_admission,
    statement_kind,
)

__all__ = [
    "Fault",
    "Genesis",
    "Judgement",
    "Link",
    "Members",
    "Rights",
    "Role",
    "Standing",
    "StatementKind",
    "SystemCommit",
    "decode_genesis",
    "found_network",
    "read_system_commit",
    "statement_kind",
]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a commit of a space other than `system`.

    `role` is what its bodies count as having been made with; None unless the commit stands.
    """

    standing: Standing
    role: Role | None

    @property
    def counts(self) -> bool:
        """Whether anything may follow from the commit: one of a reader stands, and says nothing."""
        return self.role is not None and self.role is not Role.READER

    @property
    def keeps_places(self) -> bool:
        """Whether others may rightly have seen what it inserted in collaborative fields, if it does not count.

        Not if it never counted; and of a fork nothing is kept, since its branches are not the same everywhere.
        """
        return self.standing is not Standing.INVALID and self.standing is not Standing.FORKED


class Members:
    """The members that a set of statements adds up to. Immutable.

    Those made from one another share what they know. Any thread may ask; `with_commits` is for one at a time.
    """

    def __init__(self, standings: Standings, seen: Items) -> None:
        """For `of_genesis`, `with_commits` and `at`; use those."""
        self._standings = standings
        self._log = standings.log
        self._seen = seen

    @classmethod
    def of_genesis(cls, genesis: Genesis) -> "Members":
        """What one knows who has seen the genesis alone."""
        return cls(Standings(genesis), 0)

    def with_commits(self, commits: Iterable[SystemCommit]) -> "Members":
        """What one knows who has seen these too, in whatever order. Known ones change nothing.

        Raises `LocalMisuse` if a cause of one is neither here nor among them.
        """
        seen = self._seen
        waiting = list(commits)
        while waiting:
            later: list[SystemCommit] = []
            for commit in waiting:
                if all(self.knows(parent) for parent in commit.parents):
                    seen |= self._standings.append(commit)
                else:
                    later.append(commit)
            if len(later) == len(waiting):
                raise LocalMisuse("commits of system whose causes are missing")
            waiting = later
        return Members(self._standings, seen)

    def with_placed(self, commits: Iterable[SystemCommit]) -> "Members":
        """What one knows who has seen those of these too whose causes are seen, or are among them."""
        members, waiting = self, list(commits)
        while waiting:
            ready = [commit for commit in waiting if all(map(members.has_seen, commit.parents))]
            if not ready:
                break
            members = members.with_commits(ready)
            waiting = [commit for commit in waiting if not members.has_seen(commit.link)]
        return members

    def at(self, heads: Iterable[Link]) -> "Members":
        """What one knows who has seen just these commits of `system`, and what they have seen.

        Raises `LocalMisuse` for a commit that is not here (`knows`).
        """
        return Members(self._standings, self._past(heads))

    # -- the log

    @property
    def genesis(self) -> Genesis:
        return self._log.genesis

    @property
    def heads(self) -> tuple[Link, ...]:
        """The commits that are seen and that no other seen commit has seen, in order. `at(heads)` is this."""
        passed = 0
        found: list[Link] = []
        for number in reversed(list(bits(self._seen))):
            item = self._log.items[number]
            if item.index < 0:  # a commit; its statements say nothing of what has seen what
                if not passed >> number & 1:
                    found.append(item.link)
                passed |= item.past
        return tuple(sorted(found))

    @property
    def links(self) -> tuple[Link, ...]:
        """Every commit that is seen, causes first."""
        items = (self._log.items[number] for number in bits(self._seen))
        return tuple(item.link for item in items if item.index < 0)

    def rooted_in(self, node: bytes) -> tuple[Link, ...]:
        """The commits that give a node its rights: what stands of its admissions, grants and recoveries.

        Of the founder, the genesis as well. With their past they are all that it takes to show these rights.
        None for a node that has no rights.
        """
        if self.rights_of(node) is None:
            return ()
        key, log = NodeId(node), self._log
        numbers = self._view.stands & log.sources.get(key, 0)
        if key == self.genesis.founder:
            numbers |= self._view.stands & log.from_network_key & ~log.recoveries
        return tuple(sorted({log.items[number].link for number in bits(numbers)}))

    def knows(self, link: Link) -> bool:
        """Whether a commit is here: seen, or taken in after this was made."""
        return link in self._log.commits

    def has_seen(self, link: Link) -> bool:
        placed = self._log.commits.get(link)
        return placed is not None and self._seen >> placed.numbers.start - 1 & 1 == 1

    def standings(self, link: Link) -> tuple[Standing, ...]:
        """Of each statement of a commit that is seen, in the order of its bodies."""
        return tuple(self._view.standing(number) for number in self._log.commits[link].numbers)

    def faults(self, link: Link) -> tuple[Fault | None, ...]:
        """Why each statement of a commit is invalid, whatever else is known; None for a valid one."""
        return tuple(self._log.items[number].fault for number in self._log.commits[link].numbers)

    # -- nodes

    @property
    def roles(self) -> dict[NodeId, Role]:
        """Every node that has a role, with it."""
        nodes = {self.genesis.founder, *list(self._log.sources)}
        found = {node: self.role_of(node) for node in sorted(nodes)}
        return {node: role for node, role in found.items() if role is not None}

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Every node that was ever let in, in order: members, suspended and revoked ones."""
        entries = list(self._log.entries.items())
        return tuple(sorted({self.genesis.founder, *(n for n, items in entries if items & self._seen)}))

    def rights_of(self, node: bytes) -> Rights | None:
        """The rights of a node; None for a stranger, for a revoked and for a suspended node."""
        return self._view.rights(node)

    def role_of(self, node: bytes, space: SpaceId | None = None) -> Role | None:
        """The role of a node in a space; without one, its role wherever it has one."""
        rights = self.rights_of(node)
        if rights is None or space is None:
            return rights.role if rights else None
        return rights.role_in(space)

    def role_at(self, node: bytes, heads: Iterable[Link], space: SpaceId | None = None) -> Role | None:
        """The role that a node had in the causal past with these heads in `system`. Never changes."""
        return self.at(heads).role_of(node, space)

    def is_revoked(self, node: bytes) -> bool:
        """Whether a node key is out for good."""
        return NodeId(node) in self._view.cuts

    def is_suspended(self, node: bytes) -> bool:
        """Whether a node used a ticket that another used as well, and no admin has decided."""
        return node in self._view.suspended

    def cuts_of(self, node: bytes) -> tuple[Cuts, ...]:
        """What standing revocations leave of a node's chains: a commit counts if it does by all of them."""
        return tuple(self._view.cuts.get(NodeId(node), ()))

    # -- commits of other spaces

    def judge(
        self,
        space: SpaceId,
        author: Author,
        seq: int,
        header_hash: bytes,
        heads: Iterable[Link],
        *,
        forked_at: int | None = None,
        leads_to: Callable[[Cut], bool] = lambda cut: False,
    ) -> Judgement:
        """Whether a commit of a space other than `system` counts, by all that is seen, and with which role.

        `heads` are those of `system` in its whole causal past; more of that past does no harm. `forked_at` is
        the first seq of this chain that its author is known to have signed twice; `leads_to` is then asked
        whether the header that a cut names is here, and is this one or continues it.
        """
        node, past = node_of(author), self._past(heads)
        own_view = self._standings.view(past)
        rights = own_view.rights(node)
        then = rights.role_in(space) if rights else None
        if then is None:
            return Judgement(Standing.INVALID, None)
        view = self._view
        cuts, incarnation = view.cuts.get(node, []), author[NODE_ID_BYTES:]
        if not is_within(cuts, space, incarnation, seq, header_hash):
            return Judgement(Standing.CUT, None)
        if forked_at is not None and seq >= forked_at and not is_settled(cuts, space, incarnation, leads_to):
            return Judgement(Standing.FORKED, None)
        if node in view.suspended:
            return Judgement(Standing.SUSPENDED, None)
        rights = self._log.rights(node, own_view.stands & view.stands)
        role = lower(then, rights.role_in(space) if rights else None)
        return Judgement(Standing.STANDS if role else Standing.UPROOTED, role)

    # -- what this node is about to say

    def fault(self, author: bytes, statement: Statement) -> Fault | None:
        """Why a statement would be invalid if a node said it now, having seen all this; None if it is not."""
        view, node = self._view, NodeId(author)
        if isinstance(statement, Admit) and not is_proven_admission(statement, self.genesis.network_id):
            return Fault.NO_INVITATION
        return self._log.fault(statement, node, self._seen, view.stands, view.rights(node))

    def admission_fault(self, author: bytes, admit: Admit, now_ms: int) -> Fault | None:
        """As `fault`, and whether the ticket has expired: that is asked by the node that admits, alone."""
        fault = self.fault(author, admit)
        if fault is None and all(invite.expires_ms <= now_ms for invite in self.invites_of(admit.ticket_key)):
            return Fault.EXPIRED
        return fault

    def invites_of(self, ticket_key: bytes) -> tuple[Invite, ...]:
        """The invitations that stand with this ticket key: one, unless an admin copied another's."""
        numbers = bits(self._log.usable_invites(ticket_key, self._view.stands))
        statements = (self._log.items[number].statement for number in numbers)
        return tuple(statement for statement in statements if isinstance(statement, Invite))

    def open_invites(self) -> tuple[Invite, ...]:
        """The invitations that stand and that nobody has used, expired ones too, in the order of saying."""
        found: list[tuple[Items, Invite]] = []
        for ticket_key, items in list(self._log.invites.items()):
            number = items & self._seen
            if number and not self._log.admits.get(ticket_key, 0) & self._seen:
                found += [(number, invite) for invite in self.invites_of(ticket_key)]
        return tuple(invite for _, invite in sorted(found, key=lambda pair: pair[0]))

    # -- inside

    @property
    def _view(self) -> View:
        return self._standings.view(self._seen)

    def _past(self, heads: Iterable[Link]) -> Items:
        past = 0
        for head in heads:
            if head not in self._log.commits:
                raise LocalMisuse("asked for a past whose commits are not here")
            past |= self._log.commits[head].reach
        return past
