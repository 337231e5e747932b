"""Random values, bodies and headers, and well-formed frames with odd things inside.

Room: hypothesis strategies only. Names and numbers come from small pools beside
wide ones, so that equal values, ties and collisions happen.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

from cbor2 import CBORSimpleValue, CBORTag, undefined
from hypothesis import strategies as st

from protocol.body import Body, Dot, Kind
from protocol.clock import HLC_MAX
from protocol.commit import NO_PREVIOUS, Dep, Header
from protocol.ids import Author, SpaceId
from tests.protocol.world import MODEL, SPACE, author_number

AUTHORS = [author_number(node, life) for node, life in ((1, 1), (1, 2), (2, 1), (3, 1))]

int64s = st.integers(-(1 << 63), (1 << 63) - 1)
# Texts that meet: equal ones, ones that only look equal, and any.
texts = st.sampled_from(["", "a", "b", "é", "e\u0301", "ẞ", "\0", "😀"]) | st.text(max_size=8)
elements = (
    st.sampled_from([0, 1, True, False, 1.0, 0.0, -0.0, 2**53, float(2**53), 2**53 + 1, None, "", "1"])
    | int64s
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    elements,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["title", "done", "tags", "count"])
set_fields = st.sampled_from(["tags", "labels"])
counter_fields = st.sampled_from(["count", "votes"])
ids = st.sampled_from(["one", "two"])
users = st.sampled_from(["", "ann", "bob"])

# Mostly the same few, so that what is added is what others have added or removed.
_few = st.sampled_from(["x", "y", 1, True])
element_lists = st.lists(_few, min_size=1, max_size=3) | st.lists(elements, min_size=1, max_size=3)

operations = st.one_of(
    st.builds(lambda v: [Kind.SET.value, v], st.dictionaries(fields, values, min_size=1, max_size=3)),
    st.builds(lambda f, e: [Kind.ADD.value, f, e], set_fields, element_lists),
    st.builds(lambda f, e: [Kind.REMOVE.value, f, e], set_fields, element_lists),
    st.builds(lambda f, d: [Kind.INCREMENT.value, f, d], counter_fields, int64s | st.integers(-3, 3)),
    st.just([Kind.DELETE.value]),
    st.just([Kind.RESTORE.value]),
)
unknown_operations = st.builds(
    lambda kind, rest: [kind, *rest],
    st.integers(7, 255).filter(lambda kind: kind not in (8, 9)),
    st.lists(values | st.binary(max_size=8), max_size=3),
)


def dots() -> st.SearchStrategy[Dot]:
    seqs = st.integers(1, 5) | st.integers(1, (1 << 63) - 1)
    return st.builds(Dot, st.sampled_from(AUTHORS), seqs, st.integers(0, 9_999))


_dot_lists = st.lists(dots(), max_size=4)


@st.composite
def contexts(draw: st.DrawFn) -> tuple[Dot, ...]:
    """What a body has seen: in the order of authors, one dot of each."""
    return tuple(sorted({dot.author: dot for dot in draw(_dot_lists)}.values()))


def bodies(*, unknown: bool = True) -> st.SearchStrategy[Body]:
    said = st.lists(operations | unknown_operations if unknown else operations, min_size=1, max_size=4)
    salts = st.binary(min_size=16, max_size=16)
    return st.builds(Body, salts, users | texts, st.just(MODEL), ids, contexts(), said)


@dataclass(frozen=True)
class Told:
    """A body with its dot and timestamp, and what its author knew: of each author the last dot."""

    dot: Dot
    hlc: int
    body: Body
    known: dict[bytes, Dot]


# Made once: making a strategy takes longer than drawing from it.
_groups = st.sampled_from([AUTHORS[:2], AUTHORS[:3], AUTHORS])
_numbers, _once_in_four, _once_in_five = st.integers(0, 11), st.integers(0, 3), st.integers(0, 4)
_hlcs = st.integers(1, 6)
_known_bodies = bodies(unknown=False)


@st.composite
def histories(draw: st.DrawFn, *, size_max: int = 10) -> list[Told]:
    """Bodies of one document by several authors who know different parts of it, each after its causes.

    Bodies of one commit share seq, timestamp and knowledge; timestamps of different authors may be equal.
    What a body names as seen may be older than what its author knows.
    """
    authors = draw(_groups)
    known: dict[bytes, dict[bytes, Dot]] = {author: {} for author in authors}
    written: list[Told] = []
    for _ in range(draw(st.integers(1, size_max))):
        author, other = authors[draw(_numbers) % len(authors)], authors[draw(_numbers) % len(authors)]
        last = next((told for told in reversed(written) if told.dot.author == author), None)
        if last is not None and draw(_once_in_four) == 0:
            dot, hlc = last.dot._replace(index=last.dot.index + 1), last.hlc
        else:
            known[author] = _later(known[author], known[other])
            dot = Dot(author, last.dot.seq + 1 if last else 1, 0)
            hlc = max(last.hlc + 1 if last else 1, draw(_hlcs))
        seen = {a: d for a, d in known[author].items() if draw(_once_in_five)}
        if written:
            stale = draw(st.sampled_from(written)).dot
            if stale < seen.get(stale.author, stale):
                seen[stale.author] = stale
        body = draw(_known_bodies)._replace(id="one", seen=tuple(sorted(seen.values())))
        written.append(Told(dot, hlc, body, dict(known[author])))
        known[author][author] = dot
    return written


def _later(one: dict[bytes, Dot], other: dict[bytes, Dot]) -> dict[bytes, Dot]:
    return one | {author: max(dot, one.get(author, dot)) for author, dot in other.items()}


def reordered(history: list[Told], random: Random) -> list[Told]:
    """The history in another order that respects causes."""
    left, order = list(history), list[Told]()
    while left:
        held = {told.dot for told in order}
        ready = [told for told in left if all(o.dot in held for o in history if _is_cause(o, told))]
        order.append(random.choice(ready))
        left.remove(order[-1])
    return order


def _is_cause(one: Told, other: Told) -> bool:
    if one.dot.author == other.dot.author:
        return one.dot < other.dot
    last = other.known.get(one.dot.author)
    return last is not None and one.dot <= last


@st.composite
def headers(draw: st.DrawFn) -> Header:
    author = draw(st.sampled_from(AUTHORS))
    others = [Author(other) for other in AUTHORS if other != author]
    places = [(False, other) for other in others] + [(True, Author(other)) for other in AUTHORS]
    named = sorted(draw(st.lists(st.sampled_from(places), unique=True, max_size=5)))
    deps = tuple(
        Dep(is_system, other, draw(st.integers(1, 9)), draw(st.binary(min_size=16, max_size=16)))
        for is_system, other in named
    )
    seq = draw(st.just(1) | st.integers(1, (1 << 63) - 1))
    previous = NO_PREVIOUS if seq == 1 else draw(st.binary(min_size=32, max_size=32).filter(any))
    hashes = draw(st.lists(st.binary(min_size=32, max_size=32), max_size=3))
    space = draw(st.just(SPACE) | st.builds(SpaceId, st.binary(min_size=16, max_size=16)))
    return Header(space, author, seq, previous, draw(st.integers(1, HLC_MAX)), deps, tuple(hashes))


# -- odd things ----------------------------------------------------------------------------------------------

# What CBOR can say and this protocol does not, beside what it does say in other places.
odd_leaves: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([True, False, None, 0, 1, 0.0, 1.0, -1, 2**63, 2**64 - 1, -(2**64), undefined, b"", ""]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0]),
    st.integers(2**64, 2**70),
    st.builds(CBORSimpleValue, st.integers(0, 19) | st.integers(32, 255)),
    st.builds(CBORTag, st.integers(0, 300), st.binary(max_size=4)),
    st.binary(max_size=48),
    st.text(max_size=300),
    st.integers(),
    st.floats(),
)
odd_values: st.SearchStrategy[Any] = st.recursive(
    odd_leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.binary(max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=8,
) | st.integers(30, 60).map(lambda depth: _nested(depth))


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def mangled(draw: st.DrawFn, whole: Any) -> Any:
    """`whole`, nested lists and maps, with one to three of its parts replaced, dropped or doubled."""
    copied = _copied(whole)
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_spots(copied))
        if not spots:
            return draw(odd_values)
        holder, key = draw(st.sampled_from(spots))
        match draw(st.sampled_from(["replace", "drop", "double", "swap", "rename"])):
            case "drop":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.insert(key, holder[key])
            case "swap" if isinstance(holder, list):
                other = draw(st.integers(0, len(holder) - 1))
                holder[key], holder[other] = holder[other], holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=300) | st.binary(max_size=3))] = holder.pop(key)
            case _:
                holder[key] = draw(odd_values)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


def _spots(value: Any) -> Any:
    if isinstance(value, list | dict):
        for key in range(len(value)) if isinstance(value, list) else list(value):
            yield value, key
            yield from _spots(value[key])
