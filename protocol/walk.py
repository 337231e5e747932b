"""May this author have written this next to that? The verdict on an update, and the update that says a splice.

Room: the rules that an update of a collaborative field keeps or breaks, decided
from what its author can have seen alone, so that the verdict is the same on every
node and at any time; and the making of updates that keep them. The library that
merges contents is handed nothing that has not passed here.

The rule that matters most: new units stand between two units that were
neighbours in what the author had seen. Where they were not, replicas that get
the same updates in different orders come to different texts, for ever.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from protocol.errors import ProtocolError, TooLarge, UnknownPlace
from protocol.limits import (
    CLIENTS_DELETED_FROM_MAX,
    RANGES_PER_UPDATE_MAX,
    STRUCTS_PER_UPDATE_MAX,
    UNITS_PER_UPDATE_MAX,
)
from protocol.weave import Anchored, Client, Unit, Weave
from protocol.yjs_update import Id, Range, Struct, Update, merged_ranges, units

KnownOf = Callable[[bytes], int]  # author -> the last seq of its chain in the causal past


class Writer(NamedTuple):
    """Who writes: the author, the number of its client, and that client's Yjs id in this field."""

    author: bytes
    n: int
    id: int


class RuleBroken(ProtocolError):
    """A rule that an update breaks."""


class _Past:
    """How much of each client an author can have seen."""

    def __init__(self, weave: Weave, author: bytes, known_of: KnownOf | None) -> None:
        self._weave = weave
        self._author = author
        self._known_of = known_of
        self._ends: dict[Client, int] = {}

    def end(self, client: Client) -> int:
        """The clock of the first unit of a client that is not past."""
        if client.author == self._author or self._known_of is None:
            return client.clock  # all that came of one's own chain was there before
        end = self._ends.get(client)
        if end is None:
            end = self._ends[client] = client.clock_at(self._known_of(client.author))
        return end

    def unit(self, id: Id | None) -> Unit | None:
        return None if id is None else self.named(id)

    def named(self, id: Id) -> Unit:
        """The past unit that an update names. Raises `RuleBroken` unless there is exactly one."""
        found = [c for c in self._weave.by_id.get(id[0], ()) if id[1] < self.end(c)]
        if len(found) != 1:
            raise RuleBroken("it names a unit that its author cannot have seen")
        return found[0], id[1]


def fault_of(weave: Weave, update: Update, writer: Writer, known_of: KnownOf) -> str | None:
    """The rule that an update breaks, or None. The weave is left as it was."""
    own = weave.clients.get((writer.author, writer.n))
    before = own.clock if own is not None else 0
    try:
        _check(weave, update, writer, _Past(weave, writer.author, known_of))
    except RuleBroken as broken:
        return str(broken)
    finally:
        weave.take_back(writer.author, writer.n, before)
    return None


def _check(weave: Weave, update: Update, writer: Writer, past: _Past) -> None:
    if update.structs:
        if update.client != writer.id:
            raise RuleBroken("it writes under a client id that is not its author's")
        own = weave.clients.get((writer.author, writer.n))
        if update.structs[0].clock != (own.clock if own is not None else 0):
            raise RuleBroken("it leaves a gap in the clock of its client, or goes back")
        if any(c is not own and past.end(c) for c in weave.by_id.get(writer.id, ())):
            raise RuleBroken("it writes under a client id that another has taken")
    for struct in update.structs:
        origin, right = past.unit(struct.origin), past.unit(struct.right)
        if origin is not None and origin[0].is_half(origin[1] + 1):
            raise RuleBroken("it tears a code point apart")
        if right is not None and right[0].is_half(right[1]):
            raise RuleBroken("it tears a code point apart")
        _check_neighbours(weave, origin, right, past)
        weave.place(weave.client(*writer), struct, origin, right, is_deleted=False)
    for id, ranges in update.deletes:
        for clock, length in ranges:
            client = past.named((id, clock + length - 1))[0]
            if client.is_half(clock) or client.is_half(clock + length):
                raise RuleBroken("it tears a code point apart")


def _check_neighbours(weave: Weave, origin: Unit | None, right: Unit | None, past: _Past) -> None:
    run = weave.run_to(origin).next if origin is not None else weave.first
    stop = weave.run_from(right) if right is not None else None
    while run is not stop:
        if run is None or run.clock < past.end(run.client):
            raise RuleBroken("it inserts between units that its author did not see side by side")
        run = run.next


def write(
    weave: Weave,
    update: Update,
    writer: Writer,
    seq: int,
    *,
    known_of: KnownOf | None = None,
    is_ballast: bool = False,
) -> None:
    """Bring a weave up to an update that has no fault. `seq` is that of its commit.

    As ballast its units only take their places, deleted, and what it deletes stays. `known_of` is asked
    where two clients have one id. Raises `RuleBroken` if it names what is not there: it had a fault.
    """
    past = _Past(weave, writer.author, known_of)
    for struct in update.structs:
        origin, right = past.unit(struct.origin), past.unit(struct.right)
        client = weave.client(*writer)
        is_deleted = is_ballast or struct.content is None
        weave.place(client, struct, origin, right, is_deleted=is_deleted, is_ballast=is_ballast)
    if update.structs:
        weave.client(*writer).note_step(seq)
    if not is_ballast:
        for id, ranges in update.deletes:
            for clock, length in ranges:
                weave.delete(past.named((id, clock + length - 1))[0], clock, length)


def plan(
    weave: Weave, splices: Iterable[Anchored], writer: Writer, known_of: KnownOf | None = None
) -> Update | None:
    """The update by which `writer` makes splices. None if nothing changes.

    `known_of` tells what the writer's commit will have in its past: not all ballast, though all that is
    visible. Without it, that is everything.
    Raises `TooLarge` if no update may do so much, `UnknownPlace` for a splice of another state.
    """
    own = weave.clients.get((writer.author, writer.n))
    clock = own.clock if own is not None else 0
    first, past = clock, _Past(weave, writer.author, known_of)
    structs: list[Struct] = []
    deletes: dict[Client, list[Range]] = {}
    for splice in splices:
        if splice.insert:
            after = None
            if splice.after is not None:
                author, n, at = splice.after
                after = weave.at_or_before((_placed(weave, author, n, at), at), past.end)
            before = weave.after(after, past.end)
            length = units(splice.insert) if isinstance(splice.insert, str) else len(splice.insert)
            structs.append(Struct(clock, length, _id(after), _id(before), splice.insert))
            clock += length
        for author, n, (start, size) in splice.deletes:
            client = _placed(weave, author, n, start + size - 1)
            deletes.setdefault(client, []).extend(weave.visible(client, start, size))
    return _bounded(writer.id, structs, {c: r for c, r in deletes.items() if r}, clock - first)


def _placed(weave: Weave, author: bytes, n: int, clock: int) -> Client:
    client = weave.clients.get((author, n))
    if client is None or clock >= client.clock:
        raise UnknownPlace("the text has changed in a way that this edit cannot follow")
    return client


def plan_emptying(weave: Weave, writer: Writer) -> Update | None:
    """The update that deletes all that is visible; None if nothing is."""
    deletes: dict[Client, list[Range]] = {}
    for run in weave:
        if not run.is_deleted:
            deletes.setdefault(run.client, []).append((run.clock, run.length))
    if sum(map(len, deletes.values())) > RANGES_PER_UPDATE_MAX:
        deletes = {client: [(0, client.clock)] for client in deletes}
    return _bounded(writer.id, [], deletes, 0)


def _bounded(id: int, structs: list[Struct], deletes: dict[Client, list[Range]], added: int) -> Update | None:
    if not structs and not deletes:
        return None
    merged = {client: merged_ranges(ranges) for client, ranges in deletes.items()}
    for what, size, size_max in (
        ("structs in an update", len(structs), STRUCTS_PER_UPDATE_MAX),
        ("units in an update", added, UNITS_PER_UPDATE_MAX),
        ("clients that an update deletes from", len(merged), CLIENTS_DELETED_FROM_MAX),
        ("ranges that an update deletes", sum(map(len, merged.values())), RANGES_PER_UPDATE_MAX),
    ):
        if size > size_max:
            raise TooLarge(what, size=size, size_max=size_max)
    named = sorted((client.id, ranges) for client, ranges in merged.items())
    return Update(id if structs else -1, tuple(structs), tuple(named))


def _id(unit: Unit | None) -> Id | None:
    return None if unit is None else (unit[0].id, unit[1])
