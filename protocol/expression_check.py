"""Whether an expression can be meant: names, functions and kinds of values, every fault at once.

Room: what is said to someone who defines a model. It never decides a verdict: an expression that is stored already
is evaluated as it stands, whatever would be said of it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from protocol.expression import FUNCTIONS, METHODS
from protocol.expression_text import (
    Binary,
    Call,
    Choice,
    Index,
    Listed,
    Literal,
    Member,
    Name,
    Node,
    Quantified,
    Unary,
)
from protocol.schema_check import compile_pattern
from protocol.schema_field import PATTERN_SIZE_MAX, Field, FieldType
from protocol.times import normal_date, normal_datetime


class Kind(Enum):
    """What is known of a value before there is one. The value of each is its name in a sentence."""

    ANY = "a value"
    NULL = "null"
    BOOLEAN = "a boolean"
    NUMBER = "a number"
    TEXT = "a string"
    DATE = "a date"
    DATETIME = "a date and time"
    LIST = "a list"
    OBJECT = "an object"


class Type(NamedTuple):
    """A kind; of an object whose members are known, these; of an enum field, its options."""

    kind: Kind
    members: "Mapping[str, Type] | None" = None
    options: tuple[str, ...] = ()


ANY = Type(Kind.ANY)
BOOLEAN = Type(Kind.BOOLEAN)
NUMBER = Type(Kind.NUMBER)
TEXT = Type(Kind.TEXT)
DATETIME = Type(Kind.DATETIME)
LIST = Type(Kind.LIST)
_DATE = Type(Kind.DATE)
_OPEN = frozenset({Kind.ANY, Kind.NULL})
_TEXTS = frozenset({Kind.TEXT, Kind.DATE, Kind.DATETIME})
_OF_FIELDS = {
    FieldType.INTEGER: NUMBER,
    FieldType.NUMBER: NUMBER,
    FieldType.COUNTER: NUMBER,
    FieldType.BOOLEAN: BOOLEAN,
    FieldType.DATE: _DATE,
    FieldType.DATETIME: DATETIME,
    FieldType.JSON: ANY,
    FieldType.SET: LIST,
    FieldType.ARRAY: LIST,
    FieldType.FILE: ANY,
}
_RESULTS = {
    "size": NUMBER,
    "has": BOOLEAN,
    "date": _DATE,
    "datetime": DATETIME,
    "addDays": ANY,
    "addSeconds": DATETIME,
    "lower": TEXT,
    "upper": TEXT,
    "trim": TEXT,
}


def type_of_field(field: Field) -> Type:
    """What a field's values are, to an expression."""
    return Type(Kind.TEXT, options=field.options) if field.options else _OF_FIELDS.get(field.type, TEXT)


def faults_of(node: Node, names: Mapping[str, Type]) -> list[str]:
    """What is wrong with a condition over `names`: each fault with its place."""
    check = _Check(dict(names))
    check.condition(node, "the expression")
    return [f"at {at + 1}: {what}" for at, what in sorted(check.faults)]


@dataclass(slots=True)
class _Check:
    names: dict[str, Type]
    faults: list[tuple[int, str]] = field(default_factory=list)

    def fault(self, node: Node, what: str) -> Type:
        self.faults.append((node.at, what))
        return ANY

    def condition(self, node: Node, what: str) -> Type:
        found = self.type_of(node)
        if found.kind not in _OPEN and found.kind is not Kind.BOOLEAN:
            self.fault(node, f"{what} must be true or false, not {found.kind.value}")
        return BOOLEAN

    def wanted(self, node: Node, kinds: frozenset[Kind], what: str) -> Type:
        found = self.type_of(node)
        if found.kind not in kinds and found.kind not in _OPEN:
            self.fault(node, f"{what}, not {found.kind.value}")
        return found

    def type_of(self, node: Node) -> Type:
        match node:
            case Literal(value):
                return _type_of_literal(value)
            case Name(name):
                if name not in self.names:
                    return self.fault(node, f"there is no {name}; there is {', '.join(self.names)}")
                return self.names[name]
            case Member(of, name):
                return self._member(node, of, name)
            case Index(of, key):
                self.wanted(of, frozenset({Kind.LIST, Kind.OBJECT}), "only lists and objects have elements")
                self.wanted(key, frozenset({Kind.NUMBER, *_TEXTS}), "an element goes by a number or a string")
                return ANY
            case Listed(items):
                for item in items:
                    self.type_of(item)
                return LIST
            case Unary("!", of):
                return self.condition(of, "what ! turns around")
            case Unary(_, of):
                self.wanted(of, frozenset({Kind.NUMBER}), "- takes a number")
                return NUMBER
            case Binary(op, left, right):
                return self._binary(node, op, left, right)
            case Choice(condition, then, otherwise):
                self.condition(condition, "what stands before ?")
                first, second = self.type_of(then), self.type_of(otherwise)
                return first if first.kind is second.kind else ANY
            case Call(name, of, arguments):
                return self._call(node, name, of, arguments)
            case Quantified(kind, of, name, body):
                return self._quantified(node, kind, of, name, body)

    def _member(self, node: Node, of: Node, name: str) -> Type:
        found = self.type_of(of)
        if found.kind in _OPEN:
            return ANY
        if found.kind is not Kind.OBJECT:
            return self.fault(node, f"{found.kind.value} has no member {name}")
        if found.members is None:
            return ANY
        if name not in found.members:
            return self.fault(node, f"there is no {name} here; there is {', '.join(found.members)}")
        return found.members[name]

    def _binary(self, node: Node, op: str, left: Node, right: Node) -> Type:
        if op in ("&&", "||"):
            self.condition(left, f"what stands beside {op}")
            self.condition(right, f"what stands beside {op}")
            return BOOLEAN
        first, second = self.type_of(left), self.type_of(right)
        if op == "in":
            if second.kind in _TEXTS:
                self.fault(node, "in takes a list; for a part of a string there is contains()")
            elif second.kind not in _OPEN and second.kind not in (Kind.LIST, Kind.OBJECT):
                self.fault(node, f"in takes a list, not {second.kind.value}")
            if isinstance(right, Listed):
                for item in right.items:
                    self._comparable(item, "==", left, item, first, self.type_of(item))
            return BOOLEAN
        if op in ("==", "!="):
            self._comparable(node, op, left, right, first, second)
            return BOOLEAN
        if op in ("<", "<=", ">", ">="):
            for found in (first, second):
                if found.kind in (Kind.BOOLEAN, Kind.LIST, Kind.OBJECT, Kind.NULL):
                    self.fault(node, f"{op} does not apply to {found.kind.value}")
                    return BOOLEAN
            self._comparable(node, op, left, right, first, second)
            return BOOLEAN
        if op == "+" and first.kind in _TEXTS | _OPEN and second.kind in _TEXTS | _OPEN:
            return TEXT if _TEXTS & {first.kind, second.kind} else ANY
        for found in (first, second):
            if found.kind is not Kind.NUMBER and found.kind not in _OPEN:
                self.fault(node, f"{op} does not apply to {found.kind.value}")
                break
        return NUMBER

    def _comparable(self, node: Node, op: str, left: Node, right: Node, first: Type, second: Type) -> None:
        if first.kind in _OPEN or second.kind in _OPEN:
            return
        for literal, own, other in ((left, first, second), (right, second, first)):
            if isinstance(literal, Literal) and type(literal.value) is str:
                self._literal(node, literal.value, own, other)
        first, second = _as_compared(left, first, second), _as_compared(right, second, first)
        if first.kind is not second.kind:
            self.fault(node, f"{op} compares {first.kind.value} with {second.kind.value}")

    def _literal(self, node: Node, text: str, own: Type, other: Type) -> None:
        if other.options and text not in other.options:
            self.fault(node, f"{text} is none of the options: {', '.join(other.options)}")
        if other.kind is Kind.DATE and normal_date(text) is None:
            self.fault(node, "a date is written YYYY-MM-DD")
        if other.kind is Kind.DATETIME and normal_datetime(text) != text:
            self.fault(node, 'a date and time is written datetime("2023-12-31T23:59:00Z")')

    def _call(self, node: Node, name: str, of: Node | None, arguments: tuple[Node, ...]) -> Type:
        known = FUNCTIONS if of is None else METHODS
        given = len(arguments) + (of is not None)
        if name not in known:
            named = f"function {name}" if of is None else f"method {name}"
            for part in arguments if of is None else (of, *arguments):
                self.type_of(part)
            return self.fault(node, f"there is no {named}; there is {', '.join(known)}")
        if known[name][0] != given:
            self.fault(node, f"{name} takes {known[name][0] - (of is not None)} arguments")
        elif name == "matches":
            self._matches(arguments[0])
        if name == "size" and given == 1:
            sized = arguments[0] if of is None else of
            kinds = _TEXTS | {Kind.LIST, Kind.OBJECT}
            self.wanted(sized, kinds, "size() takes a string, a list or an object")
            return NUMBER
        for part in arguments if of is None else (of, *arguments):
            if of is not None:
                self.wanted(part, _TEXTS, f"{name}() takes strings")
            else:
                self.type_of(part)
        return _RESULTS.get(name, BOOLEAN)

    def _matches(self, pattern: Node) -> None:
        if not isinstance(pattern, Literal) or type(pattern.value) is not str:
            self.fault(pattern, "matches() takes its pattern as a string in quotes")
        elif len(pattern.value) > PATTERN_SIZE_MAX or compile_pattern(pattern.value) is None:
            self.fault(pattern, "not a regular expression without look-around or back-references")

    def _quantified(self, node: Node, kind: str, of: Node, name: str, body: Node) -> Type:
        self.wanted(of, frozenset({Kind.LIST}), f"{kind}() goes through a list")
        if name in self.names:
            return self.fault(node, f"the name {name} is taken")
        self.names[name] = ANY
        self.condition(body, f"the condition of {kind}()")
        del self.names[name]
        return BOOLEAN


def _type_of_literal(value: object) -> Type:
    if value is None:
        return Type(Kind.NULL)
    if type(value) is bool:
        return BOOLEAN
    return TEXT if type(value) is str else NUMBER


def _as_compared(node: Node, own: Type, other: Type) -> Type:
    """A string in quotes beside a date is one."""
    if own.kind is Kind.TEXT and isinstance(node, Literal) and other.kind in (Kind.DATE, Kind.DATETIME):
        return other
    return own
