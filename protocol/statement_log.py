"""The statements of a network with their causal relation, and the rules for saying one.

Room: what was said, by whom, having seen what; which rights given statements
add up to; what each kind of statement asks of its author. Which of the
statements count is `standing`'s, which calls this with that answer.

Every commit and every statement in it is an item with a number, in an order in
which causes come first. A set of items is an integer with their bits: a causal
past, what stands, what was said of one node. So most questions are one `&`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from protocol.commit import DEP_HASH_BYTES, Commit, Header
from protocol.errors import LocalMisuse, ProtocolError
from protocol.ids import INCARNATION_BYTES, SYSTEM_SPACE_NAME, Author, NodeId, node_of, space_id
from protocol.roles import Rights, Role
from protocol.statements import (
    Admit,
    Genesis,
    Grant,
    Invite,
    Recover,
    Revoke,
    Statement,
    Unknown,
    decode_statement,
    is_proven_admission,
    is_proven_recovery,
)

_Key = TypeVar("_Key")
Items = int  # a set of items: bit i is set when item i belongs to it


class Link(NamedTuple):
    """A commit of `system` as headers name it: author, seq and the first 16 bytes of its hash."""

    author: Author
    seq: int
    hash_prefix: bytes


class Fault(StrEnum):
    """Why a statement has no effect by its own causal past, whatever else becomes known."""

    NOT_ADMIN = "not_admin"  # its author was not an admin of the whole network
    NOT_MEMBER = "not_member"  # its author was neither admin nor member anywhere
    STRANGER = "stranger"  # it is about a node that was never admitted
    REVOKED = "revoked"  # it gives rights to a node key that is out for good
    KNOWN = "known"  # the joiner was admitted before: roles change by grants
    NO_INVITATION = "no_invitation"  # no invitation has this ticket key, or its author was revoked since
    TICKET_USED = "ticket_used"
    EXPIRED = "expired"  # only ever given by the node that is asked to admit
    OTHER_NETWORK = "other_network"  # a genesis that is not this network's
    SILENT = "silent"  # malformed, or of a kind that this version does not know


@dataclass(frozen=True, slots=True)
class SystemCommit:
    """What the fold needs of a verified commit of `system`. `previous` is the commit before it in its chain.

    A statement that cannot be read, or whose inner signatures do not hold, is None.
    """

    author: Author
    seq: int
    hash: bytes
    previous: Link | None
    deps: tuple[Link, ...]
    statements: tuple[Statement | None, ...]

    @property
    def parents(self) -> tuple[Link, ...]:
        return self.deps if self.previous is None else (self.previous, *self.deps)

    @property
    def link(self) -> Link:
        return Link(self.author, self.seq, self.hash[:DEP_HASH_BYTES])


def read_system_commit(commit: Commit, genesis: Genesis) -> SystemCommit:
    """The statements of a commit of `system` whose own signature has been verified. Never raises.

    Bodies in `system` are never dropped: one that is missing here would count for nothing.
    """
    header = commit.header
    deps = tuple(Link(dep.author, dep.seq, dep.hash_prefix) for dep in header.deps)
    previous = None
    if header.seq > 1:
        previous = Link(header.author, header.seq - 1, header.previous[:DEP_HASH_BYTES])
    statements = tuple(_read(body, index, header, genesis) for index, body in enumerate(commit.bodies))
    return SystemCommit(header.author, header.seq, commit.hash, previous, deps, statements)


def _read(body: bytes | None, index: int, header: Header, genesis: Genesis) -> Statement | None:
    if body is None:
        return None
    try:
        statement = decode_statement(body)
    except ProtocolError:
        return None
    match statement:
        case Genesis() if (header.seq, index) != (1, 0):
            return None
        case Admit() if not is_proven_admission(statement, genesis.network_id):
            return None
        case Recover() if not is_proven_recovery(body, statement, genesis.network_key, header):
            return None
    return statement


@dataclass(slots=True)
class Item:
    """A commit (`statement` None, `index` -1) or one statement of it."""

    commit: int  # the number of the commit
    author: Author
    seq: int
    hash: bytes
    index: int
    statement: Statement | None
    past: Items
    fault: Fault | None = None
    rests_on: Items = 0  # what of its past stands there and has to do with its author's right
    invites: Items = 0  # of an admission: the invitations among these

    @property
    def link(self) -> Link:
        return Link(self.author, self.seq, self.hash[:DEP_HASH_BYTES])

    @property
    def node(self) -> NodeId:
        return node_of(self.author)

    @property
    def incarnation(self) -> bytes:
        return self.author[-INCARNATION_BYTES:]


@dataclass(frozen=True, slots=True)
class Placed:
    """A commit in the log: the numbers of its statements; the items that it is, says and has seen.

    `branch` has the commits of its chain up to this one.
    """

    numbers: range
    reach: Items
    branch: Items


def bits(items: Items) -> Iterator[int]:
    """The numbers of the items in a set, causes first."""
    while items:
        lowest = items & -items
        yield lowest.bit_length() - 1
        items ^= lowest


class StatementLog:
    """Everything said, append-only. It may be shared: what a set of items says never changes."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.system = space_id(genesis.network_id, SYSTEM_SPACE_NAME)
        self.items: list[Item] = []
        self.commits: dict[Link, Placed] = {}
        self.forks: dict[Author, list[tuple[int, Items]]] = {}  # the seqs that stand on two commits or more
        self._at_seq: dict[tuple[Author, int], Items] = {}
        # Of valid statements alone:
        self.valid: Items = 0
        self.from_network_key: Items = 0
        self.recoveries: Items = 0
        self.revocations: Items = 0
        self.said_by: dict[NodeId, Items] = {}
        self.entries: dict[NodeId, Items] = {}  # admissions of a node, and recoveries by it
        self.sources: dict[NodeId, Items] = {}  # all that gives a node rights
        self.put_out: dict[NodeId, Items] = {}  # all that revokes a node
        self.resting_on: dict[int, Items] = {}  # those whose `rests_on` has this one
        self.invites: dict[bytes, Items] = {}  # by ticket key
        self.admits: dict[bytes, Items] = {}  # by ticket key
        self.rival_tickets: dict[bytes, Items] = {}  # those of `admits` with two admissions or more

    # -- appending

    def place(self, commit: SystemCommit) -> range:
        """Append a commit; the numbers of its statements, which `note_verdict` is then called for in order.

        Raises `LocalMisuse` if a cause is missing, or the commit is here already.
        """
        missing = [parent for parent in commit.parents if parent not in self.commits]
        if missing or commit.link in self.commits:
            raise LocalMisuse("a commit of system comes once, and after all that it has seen")
        seen = 0
        for parent in commit.parents:
            seen |= self.commits[parent].reach
        first = len(self.items)
        for index, statement in enumerate((None, *commit.statements), start=-1):
            self.items.append(Item(first, commit.author, commit.seq, commit.hash, index, statement, seen))
            seen |= 1 << first + index + 1
        numbers = range(first + 1, len(self.items))
        branch = 1 << first
        if commit.previous is not None:
            branch |= self.commits[commit.previous].branch
        self.commits[commit.link] = Placed(numbers, seen, branch)
        here = self._at_seq.get((commit.author, commit.seq), 0) | 1 << first
        self._at_seq[commit.author, commit.seq] = here
        if here.bit_count() > 1:
            others = [fork for fork in self.forks.get(commit.author, []) if fork[0] != commit.seq]
            self.forks[commit.author] = [*others, (commit.seq, here)]
        return numbers

    def note_verdict(self, number: int, fault: Fault | None, basis: Items) -> None:
        """Record whether a statement is valid, which never changes, and what of its past stands there."""
        item = self.items[number]
        item.fault = fault
        if fault is not None:
            return
        sources = basis & self.sources.get(item.node, 0)
        item.rests_on = sources
        for source in bits(sources):
            item.rests_on |= self.items[source].invites
        if isinstance(item.statement, Admit):
            item.invites = self.usable_invites(item.statement.ticket_key, basis)
            item.rests_on |= item.invites
        for support in bits(item.rests_on):
            self.resting_on[support] = self.resting_on.get(support, 0) | 1 << number
        bit = 1 << number
        self.valid |= bit
        _add(self.said_by, item.node, bit)
        match item.statement:
            case Genesis():
                self.from_network_key |= bit
            case Recover(revoked):
                self.from_network_key |= bit
                self.recoveries |= bit
                _add(self.entries, item.node, bit)
                _add(self.sources, item.node, bit)
                for revoke in revoked:
                    _add(self.put_out, revoke.node, bit)
            case Invite(ticket_key):
                _add(self.invites, ticket_key, bit)
            case Admit(ticket_key, joiner):
                _add(self.entries, joiner, bit)
                _add(self.sources, joiner, bit)
                if ticket_key in self.admits:
                    self.rival_tickets[ticket_key] = self.admits[ticket_key] | bit
                _add(self.admits, ticket_key, bit)
            case Grant(node):
                _add(self.sources, node, bit)
            case Revoke(node):
                self.revocations |= bit
                _add(self.put_out, node, bit)

    # -- the rules

    def rights(self, node: bytes, counted: Items) -> Rights | None:
        """What the statements in `counted` give a node. None for a stranger and for a revoked node.

        Of what gives rights, what another has seen is superseded; what did not see each other is met, but for
        a recovery, which outranks.
        """
        key = NodeId(node)
        if counted & self.put_out.get(key, 0):
            return None
        sources = counted & self.sources.get(key, 0)
        superseded = 0
        for number in bits(sources):
            superseded |= self.items[number].past
        if sources & ~superseded & self.recoveries or (not sources and key == self.genesis.founder):
            return Rights(Role.ADMIN)
        found: Rights | None = None
        for number in bits(sources & ~superseded):
            given = self._given(number, counted)
            if given is None:
                return None
            found = found.meet(given) if found else given
        return found

    def _given(self, number: int, counted: Items) -> Rights | None:
        item = self.items[number]
        match item.statement:
            case Grant(_, rights):
                return rights
            case Admit():
                found: Rights | None = None
                for invite in bits(item.invites & counted):
                    statement = self.items[invite].statement
                    assert isinstance(statement, Invite)
                    found = found.meet(statement.rights) if found else statement.rights
                return found
        return None

    def is_known(self, node: bytes, past: Items) -> bool:
        """Whether a node was ever admitted in this past, even by what no longer counts."""
        return node == self.genesis.founder or past & self.entries.get(NodeId(node), 0) != 0

    def usable_invites(self, ticket_key: bytes, counted: Items) -> Items:
        """The invitations in `counted` with this key whose author is not revoked in it."""
        usable = 0
        for number in bits(counted & self.invites.get(ticket_key, 0)):
            if not counted & self.put_out.get(self.items[number].node, 0):
                usable |= 1 << number
        return usable

    def fault(
        self, statement: Statement | None, node: NodeId, past: Items, basis: Items, rights: Rights | None
    ) -> Fault | None:
        """What is wrong with a statement of `node`, which has these rights, made with this past.

        `basis` is what of `past` stands in it.
        """
        match statement:
            case None | Unknown():
                return Fault.SILENT
            case Genesis():
                ours = statement.body == self.genesis.body and node == self.genesis.founder
                return None if ours else Fault.OTHER_NETWORK
            case Recover():
                return None
            case Admit(ticket_key, joiner):
                if rights is None or not rights.may_write:
                    return Fault.NOT_MEMBER
                if not self.usable_invites(ticket_key, basis):
                    return Fault.NO_INVITATION
                if past & self.admits.get(ticket_key, 0):
                    return Fault.TICKET_USED
                if basis & self.put_out.get(joiner, 0):
                    return Fault.REVOKED
                return Fault.KNOWN if self.is_known(joiner, past) else None
            case _ if rights is None or not rights.may_govern:
                return Fault.NOT_ADMIN
            case Grant(target) if basis & self.put_out.get(target, 0):
                return Fault.REVOKED
            case Grant(target) | Revoke(target) if not self.is_known(target, past):
                return Fault.STRANGER
        return None

    def is_still_carried(self, number: int, stands: Items) -> bool:
        """Whether what a statement rests on is still enough when only `stands` counts of it.

        Only the right is asked for again: all else follows from the statement's own past.
        """
        item = self.items[number]
        rights = self.rights(item.node, item.rests_on & stands)
        if isinstance(item.statement, Admit):
            return rights is not None and rights.may_write and item.invites & stands != 0
        return rights is not None and rights.may_govern


def _add(table: dict[_Key, Items], key: _Key, bit: Items) -> None:
    table[key] = table.get(key, 0) | bit
