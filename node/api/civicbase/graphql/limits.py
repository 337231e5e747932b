"""What a GraphQL document may cost, found out before it is validated or run.

Room: bounds, and one walk over a document that costs no more than the document is long: what a fragment adds up to is
worked out once, however often it is spread. Validation compares fields with one another and execution reads
records, so both get only what is within bounds.

The cost of a root field is the number of records that it may read: of a list `per_page`, of one record 1, times one
more than the objects that are selected below it, since each may be a record of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from protocol.query import PER_PAGE_DEFAULT, PER_PAGE_MAX

QUERY_MAX_CHARS = 50_000
TOKENS_MAX = 2_000
DEPTH_MAX = 10
INTROSPECTION_DEPTH_MAX = 20  # the usual introspection query has 13
ALIASES_MAX = 30
ROOT_FIELDS_MAX = 20
SELECTIONS_MAX = 600  # fields and spreads, those of fragments counted wherever they are spread
COST_MAX = 5_000  # records
REPEATS_MAX = 30  # of one response name beside another of it, which validation compares pair by pair
SPREADS_MAX = 50  # of fragments, which it compares as well
VALUES_MAX = 12_000  # in variables, all levels together: a set holds 10,000
OPERATIONS_MAX = 50
_INTROSPECTION = ("__schema", "__type")


class _Size(NamedTuple):
    """What a selection set adds up to, fragments included."""

    depth: int = 0
    selections: int = 0
    aliases: int = 0
    objects: int = 0
    repeats: int = 0
    spreads: int = 0
    introspects: bool = False

    def plus(self, other: "_Size") -> "_Size":
        """Both, side by side."""
        return _Size(
            max(self.depth, other.depth),
            self.selections + other.selections,
            self.aliases + other.aliases,
            self.objects + other.objects,
            self.repeats + other.repeats,
            self.spreads + other.spreads,
            self.introspects or other.introspects,
        )


@dataclass(slots=True)
class Operation:
    """One operation of a document. `roots` are its root fields, with the objects selected below each."""

    node: OperationDefinitionNode
    roots: list[tuple[FieldNode, int]] = field(default_factory=list)
    introspects: bool = False


def measure(document: DocumentNode) -> list[Operation]:
    """The operations of a document that keeps within bounds. Raises `GraphQLError`."""
    try:
        return _Measure(document).operations()
    except RecursionError:
        raise GraphQLError("The fragments of the document are nested too deeply") from None


def cost(operation: Operation, lists: Iterable[str], variables: Mapping[str, Any]) -> int:
    """How many records an operation may read; `lists` are the root fields that have pages."""
    defaults = {d.variable.name.value: d.default_value for d in operation.node.variable_definitions or ()}
    known = frozenset(lists)
    total = 0
    for node, objects in operation.roots:
        rows = _per_page(node, variables, defaults) if node.name.value in known else 1
        total += rows * (1 + objects)
    return total


def check_cost(operation: Operation, lists: Iterable[str], variables: Mapping[str, Any]) -> None:
    """Raises `GraphQLError` if the operation may read too much."""
    found = cost(operation, lists, variables)
    if found > COST_MAX:
        raise GraphQLError(
            f"This may read {found} records, and {COST_MAX} are allowed: ask for fewer, or for smaller pages"
        )


def check_variables(variables: Mapping[str, Any]) -> None:
    """Raises `GraphQLError` if there are more values than can be looked at in a moment."""
    waiting: list[Any] = list(variables.values())
    count = 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        if count + len(waiting) > VALUES_MAX:
            raise GraphQLError(f"The variables may hold {VALUES_MAX} values at most")


def _per_page(node: FieldNode, variables: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    given: Any = next((a.value for a in node.arguments or () if a.name.value == "per_page"), None)
    if isinstance(given, VariableNode):
        name = given.name.value
        given = variables[name] if name in variables else defaults.get(name)
    if isinstance(given, IntValueNode):
        given = int(given.value[:12])
    is_number = isinstance(given, int) and not isinstance(given, bool)
    return min(max(given, 0), PER_PAGE_MAX) if is_number else PER_PAGE_DEFAULT  # beyond it, it is refused


class _Measure:
    def __init__(self, document: DocumentNode) -> None:
        self._document = document
        self._fragments = {
            d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)
        }
        self._sizes: dict[str, _Size | None] = {}  # None while it is worked out

    def operations(self) -> list[Operation]:
        nodes = [node for node in self._document.definitions if isinstance(node, OperationDefinitionNode)]
        if len(nodes) > OPERATIONS_MAX:
            raise GraphQLError(f"A document may hold {OPERATIONS_MAX} operations at most")
        for name in self._fragments:  # those that nothing spreads are validated as well
            self._fragment(name)
        total = _Size()
        for node in nodes:
            total = total.plus(self._size(node.selection_set))
        _bound("fields and spreads", total.selections, SELECTIONS_MAX, None)
        _bound("repeated fields", total.repeats, REPEATS_MAX, None)
        _bound("spreads of fragments", total.spreads, SPREADS_MAX, None)
        return [self._operation(node) for node in nodes]

    def _operation(self, node: OperationDefinitionNode) -> Operation:
        size = self._size(node.selection_set)
        deepest = INTROSPECTION_DEPTH_MAX if size.introspects else DEPTH_MAX
        _bound("levels", size.depth, deepest, node)
        _bound("aliases", size.aliases, ALIASES_MAX, node)
        roots: list[tuple[FieldNode, int]] = []
        self._add_roots(node.selection_set, roots)
        _bound("root fields", len(roots), ROOT_FIELDS_MAX, node)
        if size.introspects:
            plain = [self._field(root).depth for root, _ in roots if root.name.value not in _INTROSPECTION]
            _bound("levels", max(plain, default=0), DEPTH_MAX, node)
        return Operation(node, roots, size.introspects)

    def _add_roots(self, selection_set: SelectionSetNode, roots: list[tuple[FieldNode, int]]) -> None:
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                below = selection.selection_set
                roots.append((selection, 0 if below is None else self._size(below).objects))
            elif isinstance(selection, InlineFragmentNode):
                self._add_roots(selection.selection_set, roots)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value in self._fragments:
                self._add_roots(self._fragments[selection.name.value].selection_set, roots)

    def _size(self, selection_set: SelectionSetNode) -> _Size:
        size = _Size(repeats=_repeats(selection_set))
        for selection in selection_set.selections:
            size = size.plus(self._part(selection))
        return size

    def _part(self, selection: Node) -> _Size:
        if isinstance(selection, FieldNode):
            return self._field(selection)
        if isinstance(selection, InlineFragmentNode):
            part = self._size(selection.selection_set)
            own = _repeats(selection.selection_set)  # these are counted around it
            return part._replace(selections=part.selections + 1, repeats=part.repeats - own)
        assert isinstance(selection, FragmentSpreadNode)
        part = self._fragment(selection.name.value)
        return part._replace(selections=part.selections + 1, spreads=part.spreads + 1)

    def _field(self, node: FieldNode) -> _Size:
        below = _Size() if node.selection_set is None else self._size(node.selection_set)
        return below._replace(
            depth=below.depth + 1,
            selections=below.selections + 1,
            aliases=below.aliases + (node.alias is not None),
            objects=below.objects + (node.selection_set is not None),
            introspects=below.introspects or node.name.value in _INTROSPECTION,
        )

    def _fragment(self, name: str) -> _Size:
        if name not in self._fragments:
            return _Size()  # validation says so
        if name in self._sizes:
            known = self._sizes[name]
            if known is None:
                raise GraphQLError(f"Cannot spread fragment '{name}' within itself.", self._fragments[name])
            return known
        self._sizes[name] = None
        size = self._size(self._fragments[name].selection_set)
        _bound("fields and spreads in a fragment", size.selections, SELECTIONS_MAX, self._fragments[name])
        self._sizes[name] = size
        return size


def _fields_of(selection_set: SelectionSetNode) -> Iterator[FieldNode]:
    """The fields of a selection set, those of inline fragments too."""
    for selection in selection_set.selections:
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, InlineFragmentNode):
            yield from _fields_of(selection.selection_set)


def _repeats(selection_set: SelectionSetNode) -> int:
    """How many of its fields have a name in the answer that another one before has too."""
    names = [(node.alias or node.name).value for node in _fields_of(selection_set)]
    return len(names) - len(set(names))


def _bound(what: str, found: int, most: int, node: Node | None) -> None:
    if found > most:
        raise GraphQLError(f"The document has {found} {what}, and {most} are allowed", node)
