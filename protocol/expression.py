"""What an expression comes to: total, metered, the same on every node and for years.

Room: compiles a tree of `expression_text` into closures, and evaluates it over plain JSON values. It reads no clock
and draws nothing; whatever has no meaning (a comparison of a text with a number, an overflow, a division by
zero) comes to null, and nothing is raised whatever the data. SPEC, "Expressions", is the rule; vectors hold both
to it. Each step costs fuel, so that no data makes a verdict dear.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    parse,
)
from protocol.schema_check import compile_pattern
from protocol.schema_field import INTEGER_MAX, INTEGER_MIN, STRING_SIZE_MAX_BYTES, Value
from protocol.times import datetime_from_ms, ms_from_datetime, normal_date, normal_datetime

FUEL = 50_000
PIECE = 64  # code points of a text, looked at for one unit of fuel
MATCHED_PIECE = 8  # the same where a pattern is looked for
TEXT_MAX = STRING_SIZE_MAX_BYTES  # code points of a text that an expression makes

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_SPACES = " \t\r\n"
_DAY_S = 86_400
_FIRST_MS, _LAST_MS = (
    ms_from_datetime("0001-01-01T00:00:00.000Z"),
    ms_from_datetime("9999-12-31T23:59:59.999Z"),
)


class _Spent(Exception):
    """The fuel of an evaluation is used up."""


class _Run:
    """One evaluation: what names mean, and how much fuel is left."""

    __slots__ = ("fuel", "names")

    def __init__(self, names: Mapping[str, Value], fuel: int) -> None:
        self.names = names
        self.fuel = fuel

    def burn(self, steps: int = 1) -> None:
        self.fuel -= steps
        if self.fuel < 0:
            raise _Spent


_Step = Callable[[_Run], Value]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an expression came to, and the fuel that is left; `is_spent` if it cost more than there was, and then
    `value` is null."""

    value: Value
    fuel: int = 0
    is_spent: bool = False


class Expression:
    """A compiled expression. Immutable, for any thread."""

    __slots__ = ("_step", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._step = _compiled(node)

    def evaluate(self, names: Mapping[str, Value], fuel: int = FUEL) -> Verdict:
        """The value over `names`; a name that is not there is null. Never raises."""
        run = _Run(names, fuel)
        try:
            return Verdict(self._step(run), run.fuel)
        except _Spent:
            return Verdict(None, is_spent=True)


def compile_expression(text: str) -> Expression:
    """Raises `ExpressionFault`."""
    return Expression(parse(text))


# -- operators ------------------------------------------------------------------------------------------------


def is_equal(left: Value, right: Value, run: _Run | None = None) -> bool:
    """Whether two values are the same: numbers by their amount, `true` is not `1`, null only null."""
    if run is not None:
        run.burn()
    kind = type(left)
    if kind is bool or type(right) is bool or left is None or right is None:
        return left is right
    if kind is str:
        if run is not None and type(right) is str:
            run.burn(min(len(left), len(right)) // PIECE)
        return type(right) is str and left == right
    if kind is list:
        return (
            type(right) is list
            and len(left) == len(right)
            and all(is_equal(a, b, run) for a, b in zip(left, right, strict=True))
        )
    if kind is dict:
        return (
            type(right) is dict
            and left.keys() == right.keys()
            # In one order, so that it costs the same wherever the keys came in another.
            and all(is_equal(left[name], right[name], run) for name in sorted(left))
        )
    return type(right) in (int, float) and bool(left == right)


def _is_number(value: Value) -> bool:
    return type(value) is int or type(value) is float


def _compare(run: _Run, op: str, left: Value, right: Value) -> Value:
    if type(left) is str and type(right) is str:
        run.burn(min(len(left), len(right)) // PIECE)
    elif not (_is_number(left) and _is_number(right)):
        return None
    if op == "<":
        return left < right
    if op == "<=":
        return left <= right
    return left > right if op == ">" else left >= right


def _is_in(run: _Run, item: Value, of: Value) -> Value:
    if type(of) is list:
        return any(is_equal(item, other, run) for other in of)
    if type(of) is dict:
        return type(item) is str and item in of
    return None


def _calculate(run: _Run, op: str, left: Value, right: Value) -> Value:
    if op == "+" and type(left) is str and type(right) is str:
        run.burn((len(left) + len(right)) // PIECE)
        return left + right if len(left) + len(right) <= TEXT_MAX else None
    if not (_is_number(left) and _is_number(right)):
        return None
    try:
        match op:
            case "+":
                return _number(left + right)
            case "-":
                return _number(left - right)
            case "*":
                return _number(left * right)
            case "/":
                return _number(left / right)
    except (ZeroDivisionError, OverflowError):
        return None
    if type(left) is not int or type(right) is not int or right == 0:
        return None
    rest = abs(left) % abs(right)  # with the sign of the dividend, as in CEL and JavaScript
    return -rest if left < 0 else rest


def _number(value: int | float) -> int | float | None:
    if type(value) is int:
        return value if INTEGER_MIN <= value <= INTEGER_MAX else None
    return value if math.isfinite(value) else None


# -- functions ------------------------------------------------------------------------------------------------


def _size(run: _Run, value: Value) -> Value:
    return len(value) if type(value) in (str, list, dict) else None


def _date(run: _Run, value: Value) -> Value:
    if type(value) is not str:
        return None
    moment = normal_date(value) or normal_datetime(value)
    return None if moment is None else moment[:10]


def _datetime(run: _Run, value: Value) -> Value:
    if type(value) is not str:
        return None
    return f"{value}T00:00:00.000Z" if normal_date(value) else normal_datetime(value)


def _later(run: _Run, value: Value, amount: Value, unit_s: int) -> Value:
    """A date stays a date if days are added to it."""
    moment = _datetime(run, value)
    if moment is None or type(amount) is not int or abs(amount) > 10**12:
        return None
    at_ms = ms_from_datetime(moment) + amount * unit_s * 1000
    if not _FIRST_MS <= at_ms <= _LAST_MS:
        return None
    is_day = unit_s == _DAY_S and normal_date(value) is not None
    return datetime_from_ms(at_ms)[: 10 if is_day else None]


def _of_texts(work: Callable[[str, str], Value]) -> Callable[[_Run, Value, Value], Value]:
    def call(run: _Run, value: Value, other: Value) -> Value:
        if type(value) is not str or type(other) is not str:
            return None
        run.burn((len(value) + len(other)) // PIECE)
        return work(value, other)

    return call


def _of_text(work: Callable[[str], Value]) -> Callable[[_Run, Value], Value]:
    def call(run: _Run, value: Value) -> Value:
        if type(value) is not str:
            return None
        run.burn(len(value) // PIECE)
        return work(value)

    return call


# With how many arguments each goes, the receiver of a method counted.
FUNCTIONS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    "size": (1, _size),
    "has": (1, lambda run, value: value is not None),
    "date": (1, _date),
    "datetime": (1, _datetime),
    "addDays": (2, lambda run, value, days: _later(run, value, days, _DAY_S)),
    "addSeconds": (2, lambda run, value, seconds: _later(run, value, seconds, 1)),
}
METHODS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    "size": (1, _size),
    "startsWith": (2, _of_texts(lambda text, part: text.startswith(part))),
    "endsWith": (2, _of_texts(lambda text, part: text.endswith(part))),
    "contains": (2, _of_texts(lambda text, part: part in text)),
    "lower": (1, _of_text(lambda text: text.translate(_LOWER))),
    "upper": (1, _of_text(lambda text: text.translate(_UPPER))),
    "trim": (1, _of_text(lambda text: text.strip(_SPACES))),
    "matches": (2, lambda run, text, pattern: None),  # compiled with the expression: `_matching`
}


# -- compiling ------------------------------------------------------------------------------------------------


def _compiled(node: Node) -> _Step:
    match node:
        case Literal(value):
            return lambda run: value
        case Name(name):
            return lambda run: run.names.get(name)
        case Member(of, name):
            return _member(_compiled(of), name)
        case Index(of, key):
            return _index(_compiled(of), _compiled(key))
        case Listed(items):
            return _list([_compiled(item) for item in items])
        case Unary(op, of):
            return _not(_compiled(of)) if op == "!" else _negated(_compiled(of))
        case Binary(op, left, right):
            return _binary(op, _compiled(left), _compiled(right))
        case Choice(condition, then, otherwise):
            return _choice(_compiled(condition), _compiled(then), _compiled(otherwise))
        case Call(name, of, arguments):
            return _call(name, of, arguments)
        case Quantified(kind, of, name, body):
            return _quantified(kind, _compiled(of), name, _compiled(body))


def _member(of: _Step, name: str) -> _Step:
    def step(run: _Run) -> Value:
        run.burn()
        value = of(run)
        return value.get(name) if type(value) is dict else None

    return step


def _index(of: _Step, key: _Step) -> _Step:
    def step(run: _Run) -> Value:
        run.burn()
        value, at = of(run), key(run)
        if type(value) is dict and type(at) is str:
            return value.get(at)
        if type(value) is list and type(at) is int and 0 <= at < len(value):
            return value[at]
        return None

    return step


def _list(items: Sequence[_Step]) -> _Step:
    def step(run: _Run) -> Value:
        run.burn(1 + len(items))
        return [item(run) for item in items]

    return step


def _not(of: _Step) -> _Step:
    def step(run: _Run) -> Value:
        run.burn()
        value = of(run)
        return not value if type(value) is bool else None

    return step


def _negated(of: _Step) -> _Step:
    def step(run: _Run) -> Value:
        run.burn()
        value = of(run)
        return _number(-value) if _is_number(value) else None

    return step


def _binary(op: str, left: _Step, right: _Step) -> _Step:
    if op in ("&&", "||"):
        decides = op == "||"

        def logic(run: _Run) -> Value:
            run.burn()
            first = left(run)
            if first is decides:
                return decides
            second = right(run)
            if second is decides:
                return decides
            return not decides if first is second is (not decides) else None

        return logic
    if op in ("==", "!="):
        is_wanted = op == "=="
        return lambda run: is_equal(left(run), right(run), run) is is_wanted
    work = _is_in if op == "in" else None

    def step(run: _Run) -> Value:
        run.burn()
        first, second = left(run), right(run)
        if work is not None:
            return work(run, first, second)
        compares = op in ("<", "<=", ">", ">=")
        return (_compare if compares else _calculate)(run, op, first, second)

    return step


def _choice(condition: _Step, then: _Step, otherwise: _Step) -> _Step:
    def step(run: _Run) -> Value:
        run.burn()
        value = condition(run)
        if type(value) is not bool:
            return None
        return then(run) if value else otherwise(run)

    return step


def _call(name: str, of: Node | None, arguments: Sequence[Node]) -> _Step:
    given = [_compiled(argument) for argument in (arguments if of is None else (of, *arguments))]
    if name == "matches" and of is not None and len(given) == 2:
        return _matching(given[0], arguments[0])
    count, work = (FUNCTIONS if of is None else METHODS).get(name, (-1, _size))
    if count != len(given):
        return lambda run: None  # of a newer release: `expression_check` lets no such one in here

    def step(run: _Run) -> Value:
        run.burn()
        return work(run, *[argument(run) for argument in given])

    return step


def _matching(text: _Step, pattern: Node) -> _Step:
    """The pattern is a literal, and is compiled when it is first needed: that loads a library."""
    found: list[Callable[[str], bool] | None] = []

    def step(run: _Run) -> Value:
        run.burn()
        value = text(run)
        if not (isinstance(pattern, Literal) and type(pattern.value) is str and type(value) is str):
            return None
        run.burn(len(value) // MATCHED_PIECE)
        if not found:
            found.append(compile_pattern(pattern.value))
        return None if found[0] is None else found[0](value)

    return step


def _quantified(kind: str, of: _Step, name: str, body: _Step) -> _Step:
    decides = kind == "exists"

    def step(run: _Run) -> Value:
        run.burn()
        items = of(run)
        if type(items) is not list:
            return None
        outer, is_known = run.names, True
        run.names = inner = dict(outer)
        try:
            for item in items:
                run.burn()
                inner[name] = item
                value = body(run)
                if value is decides:
                    return decides
                is_known = is_known and type(value) is bool
        finally:
            run.names = outer
        return (not decides) if is_known else None

    return step
