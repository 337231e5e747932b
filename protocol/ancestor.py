"""Where values that did not see each other came from: their common ancestor in a document's history.

Room: which bodies of a document are the last to have said something about a field
in the causal past of all the given ones. History is handed in (`Past`); it is
read from its newest end and no further than it takes. Nothing here depends on
the order of arrival: what is in the past of a body is signed with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from protocol.body import Body, Dot, Kind, Operation
from protocol.clock import Hlc
from protocol.document import Document

Reach = tuple[int, int]  # (seq, index) of an author's body: that one and all before it
NOTHING: Reach = (0, 0)


class Told(NamedTuple):
    """An applied body, with its place and time."""

    dot: Dot
    hlc: Hlc
    body: Body


class Origin(NamedTuple):
    """A body that set the field, and to what."""

    dot: Dot
    hlc: Hlc
    value: Any

    @property
    def order(self) -> tuple[Hlc, Dot]:
        return self.hlc, self.dot


class Past(Protocol):
    """What came before what, in one document."""

    def reach(self, dot: Dot, author: bytes) -> Reach:
        """How far `author` is in the causal past of the body at `dot`, which is not in its own.

        `NOTHING` if not at all. Of others whole commits are known: the index may be above any that there is.
        """

    def newest_first(self, within: Mapping[bytes, Reach]) -> Iterator[tuple[Dot, Callable[[], Told | None]]]:
        """Bodies of the document within these reaches, each before all that are in its past.

        The second is how to read it: None if it was not applied.
        """

    def origins_of(self, name: str, dots: Sequence[Dot]) -> list[Origin]:
        """What `origins` finds for a field before the bodies at `dots` parted; it may have been found before."""


PastOf = Callable[[Document], Past]


def is_past(past: Past, dot: Dot, other: Dot) -> bool:
    """Whether the body at `other` is in the causal past of the one at `dot`."""
    return other[1:] <= past.reach(dot, other.author)


def common(past: Past, vector: Mapping[bytes, Reach], dots: Sequence[Dot]) -> dict[bytes, Reach]:
    """How far each author of a document, whose vector this is, is in the causal past of all bodies at `dots`."""
    reaches = {
        author: min(last, *(past.reach(dot, author) for dot in dots)) for author, last in vector.items()
    }
    return {author: reach for author, reach in reaches.items() if reach > NOTHING}


def origins(past: Past, name: str, within: Mapping[bytes, Reach]) -> list[Origin]:
    """What the field `name` held last within these reaches, in ascending order.

    Of the bodies there, those that set the field and after which none has set or deleted it. One as a rule;
    several if these did not see each other; none if it held nothing.
    """
    left = dict(within)
    known: dict[bytes, Reach] = {}  # what is in the past of the bodies found
    found: list[Origin] = []
    if not left:
        return found
    for dot, read in past.newest_first(within):
        here = dot[1:]
        if here > known.get(dot.author, NOTHING) and (told := read()) is not None:
            says = value_said(told.body.operations, name)
            if says is not None:
                found += [Origin(dot, told.hlc, value) for value in says]
                for author in left:
                    known[author] = max(known.get(author, NOTHING), past.reach(dot, author))
        left[dot.author] = _before(here)
        if all(known.get(author, NOTHING) >= reach for author, reach in left.items()):
            break
    return sorted(found, key=lambda origin: origin.order)


def _before(here: Reach) -> Reach:
    return here[0], here[1] - 1


def value_said(operations: Sequence[Operation], name: str) -> list[Any] | None:
    """What a body makes of a field: one value, none if it deletes it, None if it does not speak of it."""
    says: list[Any] | None = None
    for operation in operations:
        if operation[0] == Kind.SET and name in operation[1]:
            says = [operation[1][name]]
        elif operation[0] == Kind.DELETE:
            says = []
    return says
