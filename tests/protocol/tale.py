"""Histories that were made up, as the search for common ancestors reads them, and a second opinion on it.

Room: `Tale` is a `protocol.ancestor.Past` over a list of bodies. `ancestry` finds
what came before by sets of bodies, looking at every pair of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from protocol import ancestor
from protocol.ancestor import NOTHING, Past, Reach
from protocol.body import Dot, Kind
from protocol.document import Document
from tests.protocol.strategies import Told


class Tale:
    """`history` is in an order that respects causes: the order of arrival."""

    def __init__(self, history: Sequence[Told]) -> None:
        self._history = history
        self._by_dot = {told.dot: told for told in history}
        self.reads = 0  # bodies that were read

    def reach(self, dot: Dot, author: bytes) -> Reach:
        if dot.author == author:
            return dot.seq, dot.index - 1
        known = self._by_dot[dot].known.get(author)
        return known[1:] if known is not None else NOTHING

    def newest_first(
        self, within: Mapping[bytes, Reach]
    ) -> Iterator[tuple[Dot, Callable[[], ancestor.Told | None]]]:
        for told in reversed(self._history):
            if told.dot[1:] <= within.get(told.dot.author, NOTHING):
                yield told.dot, lambda told=told: self._read(told)  # type: ignore[misc]

    def origins_of(self, name: str, dots: Sequence[Dot]) -> list[ancestor.Origin]:
        vector: dict[bytes, Reach] = {}
        for told in self._history:
            vector[told.dot.author] = max(told.dot[1:], vector.get(told.dot.author, NOTHING))
        return ancestor.origins(self, name, ancestor.common(self, vector, dots))

    def _read(self, told: Told) -> ancestor.Told:
        self.reads += 1
        return ancestor.Told(told.dot, told.hlc, told.body)


def past_of(history: Sequence[Told]) -> Callable[[Document], Past]:
    return lambda document: Tale(history)


def before(told: Told, history: Sequence[Told]) -> set[Dot]:
    """Everything in the causal past of a body, itself left out."""
    return {
        other.dot
        for other in history
        if (other.dot.author == told.dot.author and other.dot < told.dot)
        or ((known := told.known.get(other.dot.author)) is not None and other.dot <= known)
    }


def ancestry(history: Sequence[Told], name: str, dots: Sequence[Dot]) -> dict[Dot, object]:
    """What the field held before the bodies at `dots` parted, by the bodies that set it."""
    by_dot = {told.dot: told for told in history}
    common = set.intersection(*(before(by_dot[dot], history) for dot in dots))
    speaking = [by_dot[dot] for dot in common if _speaks(by_dot[dot], name)]
    last = [one for one in speaking if not any(one.dot in before(other, history) for other in speaking)]
    found: dict[Dot, object] = {}
    for told in last:
        for operation in told.body.operations:
            if operation[0] == Kind.SET and name in operation[1]:
                found[told.dot] = operation[1][name]
            elif operation[0] == Kind.DELETE:
                found.pop(told.dot, None)
    return found


def _speaks(told: Told, name: str) -> bool:
    return any(
        operation[0] == Kind.DELETE or (operation[0] == Kind.SET and name in operation[1])
        for operation in told.body.operations
    )
