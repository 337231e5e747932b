"""What a query selects of records, made into JSON without a resolver for each field.

Room: from rendered documents, as `services.records` keeps them, to the members that were asked for, in their order
and under their names. Types of records have no fields with arguments and none that can fail, so a selection of them
is compiled once a request and then costs a look-up for each member: a hundred records take about as long as a
resolver would for five. References are followed for all records of a level at once, each record once.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec
from graphql import FieldNode

from node.api.civicbase.graphql.schema import RecordType, Reference
from node.services.records import Rendered

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
NULL = b"null"

Row = dict[str, msgspec.Raw]
Collected = Mapping[str, Sequence[Any]]  # by response name, the nodes that select it


class Reader(Protocol):
    """Where referenced records come from."""

    def readable(self, type: RecordType, ids: Sequence[str]) -> dict[str, Rendered]:
        """Those of the records that are there and that the caller may read, by id."""

    def opened(self, type: RecordType, document: Rendered) -> Rendered:
        """A record that the caller may read, with what its key opens."""


class _Leaf(NamedTuple):
    """A member as it is stored, or the name that an option has in GraphQL."""

    source: str
    options: Mapping[bytes, bytes] | None


class _Follow(NamedTuple):
    """The record whose id a member holds."""

    source: str
    target: RecordType
    selection: "Selection"


class Selection:
    """What is selected of the records of one type."""

    def __init__(self, type: RecordType, parts: Sequence[tuple[str, bytes | _Leaf | _Follow]]) -> None:
        """`parts` are by response name, in order; bytes are the same for every record."""
        texts = [
            _encode(name) + b":" + (_escaped(part) if isinstance(part, bytes) else b"%b")
            for name, part in parts
        ]
        self._template = b"{" + b",".join(texts) + b"}"
        self._parts = [part for _, part in parts if not isinstance(part, bytes)]
        # Of members alone, which is most selections: all those of a record in one call.
        sources = [part.source for part in self._parts if isinstance(part, _Leaf) and part.options is None]
        self._plain = itemgetter(*sources) if 0 < len(sources) == len(self._parts) else None
        self.type = type
        self.follows = any(isinstance(part, _Follow) for part in self._parts)

    def render(self, documents: Sequence[Rendered], reader: Reader) -> list[bytes]:
        """The selected members of each, as JSON. Reads the records that are referred to."""
        template = self._template
        if not self._parts:
            return [template % ()] * len(documents)
        rows = [_members(document.json) for document in documents]
        if self._plain is not None:
            try:
                return [template % values for values in map(self._plain, rows)]
            except KeyError:
                pass  # a member that is there only where it says something
        columns = [self._column(part, rows, reader) for part in self._parts]
        return [template % values for values in zip(*columns, strict=True)]

    def _column(self, part: _Leaf | _Follow, rows: Sequence[Row], reader: Reader) -> Sequence[Any]:
        source = part.source
        if isinstance(part, _Follow):
            return _follow(part, [row.get(source, NULL) for row in rows], reader)
        values = [row.get(source, NULL) for row in rows]
        if part.options is None:
            return values
        options = part.options
        return [options.get(bytes(value), value) for value in values]


def _follow(part: _Follow, values: Sequence[Any], reader: Reader) -> list[bytes]:
    held = [_decode(value) for value in values]
    found = reader.readable(part.target, list(dict.fromkeys(id for id in held if id is not None)))
    shown = dict(zip(found, part.selection.render(list(found.values()), reader), strict=True))
    return [shown.get(id, NULL) for id in held]


def _escaped(constant: bytes) -> bytes:
    return constant.replace(b"%", b"%%")


def compile_selection(
    type: RecordType, collected: Collected, collect: Callable[[RecordType, Sequence[Any]], Collected]
) -> Selection:
    """The selection of fields that were collected; `collect` does so for those of a referenced record."""
    parts: list[tuple[str, bytes | _Leaf | _Follow]] = []
    for response_name, details in collected.items():
        node: FieldNode = details[0].node
        name = node.name.value
        if name == "__typename":
            parts.append((response_name, _encode(type.names.type)))
            continue
        source = type.sources[name]
        if isinstance(source, Reference):
            inner = compile_selection(source.target, collect(source.target, details), collect)
            parts.append((response_name, _Follow(source.field, source.target, inner)))
            continue
        options = type.options.get(source)
        renamed = {_encode(option): _encode(name) for option, name in options.items()} if options else None
        parts.append((response_name, _Leaf(source, renamed)))
    return Selection(type, parts)
