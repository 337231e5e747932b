"""The filters that a model's records can be asked for, as one regular expression.

Room: the language of `protocol.query_filter` in the form that JSON Schema has for texts, so that a client can
check a filter before it sends one. Every filter of the pattern is taken. What is taken beyond it, by leniency (spaces
around operators, numbers and dates in quotes), is left out, so that the pattern stays one that people can read.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

from protocol.query_filter import META_KINDS, MOMENTS, Kind, Op, kind_of, operators_of
from protocol.schema import FieldType, Model

_CONTROLS = "\\x00-\\x1f\\x7f"  # which no address holds: `routes.percent_decoded`
_QUOTED = f'"(?:[^"\\\\{_CONTROLS}]|\\\\["\\\\])*"'
_DIGITS = "[+-]?[0-9]{1,18}"
_NUMBER = r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?"
_DAY = (
    r"(?:[1-9][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
)
_HOUR = "(?:[01][0-9]|2[0-3])"
_MOMENT = rf"{_DAY}(?:T{_HOUR}:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{{1,9}})?)?(?:Z|[+-]{_HOUR}:[0-5][0-9])?)?"
# The form of a value, and of one in a list, where it ends before `;` too.
_Forms = tuple[str, str]


def filter_pattern(model: Model) -> str:
    """Filters that `protocol.query_filter.parse_filter` takes for a model; spaces alone ask for all records."""
    alike: dict[tuple[_Forms, frozenset[Op]], list[str]] = defaultdict(list)
    for name in (*META_KINDS, *model.fields):
        if operators := operators_of(name, model):
            alike[_forms(name, model), operators].append(name)
    conditions = "|".join(_condition(names, forms, operators) for (forms, operators), names in alike.items())
    return f"^(?: *|(?:{conditions})(?:[,|](?:{conditions}))*)$"


def _condition(names: Iterable[str], forms: _Forms, operators: frozenset[Op]) -> str:
    """Conditions on fields whose values look alike."""
    one, listed = forms
    asked = (
        (operators - {Op.IN, Op.NIN, Op.LIKE}, one),
        (operators & {Op.LIKE}, _any_text()[0]),
        (operators & {Op.IN, Op.NIN}, f"{listed}(?:;{listed})*"),
    )
    ways: dict[str, list[Op]] = defaultdict(list)
    for words, values in asked:
        if words:
            ways[values] += sorted(words)
    told = "|".join(f"(?:{'|'.join(words)}):{values}" for values, words in ways.items())
    return f" *(?:{'|'.join(names)}):(?:{told})"


def _forms(name: str, model: Model) -> _Forms:
    field = model.fields.get(name)
    if field is None and name in MOMENTS:
        return _form(f"{_DIGITS}|{_MOMENT}")
    match kind_of(name, model):
        case Kind.INTEGER:
            return _form(_DIGITS)
        case Kind.NUMBER:
            return _form(_NUMBER)
        case Kind.BOOLEAN:
            return _form("true|false")
    match None if field is None else field.type:
        case FieldType.DATE:
            return _form(_DAY)
        case FieldType.DATETIME:
            return _form(_MOMENT)
        case FieldType.ENUM:
            return _one_of(model.fields[name].options)
    return _any_text()


def _form(pattern: str) -> _Forms:
    return f"(?:{pattern})", f"(?:{pattern})"


def _any_text() -> _Forms:
    """Quoted, or up to what ends a value."""
    one, listed = (
        f'(?:{_QUOTED}|(?:[^ "{stops}{_CONTROLS}][^{stops}{_CONTROLS}]*)?)' for stops in (",|", ",|;")
    )
    return one, listed


def _one_of(options: Iterable[str]) -> _Forms:
    """Exactly these texts, in quotes where they must be."""
    ways: tuple[list[str], list[str]] = ([], [])
    for option in options:
        escaped = option.replace("\\", "\\\\").replace('"', '\\"')
        for written, stops in zip(ways, (",|", ",|;"), strict=True):
            written.append(literal_pattern(f'"{escaped}"'))
            if option == option.strip() and not option.startswith('"') and not set(stops) & set(option):
                written.append(literal_pattern(option))
    one, listed = (f"(?:{'|'.join(written)})" for written in ways)
    return one, listed


def literal_pattern(text: str) -> str:
    """A regular expression for this text alone. Escapes no more than syntax: ECMA 262 takes no other escapes."""
    return re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", text)
