"""One document as a CRDT: what is left alive of the bodies that made it.

Room: applying bodies, planning operations, and the state's stored form. Which of
several live values is shown is `conflict`'s; whether a value fits its model is
`schema`'s. No body is ever decoded here and no history is kept: the signed log
is the truth, a document is a cache of it that can be rebuilt.

A document is a list of **layers**, one for each body of which something is still
alive. A register that two layers hold has two values that did not see each
other. A body supersedes, in the fields that it touches, what lives in the layers
whose dots it has `seen`; that is all the causality that the merge needs, so any
order that respects causes gives the same state. Sets are add-wins (an element
lives while a layer holds it); counters sum what each author added.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from protocol.body import Dot, Kind, Operation
from protocol.clock import Hlc
from protocol.errors import Malformed

Element = str | int | float | bool | None


class Order(NamedTuple):
    """The total order in which values that did not see each other are compared: the largest is shown."""

    hlc: Hlc
    author: bytes
    seq: int
    index: int


@dataclass(slots=True)
class Layer:
    """What is still alive of one body."""

    dot: Dot
    hlc: Hlc
    user: str
    registers: dict[str, Any]
    sets: dict[str, list[Element]] = field(default_factory=dict)
    is_delete: bool = False

    @property
    def order(self) -> Order:
        return Order(self.hlc, *self.dot)

    @property
    def is_spent(self) -> bool:
        return not (self.registers or self.sets or self.is_delete)


class Document:
    """The live state of one document. Mutable; copy before changing one that others may hold."""

    __slots__ = ("counters", "created_hlc", "created_user", "id", "layers", "model", "updated_hlc", "updated_user",
                 "vector")  # fmt: skip

    def __init__(self, model: str, id: str) -> None:
        self.model = model
        self.id = id
        self.created_hlc: Hlc = 0
        self.created_user = ""
        self.updated_hlc: Hlc = 0
        self.updated_user = ""
        self.vector: dict[bytes, tuple[int, int]] = {}  # author -> (seq, index) of its last body here
        self.layers: list[Layer] = []  # sorted by order
        self.counters: dict[str, dict[bytes, int]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and all(getattr(self, s) == getattr(other, s) for s in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Document({self.model}/{self.id} {self.vector} {self.layers} {self.counters})"

    def copy(self) -> "Document":
        other = Document(self.model, self.id)
        for slot in ("created_hlc", "created_user", "updated_hlc", "updated_user"):
            setattr(other, slot, getattr(self, slot))
        other.vector = dict(self.vector)
        other.layers = [
            Layer(x.dot, x.hlc, x.user, dict(x.registers), {k: list(v) for k, v in x.sets.items()}, x.is_delete)
            for x in self.layers
        ]
        other.counters = {name: dict(parts) for name, parts in self.counters.items()}
        return other

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether anything was ever written here that a delete does not hide. Delete wins over concurrent updates."""
        return bool(self.vector) and not any(layer.is_delete for layer in self.layers)

    @property
    def version(self) -> str:
        """A short opaque name of this state: equal on every node that has integrated the same bodies."""
        parts = [
            author + seq.to_bytes(8, "big") + index.to_bytes(4, "big")
            for author, (seq, index) in sorted(self.vector.items())
        ]
        return sha256(b"civicnode version 1\0" + b"".join(parts)).hexdigest()[:16]

    def values(self) -> dict[str, Any]:
        """The shown value of every field: the latest register, the union of a set, the sum of a counter."""
        layers = self.layers
        if len(layers) == 1 and not layers[0].sets and not self.counters:
            return dict(layers[0].registers)
        shown: dict[str, Any] = {}
        for layer in layers:  # ascending, so the largest order is written last
            shown.update(layer.registers)
        for layer in layers:
            for name, elements in layer.sets.items():
                known = shown.setdefault(name, [])
                keys = {element_key(e) for e in known}
                known.extend(e for e in elements if element_key(e) not in keys)
        for name, parts in self.counters.items():
            shown[name] = sum(parts.values())
        return shown

    def live_values(self, name: str) -> list[tuple[Layer, Any]]:
        """Every live value of a register, oldest order first; more than one means that they did not see each other."""
        return [(layer, layer.registers[name]) for layer in self.layers if name in layer.registers]

    def live_dots(self) -> tuple[Dot, ...]:
        """All that a write which has seen this state names as seen."""
        return tuple(layer.dot for layer in self.layers)

    # -- integrating -----------------------------------------------------------------------------------------

    def apply(self, dot: Dot, hlc: Hlc, user: str, seen: Iterable[Dot], operations: Iterable[Operation]) -> None:
        """Integrate one body. Every body of a document is applied once, after its causes. Never raises."""
        if not self.vector or (hlc, user) < (self.created_hlc, self.created_user):
            self.created_hlc, self.created_user = hlc, user
        if (hlc, user) >= (self.updated_hlc, self.updated_user):
            self.updated_hlc, self.updated_user = hlc, user
        last = self.vector.get(dot.author)
        if last is None or last < (dot.seq, dot.index):
            self.vector[dot.author] = (dot.seq, dot.index)
        layer = Layer(dot, hlc, user, {})
        seen_layers = [x for x in self.layers if x.dot in seen] if seen and self.layers else []
        for operation in operations:
            match operation[0]:
                case Kind.SET:
                    values: dict[str, Any] = operation[1]
                    for old in seen_layers:
                        for name in old.registers.keys() & values.keys():
                            del old.registers[name]
                    layer.registers.update(values)
                case Kind.ADD:
                    _take_out(seen_layers, operation[1], operation[2])
                    _put_in(layer, operation[1], operation[2])
                case Kind.REMOVE:
                    _take_out([*seen_layers, layer], operation[1], operation[2])
                case Kind.INCREMENT:
                    parts = self.counters.setdefault(operation[1], {})
                    parts[dot.author] = parts.get(dot.author, 0) + operation[2]
                case Kind.DELETE:
                    for old in seen_layers:
                        old.registers, old.sets, old.is_delete = {}, {}, False
                    layer.is_delete = True
                case Kind.RESTORE:
                    for old in [*seen_layers, layer]:
                        old.is_delete = False
        if seen_layers:
            self.layers = [x for x in self.layers if not x.is_spent]
        if not layer.is_spent:
            self.layers.append(layer)
            if len(self.layers) > 1 and self.layers[-2].order > layer.order:
                self.layers.sort(key=lambda x: x.order)

    # -- stored form -----------------------------------------------------------------------------------------

    def to_state(self, number_of: Callable[[bytes], int]) -> list[Any]:
        """The state as plain arrays, authors replaced by the store's own numbers for them.

        [created hlc, created user, updated hlc or 0, updated user or 0, vector, layers, counters or 0]
        vector [number, seq, index, …]; 0 where it says the same as the only layer's dot
        layer [number, seq, index, hlc or 0 for created, user or 0 for created, registers, sets or 0, is delete]
        """
        layers = [
            [
                number_of(x.dot.author), x.dot.seq, x.dot.index,
                0 if x.hlc == self.created_hlc else x.hlc,
                0 if x.user == self.created_user else x.user,
                x.registers, x.sets or 0, int(x.is_delete),
            ]
            for x in self.layers
        ]  # fmt: skip
        vector: Any = 0
        if len(self.layers) != 1 or self.vector != {self.layers[0].dot.author: self.layers[0].dot[1:]}:
            vector = [part for author, (seq, index) in self.vector.items() for part in (number_of(author), seq, index)]
        counters: Any = {
            name: [part for author, total in parts.items() for part in (number_of(author), total)]
            for name, parts in self.counters.items()
        }
        return [
            self.created_hlc, self.created_user,
            0 if self.updated_hlc == self.created_hlc else self.updated_hlc,
            0 if self.updated_user == self.created_user else self.updated_user,
            vector, layers, counters or 0,
        ]  # fmt: skip

    @classmethod
    def from_state(cls, model: str, id: str, state: list[Any], author_of: Callable[[int], bytes]) -> "Document":
        """The document of a stored state. Raises `Malformed` if it has not the form that `to_state` gives."""
        try:
            created_hlc, created_user, updated_hlc, updated_user, vector, layers, counters = state
            document = cls(model, id)
            document.created_hlc, document.created_user = created_hlc, created_user
            document.updated_hlc, document.updated_user = updated_hlc or created_hlc, updated_user or created_user
            document.layers = [
                Layer(Dot(author_of(n), seq, i), hlc or created_hlc, user or created_user, regs, sets or {}, bool(gone))
                for n, seq, i, hlc, user, regs, sets, gone in layers
            ]
            if vector:
                document.vector = {author_of(n): (seq, i) for n, seq, i in _by(vector, 3)}
            else:
                document.vector = {x.dot.author: (x.dot.seq, x.dot.index) for x in document.layers}
            if counters:
                document.counters = {
                    name: {author_of(n): total for n, total in _by(parts, 2)} for name, parts in counters.items()
                }
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise Malformed("a stored document that is not of its form") from error
        return document


def element_key(element: Element) -> tuple[bool, Element]:
    """Identity of a set's element: `true` is not 1, while 1 and 1.0 are one element."""
    return (isinstance(element, bool), element)


def _take_out(layers: Iterable[Layer], name: str, elements: Iterable[Element]) -> None:
    gone = {element_key(e) for e in elements}
    for layer in layers:
        if name in layer.sets:
            layer.sets[name] = [e for e in layer.sets[name] if element_key(e) not in gone]
            if not layer.sets[name]:
                del layer.sets[name]


def _put_in(layer: Layer, name: str, elements: Iterable[Element]) -> None:
    held = layer.sets.setdefault(name, [])
    keys = {element_key(e) for e in held}
    for element in elements:
        key = element_key(element)
        if key not in keys:
            keys.add(key)
            held.append(element)


def _by(flat: list[Any], width: int) -> Iterable[tuple[Any, ...]]:
    return zip(*(flat[offset::width] for offset in range(width)), strict=True)


# -- planning: from the values that an application wants to the operations that say so ------------------------------


class Plan(NamedTuple):
    """Operations of one body, and the dots that they supersede."""

    seen: tuple[Dot, ...]
    operations: list[Operation]


def plan_write(current: Document | None, values: Mapping[str, Any], *, sets: Iterable[str] = (),
               counters: Iterable[str] = ()) -> Plan:
    """Operations that make `values` the shown ones. `current` is the state that the writer has seen.

    A set is given whole, and becomes the additions and removals that lead there; a counter is given as its new
    total, and becomes a difference. Writing to a deleted document brings it back with just these values.
    """
    registers = {name: value for name, value in values.items() if name not in sets and name not in counters}
    operations: list[Operation] = [[Kind.SET.value, registers]] if registers else []
    if current is None or not current.vector:
        operations += [[Kind.ADD.value, name, values[name]] for name in sets if values.get(name)]
        operations += [[Kind.INCREMENT.value, name, values[name]] for name in counters if values.get(name)]
        return Plan((), operations or [[Kind.RESTORE.value]])
    shown = current.values()
    if not current.exists:
        operations = [[Kind.DELETE.value], [Kind.RESTORE.value], *operations]
        operations += [[Kind.ADD.value, name, values[name]] for name in sets if values.get(name)]
        totals = {name: values.get(name) or 0 for name in counters}
        operations += [[Kind.INCREMENT.value, n, d] for n, t in totals.items() if (d := t - shown.get(n, 0))]
        return Plan(current.live_dots(), operations)
    touched: set[str] = set(registers)
    for name in sets:
        if name in values:
            wanted, held = values[name] or [], shown.get(name, [])
            wanted_keys, held_keys = {element_key(e) for e in wanted}, {element_key(e) for e in held}
            added = [e for e in wanted if element_key(e) not in held_keys]
            removed = [e for e in held if element_key(e) not in wanted_keys]
            operations += [[Kind.ADD.value, name, added]] if added else []
            operations += [[Kind.REMOVE.value, name, removed]] if removed else []
            touched |= {name} if removed else set()
    for name in counters:
        if name in values and (delta := (values[name] or 0) - shown.get(name, 0)):
            operations.append([Kind.INCREMENT.value, name, delta])
    seen = tuple(x.dot for x in current.layers if not touched.isdisjoint(x.registers) or not touched.isdisjoint(x.sets))
    return Plan(seen, operations)


def plan_delete(current: Document) -> Plan:
    """Operations that delete what is there now; what others write meanwhile stays visible as a conflict."""
    return Plan(current.live_dots(), [[Kind.DELETE.value]])
