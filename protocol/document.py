"""One document as a CRDT: what is left alive of the bodies that made it.

Room: applying bodies, and the state's stored form. Which operations say what an
application wants is `planning`'s; which of several live values is shown is
`conflict`'s; whether a value fits its model is `schema`'s. No body is ever decoded
here and no history is kept: the signed log is the truth, a document is a cache of
it that can be rebuilt.

A document is a list of **layers**, one for each body of which something is still
alive. A register that two layers hold has two values that did not see each
other. A body supersedes, in the fields that it touches, what lives in the layers
that its `seen` covers; that is all the causality that the merge needs, so any
order that respects causes gives the same state. Sets are add-wins (an element
lives while a layer holds it); counters sum what was added, modulo 2^64.
Collaborative fields (`shared`) order their units by themselves and leave no layer.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from protocol.body import SHARED_KINDS, Dot, Kind, Operation
from protocol.clock import Hlc
from protocol.errors import Malformed
from protocol.shared import Edited, SharedField
from protocol.walk import KnownOf, Writer
from protocol.yjs_update import client_id, decode_update

Element = str | int | float | bool | None
_Key = tuple[bool, Element]
Order = tuple[Hlc, Dot]
_APART = ("is_quarantined", "shared")  # of a document's parts, what is compared apart


@dataclass(slots=True)
class Layer:
    """What is still alive of one body. Registers and sets are replaced, never changed: copies share them."""

    dot: Dot
    hlc: Hlc
    user: str
    registers: dict[str, Any]
    sets: dict[str, list[Element]] = field(default_factory=dict)
    is_delete: bool = False

    @property
    def order(self) -> Order:
        """By which values that did not see each other are compared: the largest is shown."""
        return (self.hlc, self.dot)

    @property
    def is_spent(self) -> bool:
        return not (self.registers or self.sets or self.is_delete)


class Document:
    """The live state of one document. Mutable; copy before changing one that others may hold."""

    __slots__ = (
        "counters",
        "created_hlc",
        "created_user",
        "erased_hlc",
        "id",
        "is_anew",
        "is_quarantined",
        "layers",
        "model",
        "shared",
        "updated_hlc",
        "updated_user",
        "vector",
    )

    def __init__(self, model: str, id: str) -> None:
        self.model = model
        self.id = id
        self.created_hlc: Hlc = 0
        self.created_user = ""
        self.is_anew = (
            False  # created again after it was deleted: `created` is of the newest body that did so
        )
        self.updated_hlc: Hlc = 0
        self.updated_user = ""
        self.vector: dict[bytes, tuple[int, int]] = {}  # author -> (seq, index) of its last body here
        self.layers: list[Layer] = []  # sorted by order
        self.counters: dict[str, int] = {}
        self.shared: dict[tuple[int, str], SharedField] = {}  # collaborative fields, by kind and name
        self.is_quarantined = False  # by this node alone: contents of its collaborative fields are not merged
        self.erased_hlc: Hlc = 0  # of the first erasure; such a document holds nothing else

    def __eq__(self, other: object) -> bool:
        """Whether both are of the same applied bodies.

        That one of them is quarantined makes no difference, nor does ballast that only one of them has.
        """
        return (
            isinstance(other, Document)
            and all(getattr(self, s) == getattr(other, s) for s in self.__slots__ if s not in _APART)
            and self._edited() == other._edited()
        )

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _edited(self) -> dict[tuple[int, str], SharedField]:
        """Collaborative fields that something was ever said of which counts."""
        return {key: field for key, field in self.shared.items() if field.edited.hlc}

    def __repr__(self) -> str:
        return f"Document({self.model}/{self.id} {self.vector} {self.layers} {self.counters})"

    def copy(self) -> "Document":
        """A document that can be changed without this one. What its layers hold is shared."""
        other = Document(self.model, self.id)
        other.created_hlc, other.created_user = self.created_hlc, self.created_user
        other.is_anew = self.is_anew
        other.updated_hlc, other.updated_user = self.updated_hlc, self.updated_user
        other.vector = dict(self.vector)
        other.layers = [Layer(x.dot, x.hlc, x.user, x.registers, x.sets, x.is_delete) for x in self.layers]
        other.counters = dict(self.counters)
        other.shared, other.is_quarantined = dict(self.shared), self.is_quarantined
        other.erased_hlc = self.erased_hlc
        return other

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether anything was written here that no delete hides. A delete wins over concurrent updates."""
        for layer in self.layers:
            if layer.is_delete:
                return False
        return bool(self.vector)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to be kept of it."""
        return not (self.vector or self.shared or self.is_quarantined or self.erased_hlc)

    @property
    def is_erased(self) -> bool:
        """Whether it is gone for good: whatever else is said of it, then or later, is dropped."""
        return self.erased_hlc > 0

    @property
    def is_broken(self) -> bool:
        """Whether it may not be shown, because the contents of a collaborative field are not to be had."""
        return self.is_quarantined or any(field.is_broken for field in self.shared.values())

    @property
    def version(self) -> str:
        """A short opaque name of this state: equal on every node that has integrated the same bodies."""
        parts = [
            author + seq.to_bytes(8, "big") + index.to_bytes(4, "big")
            for author, (seq, index) in sorted(self.vector.items())
        ]
        return sha256(b"civicnode version 1\0" + b"".join(parts)).hexdigest()[:16]

    def values(self) -> dict[str, Any]:
        """The shown value of every field: the latest register, the union of a set, the sum of a counter,
        the text or list of a collaborative field.

        In one order on every node. A name that bodies use for several of these, which no model does, shows
        the last of them.
        """
        return self.shown()[0]

    def shown(self) -> tuple[dict[str, Any], bool]:
        """`values`, and whether any register has several of them."""
        shown: dict[str, Any] = {}
        names: dict[str, None] = {}
        held = 0
        for layer in self.layers:  # ascending, so the largest order is written last
            registers = layer.registers
            shown.update(registers)
            held += len(registers)
            if layer.sets:
                names.update(dict.fromkeys(layer.sets))
        is_contested = held > len(shown)
        for name in names:
            shown[name] = self.elements(name)
        for name in sorted(self.counters):
            shown[name] = self.counters[name]
        for kind, name in sorted(self.shared):
            if value := self.shared[kind, name].shown:
                shown[name] = value
        return shown, is_contested

    def elements(self, name: str) -> list[Element]:
        """The elements of a set, each once, in the order of the layers that hold them."""
        found: dict[_Key, Element] = {}
        for layer in self.layers:
            for element in layer.sets.get(name, ()):
                found.setdefault(element_key(element), element)
        return list(found.values())

    def live_values(self, name: str) -> list[tuple[Layer, Any]]:
        """Every live value of a register, in ascending order; several did not see each other."""
        return [(layer, layer.registers[name]) for layer in self.layers if name in layer.registers]

    # -- integrating -----------------------------------------------------------------------------------------

    def fault_of(self, author: bytes, operations: Sequence[Operation], known_of: KnownOf) -> str | None:
        """The rule that an operation on a collaborative field breaks, or None: such a body is void.

        It depends on what the author had seen alone; `known_of` tells how much of other chains that is.
        """
        for operation in operations:
            if operation[0] in SHARED_KINDS:
                kind, name, n, data = operation
                update = decode_update(data, name, is_text=kind == Kind.TEXT)
                field = self._shared(kind, name)
                if fault := field.fault_of(update, self.writer(author, name, n), known_of):
                    return fault
        return None

    def writer(self, author: bytes, name: str, n: int = 0) -> Writer:
        """Who writes in a collaborative field of this document."""
        return Writer(author, n, client_id(author, self.model, self.id, name, n))

    def _shared(self, kind: int, name: str) -> SharedField:
        field = self.shared.get((kind, name))
        return SharedField(int(kind), name, is_broken=self.is_quarantined) if field is None else field

    def quarantine(self) -> None:
        """Have nothing merged in its collaborative fields from now on, on this node."""
        self.is_quarantined = True
        self.shared = {key: field.broken() for key, field in self.shared.items()}

    def apply(
        self,
        dot: Dot,
        hlc: Hlc,
        user: str,
        seen: Sequence[Dot],
        operations: Sequence[Operation],
        *,
        is_ballast: bool = False,
        known_of: KnownOf | None = None,
    ) -> None:
        """Integrate one body. Every body of a document is applied once, after its causes. Never raises.

        Its collaborative operations have no fault (`fault_of`). **As ballast** a body that counts no more
        leaves nothing but the places of what it inserted, deleted at once, so that what others wrote between
        keeps its place. `known_of` is that of `fault_of`; only forged client ids make it necessary.
        """
        if operations[0][0] == Kind.ERASE:
            self._erase(hlc)
        if self.erased_hlc:
            return
        for operation in operations:
            if operation[0] in SHARED_KINDS:
                self._share(dot, hlc, user, operation, is_ballast, known_of)
        if is_ballast:
            return
        self._note_creation(hlc, user, operations)
        if (hlc, user) >= (self.updated_hlc, self.updated_user):
            self.updated_hlc, self.updated_user = hlc, user
        last = self.vector.get(dot.author)
        if last is None or last < (dot.seq, dot.index):
            self.vector[dot.author] = (dot.seq, dot.index)
        if seen and self.layers:
            self._supersede(seen, operations)
        layer = Layer(dot, hlc, user, {})
        self._say(layer, operations)
        if not layer.is_spent:
            if not self.layers or self.layers[-1].order < layer.order:
                self.layers.append(layer)
            else:
                insort(self.layers, layer, key=_order)

    def _erase(self, hlc: Hlc) -> None:
        blank = Document(self.model, self.id)
        blank.erased_hlc = min(hlc, self.erased_hlc or hlc)
        for name in self.__slots__:
            setattr(self, name, getattr(blank, name))

    def _note_creation(self, hlc: Hlc, user: str, operations: Sequence[Operation]) -> None:
        """By whom it was created: the first body, or the last that deleted it and began it anew."""
        kinds = {operation[0] for operation in operations} if len(operations) > 1 else ()
        if Kind.DELETE in kinds and Kind.RESTORE in kinds:
            is_it = not self.is_anew or (hlc, user) > (self.created_hlc, self.created_user)
            self.is_anew = True
        else:
            is_first = not self.vector or (hlc, user) < (self.created_hlc, self.created_user)
            is_it = is_first and not self.is_anew
        if is_it:
            self.created_hlc, self.created_user = hlc, user

    def _share(
        self, dot: Dot, hlc: Hlc, user: str, operation: Operation, is_ballast: bool, known_of: KnownOf | None
    ) -> None:
        kind, name, n, data = operation
        update = decode_update(data, name, is_text=kind == Kind.TEXT)
        if is_ballast and not update.structs:
            return
        self.shared[int(kind), name] = self._shared(kind, name).applied(
            update,
            data,
            self.writer(dot.author, name, n),
            dot.seq,
            Edited(hlc, *dot, user),
            known_of=known_of,
            is_ballast=is_ballast,
        )

    def _say(self, layer: Layer, operations: Sequence[Operation]) -> None:
        """What a body leaves by itself, its operations in order."""
        sets: dict[str, dict[_Key, Element]] = {}
        for operation in operations:
            match operation[0]:
                case Kind.SET:
                    layer.registers.update(operation[1])
                case Kind.ADD:
                    held = sets.setdefault(operation[1], {})
                    for element in operation[2]:
                        held.setdefault(element_key(element), element)
                case Kind.REMOVE:
                    held = sets.get(operation[1], {})
                    for element in operation[2]:
                        held.pop(element_key(element), None)
                case Kind.INCREMENT:
                    total = self.counters.get(operation[1], 0) + operation[2]
                    self.counters[operation[1]] = wrapped(total)
                case Kind.DELETE:
                    layer.registers, sets, layer.is_delete = {}, {}, True
                case Kind.RESTORE:
                    layer.is_delete = False
        if sets:
            layer.sets = {name: list(held.values()) for name, held in sets.items() if held}

    def _supersede(self, seen: Sequence[Dot], operations: Sequence[Operation]) -> None:
        """Take out of the layers that a body has seen what it takes away.

        A body may have thousands of operations and have seen thousands of layers, so neither is gone through
        once for each of the other. The order of operations makes no difference here: all of them only take.
        """
        kinds = {operation[0] for operation in operations}
        wipes, lifts = Kind.DELETE in kinds, Kind.RESTORE in kinds
        written: set[str] = set()
        taken: dict[str, set[_Key]] = {}
        for operation in operations:
            if operation[0] == Kind.SET:
                written.update(operation[1])
            elif operation[0] in (Kind.ADD, Kind.REMOVE):
                taken.setdefault(operation[1], set()).update(map(element_key, operation[2]))
        until = {dot.author: dot for dot in seen}
        has_spent = False
        for layer in self.layers:
            last = until.get(layer.dot.author)
            if last is None or layer.dot > last:
                continue
            if wipes:
                layer.registers, layer.sets, layer.is_delete = {}, {}, False
            else:
                if layer.registers and not written.isdisjoint(layer.registers):
                    layer.registers = {name: v for name, v in layer.registers.items() if name not in written}
                if layer.sets and taken and _holds_any(layer, taken):
                    layer.sets = _without(layer, taken)
                if lifts:
                    layer.is_delete = False
            if not (layer.registers or layer.sets or layer.is_delete):
                has_spent = True
        if has_spent:
            self.layers = [layer for layer in self.layers if not layer.is_spent]

    # -- stored form -----------------------------------------------------------------------------------------

    def to_state(self, number_of: Callable[[bytes], int]) -> list[Any]:
        """The state as one plain list, authors replaced by the store's own numbers for them.

        Created hlc, created user, updated hlc or 0, updated user or 0, vector, counters or 0, layers;
        vector [number, seq, index, …], or 0 where it says the same as the only layer's dot;
        in place of counters, if there are collaborative fields: [counters, 1 if quarantined + 2 if created anew,
        field …];
        a layer is 8 items more: number, seq, index, hlc or 0 for created, user or 0 for created, registers,
        sets or 0, is delete. A flat list is encoded in half the time that a tree takes.
        Of an erased document there is the hlc of its erasure alone.
        """
        if self.erased_hlc:
            return [self.erased_hlc]
        layers, vector = self.layers, self.vector
        state: list[Any] = [
            self.created_hlc,
            self.created_user,
            0 if self.updated_hlc == self.created_hlc else self.updated_hlc,
            0 if self.updated_user == self.created_user else self.updated_user,
            0,
            self.counters or 0,
        ]
        if self.shared or self.is_quarantined or self.is_anew:
            fields = [self.shared[key].to_state(number_of) for key in sorted(self.shared)]
            state[5] = [self.counters, int(self.is_quarantined) | self.is_anew << 1, *fields]
        if not (len(layers) == 1 == len(vector) and vector.get(layers[0].dot.author) == layers[0].dot[1:]):
            state[4] = [part for author, last in vector.items() for part in (number_of(author), *last)]
        for x in layers:
            state += (
                number_of(x.dot.author),
                x.dot.seq,
                x.dot.index,
                0 if x.hlc == self.created_hlc else x.hlc,
                0 if x.user == self.created_user else x.user,
                x.registers,
                x.sets or 0,
                int(x.is_delete),
            )
        return state

    @classmethod
    def from_state(
        cls, model: str, id: str, state: list[Any], author_of: Callable[[int], bytes]
    ) -> "Document":
        """The document of a stored state. Raises `Malformed` if it has not the form that `to_state` gives."""
        try:
            if len(state) == 1:
                document = cls(model, id)
                document._erase(state[0])
                return document
            created_hlc, created_user, updated_hlc, updated_user, vector, counters = state[:6]
            document = cls(model, id)
            document.created_hlc, document.created_user = created_hlc, created_user
            document.updated_hlc = updated_hlc or created_hlc
            document.updated_user = created_user if updated_user == 0 else updated_user
            for start in range(6, len(state), 8):
                n, seq, index, hlc, user, registers, sets, is_delete = state[start : start + 8]
                dot, user = Dot(author_of(n), seq, index), created_user if user == 0 else user
                document.layers.append(
                    Layer(dot, hlc or created_hlc, user, dict(registers), dict(sets or ()), bool(is_delete))
                )
            if vector == 0:
                vector = state[6:9]
            for start in range(0, len(vector), 3):
                n, seq, index = vector[start : start + 3]
                document.vector[author_of(n)] = (seq, index)
            if type(counters) is list:
                counters, marks, *fields = counters
                document.is_quarantined, document.is_anew = bool(marks & 1), bool(marks & 2)
                shared = [SharedField.from_state(field, author_of) for field in fields]
                document.shared = {(field.kind, field.name): field for field in shared}
            document.counters = dict(counters or ())
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise Malformed("a stored document that is not of its form") from error
        return document


def _order(layer: Layer) -> Order:
    return layer.order


def wrapped(number: int) -> int:
    """`number` as a signed 64-bit one, modulo 2^64: addition that no order of summands can make overflow."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def element_key(element: Element) -> _Key:
    """Identity of a set's element: `true` is not 1, while 1 and 1.0 are one element."""
    return (isinstance(element, bool), element)


def _holds_any(layer: Layer, taken: dict[str, set[_Key]]) -> bool:
    for name, held in layer.sets.items():
        keys = taken.get(name)
        if keys is not None:
            for element in held:
                if element_key(element) in keys:
                    return True
    return False


def _without(layer: Layer, taken: dict[str, set[_Key]]) -> dict[str, list[Element]]:
    sets = {
        name: [e for e in held if element_key(e) not in taken.get(name, ())]
        for name, held in layer.sets.items()
    }
    return {name: held for name, held in sets.items() if held}
