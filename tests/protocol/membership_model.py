"""The rules of membership once more, as slowly and plainly as they can be said: a second opinion.

Room: MEMBERSHIP.md written down with sets and recursion, one clause at a time. It
shares nothing with the fold but the decoded statements and the names of verdicts.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from protocol.cuts import Cut
from protocol.membership import Fault, Link, Rights, Role, Standing, SystemCommit
from protocol.statements import Admit, Genesis, Grant, Invite, Recover, Revoke, Statement, Unknown

RANK = {Role.READER: 1, Role.MEMBER: 2, Role.ADMIN: 3}


class Id(NamedTuple):
    """A statement of a commit; number -1 is the commit itself."""

    link: Link
    number: int


Ids = frozenset[Id]


class Outcome(NamedTuple):
    standing: dict[Id, Standing]
    suspended: frozenset[bytes]
    revocations: tuple[tuple[bytes, Revoke], ...]

    @property
    def counted(self) -> Ids:
        return frozenset(id for id, standing in self.standing.items() if standing is Standing.STANDS)


class Model:
    def __init__(self, genesis: Genesis, system: bytes, commits: Iterable[SystemCommit]) -> None:
        self.genesis = genesis
        self.system = system
        self.commits = {commit.link: commit for commit in commits}
        self.reach = cache(self._reach)
        self.past = cache(self._past)
        self.put_out_by = cache(self._put_out_by)
        self.fault = cache(self._fault)
        self.outcome = cache(self._outcome)

    # -- what has seen what

    def _reach(self, link: Link) -> Ids:
        """A commit, all it says, and all it has seen."""
        commit = self.commits[link]
        ids = {Id(link, index) for index in range(-1, len(commit.statements))}
        return frozenset(ids).union(*(self.reach(parent) for parent in commit.parents))

    def _past(self, id: Id) -> Ids:
        """All that a statement has seen: of its own commit, what stands before it."""
        commit = self.commits[id.link]
        before = {Id(id.link, index) for index in range(-1, id.number)}
        return frozenset(before).union(*(self.reach(parent) for parent in commit.parents))

    def everything(self) -> Ids:
        return frozenset().union(*(self.reach(link) for link in self.commits))

    def said(self, id: Id) -> Statement | None:
        return self.commits[id.link].statements[id.number] if id.number >= 0 else None

    def author(self, id: Id) -> bytes:
        return id.link.author[:32]

    # -- who has which rights

    def rights(self, node: bytes, ids: Ids) -> Rights | None:
        """What these statements, taken to count, give a node."""
        if any(node in self.put_out_by(id) for id in ids):
            return None
        sources = [id for id in ids if self.about(id) == node]
        if not sources:
            return Rights(Role.ADMIN) if node == self.genesis.founder else None
        latest = [a for a in sources if not any(a in self.past(b) for b in sources)]
        if any(isinstance(self.said(id), Recover) for id in latest):
            return Rights(Role.ADMIN)
        return self.least(self.given(id, ids) for id in latest)

    def _put_out_by(self, id: Id) -> set[bytes]:
        match self.said(id):
            case Revoke(node):
                return {node}
            case Recover(revoked):
                return {each.node for each in revoked}
        return set()

    def about(self, id: Id) -> bytes | None:
        """The node that a statement gives rights to."""
        match self.said(id):
            case Admit(_, joiner):
                return joiner
            case Grant(node):
                return node
            case Recover():
                return self.author(id)
        return None

    def given(self, id: Id, ids: Ids) -> Rights | None:
        statement = self.said(id)
        if isinstance(statement, Grant):
            return statement.rights
        return self.least(invite.rights for _, invite in self.invitations(id, ids))

    def invitations(self, id: Id, ids: Ids) -> list[tuple[Id, Invite]]:
        """Those that an admission could rest on when it was made, and that are in `ids`."""
        admission = self.said(id)
        assert isinstance(admission, Admit)
        return [(i, invite) for i, invite in self.usable(admission.ticket_key, self.own_view(id)) if i in ids]

    def usable(self, ticket_key: bytes, ids: Ids) -> list[tuple[Id, Invite]]:
        invites = [(id, s) for id in ids for s in [self.said(id)] if isinstance(s, Invite)]
        out = {node for id in ids for node in self.put_out_by(id)}
        return [(id, s) for id, s in invites if s.ticket_key == ticket_key and self.author(id) not in out]

    @staticmethod
    def least(several: Iterable[Rights | None]) -> Rights | None:
        found = list(several)
        if not found or any(rights is None for rights in found):
            return None
        rights = [r for r in found if r is not None]
        limited = [r.spaces for r in rights if r.spaces is not None]
        role = min((r.role for r in rights), key=lambda role: RANK[role])
        return Rights(role, frozenset.intersection(*limited) if limited else None)

    # -- valid, by one's own past

    def own_view(self, id: Id) -> Ids:
        """What of a statement's past stands in that past."""
        return self.outcome(self.past(id)).counted

    def _fault(self, id: Id) -> Fault | None:
        statement, author, past = self.said(id), self.author(id), self.past(id)
        if statement is None or isinstance(statement, Unknown):
            return Fault.SILENT
        if isinstance(statement, Genesis):
            is_ours = statement == self.genesis and author == self.genesis.founder
            return None if is_ours else Fault.OTHER_NETWORK
        if isinstance(statement, Recover):
            return None
        counted = self.own_view(id)
        outcome = self.outcome(past)
        rights = None if author in outcome.suspended else self.rights(author, counted)
        out = {node for other in counted for node in self.put_out_by(other)}
        if isinstance(statement, Admit):
            if not self.can_write(rights):
                return Fault.NOT_MEMBER
            if not self.usable(statement.ticket_key, counted):
                return Fault.NO_INVITATION
            if any(self.is_valid_use(other, statement.ticket_key) for other in past):
                return Fault.TICKET_USED
            if statement.joiner in out:
                return Fault.REVOKED
            return Fault.KNOWN if self.is_known(statement.joiner, past) else None
        if not self.can_govern(rights):
            return Fault.NOT_ADMIN
        if isinstance(statement, Grant) and statement.node in out:
            return Fault.REVOKED
        if isinstance(statement, Grant | Revoke) and not self.is_known(statement.node, past):
            return Fault.STRANGER
        return None

    def is_valid_use(self, id: Id, ticket_key: bytes) -> bool:
        statement = self.said(id)
        return isinstance(statement, Admit) and statement.ticket_key == ticket_key and self.fault(id) is None

    def is_known(self, node: bytes, past: Ids) -> bool:
        if node == self.genesis.founder:
            return True
        entries = (id for id in past if isinstance(self.said(id), Admit | Recover) and self.about(id) == node)
        return any(self.fault(id) is None for id in entries)

    @staticmethod
    def can_write(rights: Rights | None) -> bool:
        return rights is not None and rights.role != Role.READER and rights.spaces != frozenset()

    @staticmethod
    def can_govern(rights: Rights | None) -> bool:
        return rights is not None and rights.role == Role.ADMIN and rights.spaces is None

    # -- what counts

    def _outcome(self, view: Ids) -> Outcome:
        statements = [id for id in view if id.number >= 0]
        valid = {id for id in statements if self.fault(id) is None}
        crown = {id for id in valid if isinstance(self.said(id), Genesis | Recover)}
        by_crown = [
            (each.node, each)
            for id in crown
            for statement in [self.said(id)]
            if isinstance(statement, Recover)
            for each in statement.revoked
        ]
        # Second rank: revocations, under the network key alone.
        cut_by_crown = {id for id in valid - crown if self.is_cut(id, by_crown)}
        lost_to_crown = {
            id for id in valid - crown if self.cuts_of(id, by_crown) and self.is_past_fork(id, view, by_crown)
        }
        standing = self.resting(valid, fixed=crown, void=cut_by_crown | lost_to_crown)
        revocations = {id for id in valid if isinstance(self.said(id), Revoke)}
        standing_revocations = revocations & standing
        cuts = list(by_crown)
        for id in standing_revocations:
            statement = self.said(id)
            assert isinstance(statement, Revoke)
            cuts.append((statement.node, statement))
        # Third rank: everything else.
        rest = valid - crown - revocations
        cut = {id for id in rest if self.is_cut(id, cuts)}
        forked = {id for id in rest if self.is_past_fork(id, view, cuts)}
        fixed = crown | standing_revocations
        candidates = fixed | rest
        calm = self.resting(candidates, fixed=fixed, void=cut | forked)
        contested = self.contested(calm)
        in_dispute = {self.joiner(id) for id in contested}
        in_dispute = {
            node
            for node in in_dispute
            if node != self.genesis.founder
            and all(id in contested for id in calm if self.is_entry(id) and self.about(id) == node)
        }
        quiet = self.resting(
            candidates, fixed=fixed, void=cut | forked | self.of(in_dispute, rest, contested)
        )
        suspended = {node for node in in_dispute if not self.is_chosen(node, contested, quiet)}
        disputed = self.of(suspended, rest, contested)
        final = self.resting(candidates, fixed=fixed, void=cut | forked | disputed)

        def verdict(id: Id) -> Standing:
            if id not in valid:
                return Standing.INVALID
            if id in final:
                return Standing.STANDS
            if id in cut or id in cut_by_crown:
                return Standing.CUT
            if id in forked or id in lost_to_crown:
                return Standing.FORKED
            return Standing.SUSPENDED if id in disputed else Standing.UPROOTED

        return Outcome({id: verdict(id) for id in statements}, frozenset(suspended), tuple(cuts))

    def resting(self, among: Iterable[Id], *, fixed: Iterable[Id], void: Iterable[Id]) -> set[Id]:
        """Those that are not void and rest on others of them; `fixed` ones stand anyway."""
        ids, sure, gone = set(among), set(fixed), set(void)

        @cache
        def stands(id: Id) -> bool:
            if id in sure:
                return True
            if id in gone:
                return False
            below = frozenset(other for other in self.own_view(id) if other in ids and stands(other))
            rights = self.rights(self.author(id), below)
            if isinstance(self.said(id), Admit):
                return self.can_write(rights) and bool(self.invitations(id, below))
            return self.can_govern(rights)

        return {id for id in ids if stands(id)}

    def cuts_of(self, id: Id, cuts: Iterable[tuple[bytes, Revoke]]) -> list[Revoke]:
        return [revoke for node, revoke in cuts if node == self.author(id)]

    def is_cut(self, id: Id, cuts: Iterable[tuple[bytes, Revoke]]) -> bool:
        commit = self.commits[id.link]
        place = (self.system, commit.author, commit.seq, commit.hash)
        return any(not counts(revoke, *place) for revoke in self.cuts_of(id, cuts))

    def is_past_fork(self, id: Id, view: Ids, cuts: Iterable[tuple[bytes, Revoke]]) -> bool:
        """Whether its author has signed a seq up to this one twice, and no cut says which branch counts."""
        mine = {other.link for other in view if other.link.author == id.link.author}
        if not any(a.seq == b.seq and a != b and a.seq <= id.link.seq for a in mine for b in mine):
            return False
        branches: list[set[Link]] = []
        for revoke in self.cuts_of(id, cuts):
            named = [link for link in mine for cut in revoke.cuts.cuts if self.is_named(link, cut)]
            branches.append(set(self.branch(named[0])) if named else set())
        return not branches or any(id.link not in branch for branch in branches)

    def is_named(self, link: Link, cut: Cut) -> bool:
        place = (cut.space, cut.incarnation, cut.seq, cut.hash)
        return place == (self.system, link.author[32:], link.seq, self.commits[link].hash)

    def branch(self, link: Link) -> list[Link]:
        previous = self.commits[link].previous
        return [link] if previous is None else [*self.branch(previous), link]

    # -- tickets used twice

    def contested(self, calm: set[Id]) -> set[Id]:
        uses = [(id, s.ticket_key, s.joiner) for id in calm for s in [self.said(id)] if isinstance(s, Admit)]
        return {id for id, key, joiner in uses if any(k == key and j != joiner for _, k, j in uses)}

    def joiner(self, id: Id) -> bytes:
        statement = self.said(id)
        assert isinstance(statement, Admit)
        return statement.joiner

    def is_entry(self, id: Id) -> bool:
        return isinstance(self.said(id), Admit | Recover)

    def of(self, nodes: set[bytes], rest: set[Id], contested: set[Id]) -> set[Id]:
        said = {id for id in rest if self.author(id) in nodes}
        return said | {id for id in contested if self.joiner(id) in nodes}

    def is_chosen(self, node: bytes, contested: set[Id], standing: set[Id]) -> bool:
        for id in standing:
            statement = self.said(id)
            if isinstance(statement, Grant) and statement.node == node:
                seen = [self.said(other) for other in self.past(id) & contested]
                uses = [(s.ticket_key, s.joiner) for s in seen if isinstance(s, Admit)]
                mine = {key for key, joiner in uses if joiner == node}
                if any(key in mine and joiner != node for key, joiner in uses):
                    return True
        return False

    # -- commits of other spaces

    def judge(
        self, view: Ids, heads: Iterable[Link], space: bytes, author: bytes, seq: int, digest: bytes
    ) -> tuple[Standing, Role | None]:
        node = author[:32]
        past: Ids = frozenset().union(*(self.reach(head) for head in heads))
        then = self.role_in(space, self.rights_in(node, past))
        now = self.outcome(view)
        if then is None:
            return Standing.INVALID, None
        if any(n == node and not counts(r, space, author, seq, digest) for n, r in now.revocations):
            return Standing.CUT, None
        if node in now.suspended:
            return Standing.SUSPENDED, None
        role = self.role_in(space, self.rights(node, self.outcome(past).counted & now.counted))
        if role is None:
            return Standing.UPROOTED, None
        return Standing.STANDS, min(role, then, key=lambda role: RANK[role])

    def rights_in(self, node: bytes, view: Ids) -> Rights | None:
        outcome = self.outcome(view)
        return None if node in outcome.suspended else self.rights(node, outcome.counted)

    @staticmethod
    def role_in(space: bytes, rights: Rights | None) -> Role | None:
        if rights is None or (rights.spaces is not None and space not in rights.spaces):
            return None
        return rights.role


def counts(revoke: Revoke, space: bytes, author: bytes, seq: int, digest: bytes) -> bool:
    """Whether a commit is within what a revocation leaves of its chain."""
    for cut in revoke.cuts.cuts:
        if (cut.space, cut.incarnation) == (space, author[32:]):
            return seq < cut.seq or (seq, digest) == (cut.seq, cut.hash)
    return False
