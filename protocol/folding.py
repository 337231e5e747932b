"""One value made of several that did not see each other, as the `merge` of a field says.

Room: pure functions of values in (hlc, author) order and of the value that all of
them came from. Which values those are is `conflict`'s. The result is the same on
every node: sums are exact before they are rounded once, texts are compared by
their code points.

A value that the field does not allow takes no part, so one careless device cannot
spoil what the others wrote; a result that it does not allow is none.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from protocol.document import element_key
from protocol.schema_check import Fault, check_of
from protocol.schema_field import Field, FieldType, Value

_Combine = Callable[[Sequence[Value], Value], Value]


class CannotFold(Exception):
    """These values have no one value between them: the largest is shown, and the conflict is listed."""


class Fold:
    """The `merge` of one field."""

    def __init__(self, field: Field) -> None:
        assert field.merge is not None
        self.needs_base = field.merge == "sum"  # and folds values that are the same: both sides have added
        self._combine = _COMBINE[field.merge](field)
        self._check = check_of(field)
        self._is_required = field.required

    def __call__(self, values: Sequence[Value], base: Value = None) -> Value:
        """One value of several in ascending order, which all came from `base`. Raises `CannotFold`."""
        allowed = [value for value in values if value is None or self._allows(value)]
        if not allowed:
            raise CannotFold
        folded = self._combine(allowed, base if base is None or self._allows(base) else None)
        if folded is None:
            if self._is_required:
                raise CannotFold
            return None
        checked = self._check(folded)
        if isinstance(checked, Fault):
            raise CannotFold
        return checked

    def _allows(self, value: Value) -> bool:
        return not isinstance(self._check(value), Fault)


def _present(values: Sequence[Value]) -> list[Value]:
    """A cleared field says nothing beside one that holds a value."""
    return [value for value in values if value is not None]


def _extreme(field: Field, choose: Callable[..., Value]) -> _Combine:
    place = {option: number for number, option in enumerate(field.options)}
    key: Callable[[Value], Any] = place.__getitem__ if field.type is FieldType.ENUM else lambda value: value

    def fold(values: Sequence[Value], _: Value) -> Value:
        present = _present(values)
        return choose(present, key=key) if present else None

    return fold


def _sum(_: Field) -> _Combine:
    """What each side added to the common value, added to it. A cleared field is 0."""

    def fold(values: Sequence[Value], base: Value) -> Value:
        if not _present(values):
            return None
        start = Fraction(base or 0)
        total = start + sum(Fraction(value or 0) - start for value in values)
        if not any(isinstance(value, float) for value in (base, *values)):
            return int(total)
        try:
            return float(total)
        except OverflowError:
            raise CannotFold from None

    return fold


def _concat(_: Field) -> _Combine:
    """Texts or lists one after the other, the same one once."""

    def fold(values: Sequence[Value], base: Value) -> Value:
        present = _each_once(_present(values))
        if not present:
            return None
        if all(isinstance(value, str) for value in present):
            return "".join(present)
        if all(isinstance(value, list) for value in present):
            return [item for value in present for item in value]
        raise CannotFold

    return fold


def _union(_: Field) -> _Combine:
    """Lists: each item once, in order. Objects: every key, with the value of the largest that has it."""

    def fold(values: Sequence[Value], base: Value) -> Value:
        present = _present(values)
        if not present:
            return None
        if all(isinstance(value, dict) for value in present):
            return {key: item for value in present for key, item in value.items()}
        if all(isinstance(value, list) for value in present):
            return _each_once(item for value in present for item in value)
        raise CannotFold

    return fold


def _each_once(items: Iterable[Value]) -> list[Value]:
    found: dict[Hashable, Value] = {}
    for item in items:
        found.setdefault(value_key(item), item)
    return list(found.values())


_COMBINE: Mapping[str, Callable[[Field], _Combine]] = {
    "union": _union,
    "max": lambda field: _extreme(field, max),
    "min": lambda field: _extreme(field, min),
    "sum": _sum,
    "concat": _concat,
}


def is_same(one: Value, other: Value) -> bool:
    """Whether two values are one to an application: as for elements of a set, 1 is 1.0 and not `true`."""
    return value_key(one) == value_key(other)


def value_key(value: Value) -> Hashable:
    """What two values have in common exactly if they are the same."""
    if isinstance(value, list):
        return "list", tuple(map(value_key, value))
    if isinstance(value, dict):
        return "map", frozenset((name, value_key(item)) for name, item in value.items())
    return element_key(value)
