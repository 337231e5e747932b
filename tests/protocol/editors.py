"""A few authors who edit one document, each on a node of its own, and say so to one another when told.

Room: what a body would carry, without commits and signatures: who wrote what,
having seen what. Verdicts are kept from every node, so that a test can ask
whether they were the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from protocol.body import Dot, Operation
from protocol.document import Document
from protocol.planning import plan_delete, plan_write

MODEL, ID = "page_0a1b2c3d", "one"
SHARED = {"body": 8, "steps": 9}


def author(number: int) -> bytes:
    return bytes([number]) * 40


@dataclass
class Said:
    """One body."""

    dot: Dot
    hlc: int
    seen: tuple[Dot, ...]
    operations: list[Operation]
    past: frozenset[int]  # places of the bodies that its author had applied
    known: Mapping[bytes, int]
    verdicts: set[str | None] = field(default_factory=set)

    def known_of(self, other: bytes) -> int:
        return self.known.get(other, 0)


class Editors:
    """`documents[author]` is what that author's node holds."""

    def __init__(self, *numbers: int) -> None:
        self.authors = [author(number) for number in numbers]
        self.said: list[Said] = []
        self.documents = {a: Document(MODEL, ID) for a in self.authors}
        self.got: dict[bytes, set[int]] = {a: set() for a in self.authors}

    def __getitem__(self, number: int) -> Document:
        return self.documents[author(number)]

    def write(self, number: int, **values: Any) -> Said | None:
        """Have an author make `values` the shown ones; None if they are."""
        who = author(number)
        plan = plan_write(self.documents[who], values, shared=SHARED, author=who)
        return self.say(number, plan.operations, plan.seen) if plan.operations else None

    def delete(self, number: int) -> Said:
        plan = plan_delete(self[number], author(number))
        return self.say(number, plan.operations, plan.seen)

    def say(self, number: int, operations: list[Operation], seen: tuple[Dot, ...] = ()) -> Said:
        """Have an author say anything, and apply it if it may."""
        who = author(number)
        seq = 1 + sum(said.dot.author == who for said in self.said)
        known = dict.fromkeys(self.authors, 0)
        for place in self.got[who]:
            dot = self.said[place].dot
            known[dot.author] = max(known[dot.author], dot.seq)
        said = Said(Dot(who, seq, 0), len(self.said) + 1, seen, operations, frozenset(self.got[who]), known)
        self.said.append(said)
        self._take(who, len(self.said) - 1)
        return said

    def _take(self, who: bytes, place: int, *, is_ballast: bool = False) -> None:
        said, document = self.said[place], self.documents[who].copy()
        fault = document.fault_of(said.dot.author, said.operations, said.known_of)
        said.verdicts.add(fault)
        if fault is None:
            document.apply(said.dot, said.hlc, "ann", said.seen, said.operations,
                           is_ballast=is_ballast, known_of=said.known_of)  # fmt: skip
        self.documents[who] = document
        self.got[who].add(place)

    def meet(
        self,
        *numbers: int,
        random: Random | None = None,
        is_ballast: Callable[[Said], bool] = lambda said: False,
    ) -> None:
        """Give these authors (all, if none is named) everything that was said, causes first."""
        for who in [author(number) for number in numbers] or self.authors:
            while ready := self._ready(who):
                place = ready[0] if random is None else random.choice(ready)
                self._take(who, place, is_ballast=is_ballast(self.said[place]))

    def hear(self, number: int, random: Random) -> None:
        """Give an author one body, if there is one that it could take."""
        if ready := self._ready(author(number)):
            self._take(author(number), random.choice(ready))

    def _ready(self, who: bytes) -> list[int]:
        got = self.got[who]
        return [n for n, said in enumerate(self.said) if n not in got and said.past <= got]

    def read(self, number: int, name: str = "body") -> Any:
        return self[number].values().get(name, "" if name == "body" else [])

    def rebuilt(self, random: Random, is_ballast: Callable[[Said], bool] = lambda said: False) -> Document:
        """What a node that begins with nothing comes to."""
        other = Editors()
        other.said, nobody = self.said, author(255)
        other.documents[nobody], other.got[nobody] = Document(MODEL, ID), set()
        other.authors = [nobody]
        other.meet(random=random, is_ballast=is_ballast)
        return other.documents[nobody]
