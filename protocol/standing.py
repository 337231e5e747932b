"""Which statements count in a given state of knowledge: what is void, and why.

Room: the rules of MEMBERSHIP.md, "What counts", over one set of known
statements. The set is closed: it holds the causes of all it holds. The result
is a function of the set alone, so neither order of arrival nor this node's own
view of time comes in.

Each rank can be made void only by a higher one, which is what makes the
definition end:

1. genesis and recoveries, signed by the network key: never void;
2. revocations: by the cuts of recoveries alone, never by one another;
3. everything else: by cuts of recoveries and of the revocations that stand, by
   forks, and by disputes over a ticket.

What rests on something void is void with it. Whether a statement was *valid*, by
its own past, comes before all that and never changes.
"""

from collections.abc import Iterable
from enum import StrEnum
from functools import partial

from protocol.commit import DEP_HASH_BYTES
from protocol.cuts import Cut, Cuts, is_settled, is_within
from protocol.ids import Author, NodeId, node_of
from protocol.roles import Rights, Role
from protocol.statement_log import Item, Items, Link, StatementLog, SystemCommit, bits
from protocol.statements import Admit, Genesis, Recover, Revoke

VIEWS_KEPT_MAX = 128  # each holds a few sets of items: 10 kB at 10,000 statements


class Standing(StrEnum):
    """Whether a statement or commit counts; if not, the first of these that is true of it."""

    STANDS = "stands"
    INVALID = "invalid"  # its author had not the right in its own past; never changes
    CUT = "cut"  # above the cut of a revocation that stands
    FORKED = "forked"  # at or above a seq that its author signed twice, and no cut settles it
    SUSPENDED = "suspended"  # one of two uses of a ticket, or said by a node that joined by one
    UPROOTED = "uprooted"  # what gave its author the right is void


class View:
    """What counts of one closed set of items."""

    def __init__(self, log: StatementLog, mask: Items) -> None:
        self.mask = mask
        self._log = log
        self._forks = self._fork_points()
        self.cuts: dict[NodeId, list[Cuts]] = {}
        self.suspended: frozenset[NodeId] = frozenset()
        self._disputed: Items = 0
        known = mask & log.valid

        # Rank 2, under the cuts of rank 1.
        self._cut: Items = 0
        self._forked: Items = 0
        self._take_cuts(known & log.recoveries)
        for node in self.cuts:
            self._end_chains(node, known & ~log.from_network_key)
        stands = self._without(self._cut | self._forked, known, may_fall=~log.from_network_key)
        revocations = stands & log.revocations

        # Rank 3, under the cuts of both.
        self._take_cuts(revocations)
        untouchable = log.from_network_key | log.revocations
        for node in self.cuts.keys() | {node_of(author) for author in self._forks}:
            self._end_chains(node, known & ~untouchable)
        stands = self._without(self._cut | self._forked, stands, may_fall=~untouchable)
        self.stands = self._settle(stands, ~untouchable)

    # -- answers

    def rights(self, node: bytes) -> Rights | None:
        """What a node may do, for whoever knows just this."""
        return None if node in self.suspended else self._log.rights(node, self.stands)

    def standing(self, number: int) -> Standing:
        """Of a statement in this set."""
        log, bit = self._log, 1 << number
        if not bit & log.valid:
            return Standing.INVALID
        if bit & self.stands:
            return Standing.STANDS
        if bit & self._cut:
            return Standing.CUT
        if bit & self._forked:
            return Standing.FORKED
        return Standing.SUSPENDED if bit & self._disputed else Standing.UPROOTED

    # -- the steps

    def _take_cuts(self, putting_out: Items) -> None:
        for number in bits(putting_out):
            match self._log.items[number].statement:
                case Recover(revoked):
                    for revoke in revoked:
                        self.cuts.setdefault(revoke.node, []).append(revoke.cuts)
                case Revoke(node, cuts):
                    self.cuts.setdefault(node, []).append(cuts)

    def _end_chains(self, node: NodeId, among: Items) -> None:
        """Mark what a node said above its cuts, or at or above a fork that these do not settle."""
        log, cuts = self._log, self.cuts.get(node, [])
        for number in bits(among & log.said_by.get(node, 0)):
            item = log.items[number]
            if not is_within(cuts, log.system, item.incarnation, item.seq, item.hash):
                self._cut |= 1 << number
            elif self._is_above_fork(item) and not is_settled(
                cuts, log.system, item.incarnation, partial(self._leads_to, item)
            ):
                self._forked |= 1 << number

    def _is_above_fork(self, item: Item) -> bool:
        return item.author in self._forks and item.seq >= self._forks[item.author]

    def _leads_to(self, item: Item, cut: Cut) -> bool:
        """Whether the header that a cut names is seen, and is the commit of this item or continues it."""
        link = Link(item.author, cut.seq, cut.hash[:DEP_HASH_BYTES])
        placed = self._log.commits.get(link)
        if placed is None or not self.mask >> placed.numbers.start - 1 & 1:
            return False
        return placed.branch >> item.commit & 1 == 1

    def _fork_points(self) -> dict[Author, int]:
        points: dict[Author, int] = {}
        for author, forks in list(self._log.forks.items()):
            seqs = [seq for seq, commits in forks if (commits & self.mask).bit_count() > 1]
            if seqs:
                points[author] = min(seqs)
        return points

    def _without(self, void: Items, stands: Items, may_fall: Items) -> Items:
        """`stands` without `void` and without what rested on it, of those that may fall."""
        log = self._log
        void &= stands
        stands &= ~void
        shaken = 0
        for number in bits(void):
            shaken |= log.resting_on.get(number, 0)
        while shaken := shaken & stands & may_fall:
            lowest = shaken & -shaken  # causes first: what this one rests on is settled
            shaken ^= lowest
            number = lowest.bit_length() - 1
            if not log.is_still_carried(number, stands):
                stands ^= lowest
                shaken |= log.resting_on.get(number, 0)
        return stands

    def _settle(self, stands: Items, may_fall: Items) -> Items:
        """Suspend the nodes that used one ticket apart, until an admin who knew of both granted one.

        All are suspended first, so that none of them, nor whom they brought, has a say in it.
        """
        contested = self._contested(stands)
        if not contested:
            return stands
        nodes = {self._joiner(number) for number in bits(contested)}
        entries = self._log.entries
        nodes = {n for n in nodes if not stands & entries[n] & ~contested and n != self._log.genesis.founder}
        without_all = self._without(self._ties_of(nodes, contested) & may_fall, stands, may_fall)
        self.suspended = frozenset(n for n in nodes if not self._is_chosen(n, contested, without_all))
        self._disputed = self._ties_of(self.suspended, contested) & may_fall
        return self._without(self._disputed, stands, may_fall)

    def _contested(self, stands: Items) -> Items:
        """Admissions by tickets that admitted others as well. Valid ones have not seen each other."""
        contested = 0
        for admits in list(self._log.rival_tickets.values()):
            rivals = admits & stands
            if len({self._joiner(number) for number in bits(rivals)}) > 1:
                contested |= rivals
        return contested

    def _ties_of(self, nodes: Iterable[NodeId], contested: Items) -> Items:
        """What these nodes said, and their contested admissions."""
        ties = 0
        for node in nodes:
            ties |= self._log.said_by.get(node, 0) | (contested & self._log.entries[node])
        return ties

    def _is_chosen(self, node: NodeId, contested: Items, stands: Items) -> bool:
        """Whether a grant that stands has seen this node and another use the same ticket."""
        log = self._log
        grants = stands & log.sources[node] & ~log.entries[node]
        for rivals in list(log.rival_tickets.values()):
            mine = rivals & contested & log.entries[node]
            others = rivals & contested & ~log.entries[node]
            if mine and any(log.items[g].past & mine and log.items[g].past & others for g in bits(grants)):
                return True
        return False

    def _joiner(self, number: int) -> NodeId:
        statement = self._log.items[number].statement
        assert isinstance(statement, Admit)
        return statement.joiner


class Standings:
    """A log with the views of it that were asked for last. Append-only, so old answers stay right.

    One thread may append while others ask: they see whole items or none of them.
    """

    def __init__(self, genesis: Genesis) -> None:
        self.log = StatementLog(genesis)
        self._views: dict[Items, View] = {}

    def view(self, mask: Items) -> View:
        """What counts of a closed set of items."""
        view = self._views.get(mask)
        if view is None:
            view = View(self.log, mask)
            if len(self._views) >= VIEWS_KEPT_MAX:
                self._views.clear()
            self._views[mask] = view
        return view

    def append(self, commit: SystemCommit) -> Items:
        """Take in a commit whose causes are here; it and all that it has seen. Known ones change nothing."""
        log = self.log
        if commit.link not in log.commits:
            for number in log.place(commit):
                item = log.items[number]
                view = self.view(item.past)
                statement, node = item.statement, item.node
                fault = log.fault(statement, node, item.past, view.stands, view.rights(node))
                log.note_verdict(number, fault, view.stands)
        return log.commits[commit.link].reach


def lower(first: Role | None, second: Role | None) -> Role | None:
    """The lower of two roles, no role being the lowest."""
    if first is None or second is None:
        return None
    return min(first, second, key=lambda role: role.rank)
