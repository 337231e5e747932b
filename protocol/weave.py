"""Where every unit of a collaborative field stands, and since which commit it has been there.

Room: the order of units as YATA (the algorithm of Yjs) makes it, without their
content: a linked list of runs. It answers where a position is, what stands
between two units and how far a client had come at a commit. What an author may
write next to what is `walk`'s; contents are merged in `merging`, and a test holds
the two to one order.

Units are named (client, clock). A client is an author and a number; its Yjs id is
short enough to be ground until it meets another's, so nothing here rests on ids
being different. Deleted units keep their place for ever.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from protocol.encoding import decode, encode
from protocol.errors import Malformed
from protocol.yjs_update import Content, Range, Struct


class Client:
    """One writer of a field: what it has written so far, and by which commits."""

    __slots__ = ("author", "clock", "halves", "id", "n", "runs", "step_clocks", "step_seqs")

    def __init__(self, author: bytes, n: int, id: int) -> None:
        self.author = author
        self.n = n
        self.id = id
        self.clock = 0  # of its next unit
        self.runs: list[Run] = []  # by clock
        self.step_seqs: list[int] = []  # commits that added units, …
        self.step_clocks: list[int] = []  # … and the clock after each
        self.halves: list[int] = []  # clocks of second halves of surrogate pairs

    def clock_at(self, seq: int) -> int:
        """Its clock after the author's commit `seq`."""
        place = bisect_right(self.step_seqs, seq)
        return self.step_clocks[place - 1] if place else 0

    def is_half(self, clock: int) -> bool:
        """Whether something between this unit and the one before would tear a code point apart."""
        halves = self.halves
        if not halves:
            return False
        place = bisect_left(halves, clock)
        return place < len(halves) and halves[place] == clock

    def note_step(self, seq: int) -> None:
        if self.step_seqs and self.step_seqs[-1] == seq:
            self.step_clocks[-1] = self.clock
        else:
            self.step_seqs.append(seq)
            self.step_clocks.append(self.clock)

    @property
    def rank(self) -> tuple[int, bytes, int]:
        """By which units that were inserted at one place, apart, are ordered."""
        return self.id, self.author, self.n


Unit = tuple[Client, int]


class Run:
    """Units of one client that follow each other in clock and in place."""

    __slots__ = ("client", "clock", "is_ballast", "is_deleted", "left", "length", "next", "origin", "right")

    def __init__(
        self,
        client: Client,
        clock: int,
        length: int,
        origin: Unit | None,
        right: Unit | None,
        is_deleted: bool,
        is_ballast: bool,
    ) -> None:
        self.client = client
        self.clock = clock
        self.length = length
        self.origin = origin
        self.right = right
        self.is_deleted = is_deleted
        self.is_ballast = is_ballast
        self.left: Run | None = None
        self.next: Run | None = None

    def halves(self) -> list[int]:
        """Clocks of its second halves."""
        halves = self.client.halves
        if not halves:
            return halves
        return halves[bisect_left(halves, self.clock) : bisect_left(halves, self.clock + self.length)]

    def points(self) -> int:
        """Its length in code points, or elements."""
        return self.length - len(self.halves())


class Splice(NamedTuple):
    """At a position: delete so many code points or elements, and insert these (None: nothing)."""

    at: int
    delete: int
    insert: Content


class Anchored(NamedTuple):
    """A splice that holds whatever happens elsewhere: its place is a unit (None: the beginning), not a number."""

    after: tuple[bytes, int, int] | None  # author, n, clock
    insert: Content
    deletes: tuple[tuple[bytes, int, Range], ...]


class Weave:
    """The units of one field. Mutable."""

    __slots__ = ("by_id", "clients", "first")

    def __init__(self) -> None:
        self.clients: dict[tuple[bytes, int], Client] = {}
        self.by_id: dict[int, list[Client]] = {}
        self.first: Run | None = None

    def __iter__(self) -> Iterator[Run]:
        """Runs in the order in which they stand, deleted ones included."""
        run = self.first
        while run is not None:
            yield run
            run = run.next

    @property
    def has_clash(self) -> bool:
        """Whether two clients have one Yjs id."""
        return len(self.by_id) < len(self.clients)

    def client(self, author: bytes, n: int, id: int) -> Client:
        """The client of an author and number, from now on if there was none."""
        client = self.clients.get((author, n))
        if client is None:
            client = self.clients[author, n] = Client(author, n, id)
            self.by_id.setdefault(id, []).append(client)
        return client

    # -- places ----------------------------------------------------------------------------------------------

    def run_at(self, unit: Unit) -> Run:
        """The run that holds a unit."""
        runs = unit[0].runs
        return runs[bisect_right(runs, unit[1], key=_clock) - 1]

    def run_from(self, unit: Unit) -> Run:
        """The run that begins with a unit; one is parted if need be."""
        run = self.run_at(unit)
        return run if run.clock == unit[1] else self._part(run, unit[1])

    def run_to(self, unit: Unit) -> Run:
        """The run that ends with a unit; one is parted if need be."""
        run = self.run_at(unit)
        if run.clock + run.length > unit[1] + 1:
            self._part(run, unit[1] + 1)
        return run

    def at_or_before(self, unit: Unit, end: Callable[[Client], int]) -> Unit | None:
        """A unit, if it is before the `end` of its client; else the last one left of it that is; or None."""
        run: Run | None = self.run_at(unit)
        last = unit[1]
        while run is not None:
            clock = min(last, end(run.client) - 1)
            if clock >= run.clock:
                return run.client, clock
            run = run.left
            last = run.clock + run.length - 1 if run is not None else 0
        return None

    def after(self, unit: Unit | None, end: Callable[[Client], int]) -> Unit | None:
        """The first unit right of a unit, or of the beginning, that is before the `end` of its client; or None."""
        run = self.first
        if unit is not None:
            run = self.run_at(unit)
            if unit[1] + 1 < run.clock + run.length and unit[1] + 1 < end(run.client):
                return unit[0], unit[1] + 1
            run = run.next
        while run is not None and run.clock >= end(run.client):
            run = run.next
        return (run.client, run.clock) if run is not None else None

    def _part(self, run: Run, clock: int) -> Run:
        """Cut a run before `clock`; returns the second part."""
        size = clock - run.clock
        origin = (run.client, clock - 1)
        second = Run(run.client, clock, run.length - size, origin, run.right, run.is_deleted, run.is_ballast)
        run.length = size
        self._link(second, run)
        runs = run.client.runs
        runs.insert(bisect_left(runs, clock, key=_clock), second)
        return second

    def _link(self, run: Run, left: Run | None) -> None:
        run.left = left
        if left is None:
            run.next, self.first = self.first, run
        else:
            run.next, left.next = left.next, run
        if run.next is not None:
            run.next.left = run

    def take_back(self, author: bytes, n: int, clock: int) -> None:
        """Take out what a client has placed from this clock on, before anything was placed beside it."""
        client = self.clients.get((author, n))
        if client is None:
            return
        while client.runs and client.runs[-1].clock >= clock:
            run = client.runs.pop()
            if run.left is None:
                self.first = run.next
            else:
                run.left.next = run.next
            if run.next is not None:
                run.next.left = run.left
        client.clock = clock
        del client.halves[bisect_left(client.halves, clock) :]
        if not clock:
            del self.clients[author, n]
            self.by_id[client.id].remove(client)
            if not self.by_id[client.id]:
                del self.by_id[client.id]

    # -- changing --------------------------------------------------------------------------------------------

    def place(
        self,
        client: Client,
        struct: Struct,
        origin: Unit | None,
        right: Unit | None,
        *,
        is_deleted: bool,
        is_ballast: bool = False,
    ) -> Run:
        """Put in new units of a client, where YATA says (Nicolaescu et al., 2016; `Item.integrate` of Yjs).

        Between what stood left and right of them then may stand by now what others wrote at the same place.
        """
        left = self.run_to(origin) if origin is not None else None
        stop = self.run_from(right) if right is not None else None
        seen: set[Run] = set()
        rivals: set[Run] = set()
        rank = client.rank
        other = self.first if left is None else left.next
        while other is not None and other is not stop:
            seen.add(other)
            rivals.add(other)
            if other.origin == origin:
                if other.client.rank < rank:
                    left = other
                    rivals.clear()
                elif other.right == right:
                    break
            elif other.origin is not None and (parent := self.run_at(other.origin)) in seen:
                if parent not in rivals:
                    left = other
                    rivals.clear()
            else:
                break
            other = other.next
        run = Run(client, struct.clock, struct.length, origin, right, is_deleted, is_ballast)
        self._link(run, left)
        client.runs.append(run)
        client.clock = struct.clock + struct.length
        if isinstance(struct.content, str) and struct.length > len(struct.content):
            clock = struct.clock
            for character in struct.content:
                clock += 1
                if character > "\uffff":
                    client.halves.append(clock)
                    clock += 1
        return run

    def delete(self, client: Client, clock: int, length: int) -> None:
        """Mark units as deleted, all of which are here."""
        end = clock + length
        while clock < end:
            run = self.run_from((client, clock))
            if run.clock + run.length > end:
                self.run_to((client, end - 1))
            run.is_deleted = True
            clock = run.clock + run.length

    def visible(self, client: Client, clock: int, length: int) -> Iterator[Range]:
        """What of a range is not deleted."""
        end, runs = clock + length, client.runs
        for run in runs[max(bisect_right(runs, clock, key=_clock) - 1, 0) :]:
            first, last = max(run.clock, clock), min(run.clock + run.length, end)
            if run.clock >= end:
                return
            if first < last and not run.is_deleted:
                yield first, last - first

    def visible_units(self) -> int:
        """How many units are not deleted."""
        return sum([run.length for run in self if not run.is_deleted])

    def visible_points(self) -> int:
        """How many code points or elements are not deleted."""
        return sum([run.points() for run in self if not run.is_deleted])

    # -- positions -------------------------------------------------------------------------------------------

    def anchor(self, splices: Sequence[Splice]) -> list[Anchored]:
        """Splices of what is visible, in ascending order and apart, as ones that hold elsewhere too.

        Positions beyond the end mean the end.
        """
        anchored: list[Anchored] = []
        runs = (run for run in self if not run.is_deleted)
        run, start = next(runs, None), 0
        before: Unit | None = None
        for splice in splices:
            while run is not None and start + run.points() < splice.at:
                start += run.points()
                before = run.client, run.clock + run.length - 1
                run = next(runs, None)
            after = before
            if run is not None and splice.at > start:
                after = run.client, run.clock + _units(run, splice.at - start) - 1
            deletes: list[tuple[bytes, int, Range]] = []
            at, remaining = splice.at, splice.delete
            while run is not None and remaining:
                size = run.points()
                skipped = min(at - start, size)
                taken = min(size - skipped, remaining)
                if taken:
                    first = _units(run, skipped)
                    length = _units(run, skipped + taken) - first
                    deletes.append((run.client.author, run.client.n, (run.clock + first, length)))
                at, remaining = at + taken, remaining - taken
                if remaining:
                    start += size
                    before = run.client, run.clock + run.length - 1
                    run = next(runs, None)
            place = None if after is None else (after[0].author, after[0].n, after[1])
            anchored.append(Anchored(place, splice.insert, tuple(deletes)))
        return anchored

    # -- stored and normal form ------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """Runs that are as long as they can be: the same on every node that holds the same updates."""
        return self._joined(self)

    def _joined(self, runs: Iterable[Run]) -> list[Run]:
        whole: list[Run] = []
        for run in runs:
            last = whole[-1] if whole else None
            if (
                last is not None
                and last.client is run.client
                and last.clock + last.length == run.clock
                and run.origin == (last.client, run.clock - 1)
                and run.right == last.right
                and run.is_deleted == last.is_deleted
                and run.is_ballast == last.is_ballast
            ):
                last.length += run.length
            else:
                whole.append(Run(run.client, run.clock, run.length, run.origin, run.right,
                                 run.is_deleted, run.is_ballast))  # fmt: skip
        return whole

    def normal(self) -> tuple[Any, ...]:
        """Equal for those that hold the same units that count, in the same order.

        Ballast is left out: nodes need not all have what counts for nothing, unless something builds on it.
        """

        def name(unit: Unit | None) -> Any:
            return None if unit is None else (unit[0].author, unit[0].n, unit[1])

        return tuple(
            (name((r.client, r.clock)), r.length, name(r.origin), name(r.right), r.is_deleted)
            for r in self._joined(run for run in self if not run.is_ballast)
        )

    def to_state(self, number_of: Callable[[bytes], int]) -> bytes:
        """All of it, authors replaced by the store's own numbers for them.

        [clients, runs], both flat. A client: number, n, id, steps [seq, clock, …], halves [clock, …].
        A run: client, clock, length, kind, then origin and right if the kind says that they are written out.
        Kind: 1 if deleted, 32 if ballast, 2 if the origin is written out and 4 if it is the end of the run before (none
        otherwise), 8 and 16 the same for right and the beginning of the run after.
        """
        places = {client: place for place, client in enumerate(self.clients.values())}
        clients: list[Any] = []
        for c in self.clients.values():
            steps = [number for step in zip(c.step_seqs, c.step_clocks, strict=True) for number in step]
            clients += (number_of(c.author), c.n, c.id, _deltas(steps, 2), _deltas(c.halves, 1))
        runs = self.runs()
        flat: list[int] = []
        end: Unit | None = None
        for place, run in enumerate(runs):
            next_run = runs[place + 1] if place + 1 < len(runs) else None
            kind, rest = run.is_deleted | run.is_ballast << 5, []
            if run.origin is not None:
                kind |= 4 if run.origin == end else 2
                rest = [places[run.origin[0]], run.origin[1]] if kind & 2 else []
            if run.right is not None:
                is_next = next_run is not None and run.right == (next_run.client, next_run.clock)
                kind |= 16 if is_next else 8
                rest += [] if is_next else [places[run.right[0]], run.right[1]]
            flat += (places[run.client], run.clock, run.length, kind, *rest)
            end = run.client, run.clock + run.length - 1
        return encode([clients, flat])

    @classmethod
    def from_state(cls, state: bytes, author_of: Callable[[int], bytes]) -> "Weave":
        """The weave of a stored state. Raises `Malformed` if it has not the form that `to_state` gives."""
        weave = cls()
        try:
            clients, flat = decode(state)
            known: list[Client] = []
            for at in range(0, len(clients), 5):
                number, n, id, steps, halves = clients[at : at + 5]
                client = weave.client(author_of(number), n, id)
                steps = _sums(steps, 2)
                client.step_seqs, client.step_clocks = steps[::2], steps[1::2]
                client.clock = steps[-1] if steps else 0
                client.halves = _sums(halves, 1)
                known.append(client)
            at = 0
            last: Run | None = None
            waits: Run | None = None
            while at < len(flat):
                place, clock, length, kind = flat[at : at + 4]
                at += 4
                run = Run(known[place], clock, length, None, None, bool(kind & 1), bool(kind & 32))
                if kind & 2:
                    run.origin = known[flat[at]], flat[at + 1]
                    at += 2
                elif kind & 4:
                    if last is None:
                        raise ValueError("the first run has none before it")
                    run.origin = last.client, last.clock + last.length - 1
                if kind & 8:
                    run.right = known[flat[at]], flat[at + 1]
                    at += 2
                if waits is not None:
                    waits.right = run.client, run.clock
                waits = run if kind & 16 else None
                weave._link(run, last)
                run.client.runs.append(run)
                last = run
            for client in known:
                client.runs.sort(key=_clock)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise Malformed("the stored order of a field is not of its form") from error
        return weave


def _clock(run: Run) -> int:
    return run.clock


def _units(run: Run, points: int) -> int:
    """How many units the first code points of a run take."""
    units = points
    for half in run.halves():
        if half - 1 - run.clock >= units:
            break
        units += 1
    return units


def _deltas(numbers: list[int], stride: int) -> list[int]:
    return numbers[:stride] + [b - a for a, b in zip(numbers, numbers[stride:], strict=False)]


def _sums(numbers: list[int], stride: int) -> list[int]:
    sums = list(numbers)
    for at in range(stride, len(sums)):
        sums[at] += sums[at - stride]
    return sums
