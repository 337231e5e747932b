"""The parts of a definition that are expressions: validators, and permission rules where they are.

Room: their shape, what may stand in them, and what a record's validators say of it. A verdict depends on the
model and the record's values alone; who acts, and when, only permissions know.

    "validators": [{"expression": "balance >= 0", "message": "Account balance cannot be negative"}, …]
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

from protocol.errors import ExpressionFault
from protocol.expression import FUEL, Expression, compile_expression
from protocol.expression_check import BOOLEAN, DATETIME, LIST, TEXT, Kind, Type, faults_of, type_of_field
from protocol.expression_text import KEYWORDS, Member, Name, Node, names_of, parts_of
from protocol.schema_field import EMPTY, Field, Value

ACTIONS = ("read", "create", "update", "delete")
# What a model permits that says nothing of an action.
DEFAULT_PERMISSIONS: dict[str, str] = {
    "read": "authenticated",
    "create": "authenticated",
    "update": "owner",
    "delete": "owner",
}
RULES_MAX = 32  # in the list of one action
VALIDATORS_MAX = 32
MESSAGE_SIZE_MAX = 255

RECORD = "record"  # the whole record, in validators and rules alike
_ROLE = re.compile(r"role:[A-Za-z0-9_.:-]{1,64}")
_WORD = re.compile(r"[A-Za-z_:-]+")
_USER = Type(Kind.OBJECT, {"id": TEXT, "roles": LIST, "is_admin": BOOLEAN})
_META = {"id": TEXT, "created_at": DATETIME, "updated_at": DATETIME, "created_by": TEXT, "version": TEXT}
_COSTS_TOO_MUCH = "checking this takes more steps than a validator has"


@dataclass(frozen=True)
class Validator:
    """A condition that every record of a model meets, or whose value is unknown (null), and what is said if not."""

    expression: str
    message: str

    @cached_property
    def compiled(self) -> Expression:
        return compile_expression(self.expression)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The fields it looks at, in the order in which it names them; `record` if it looks at all."""
        found: dict[str, None] = {}

        def look(node: Node) -> None:
            if (isinstance(node, Member) and node.of == Name(RECORD)) or isinstance(node, Name):
                found[node.name] = None
            else:
                for part in parts_of(node):
                    look(part)

        look(self.compiled.node)
        free = set(names_of(self.compiled.node))
        return tuple(name for name in found if name in free or RECORD in free)


class Validators:
    """The validators of a model over its fields."""

    def __init__(self, validators: tuple[Validator, ...], fields: Mapping[str, Field]) -> None:
        # What is sealed no node can look at: to a validator it is not there.
        fields = {name: field for name, field in fields.items() if not field.encrypted}
        self._all = [
            (validator, [name for name in validator.reads if name in fields]) for validator in validators
        ]
        self._empty = {name: EMPTY.get(field.type) for name, field in fields.items()}
        self._late = {
            name: self._empty[name] if field.default is None else field.default
            for name, field in fields.items()
        }

    def __bool__(self) -> bool:
        return bool(self._all)

    def faults(self, values: Mapping[str, Value], faulty: Mapping[str, str]) -> dict[str, str]:
        """What the validators say of a record, under the first field that each names.

        `faulty` are fields whose values are no values of their type: what looks at one of them is left out, and so
        is what looks at none in particular.
        """
        if faulty:
            asked = [each for each in self._all if each[1] and faulty.keys().isdisjoint(each[1])]
        else:
            asked = self._all
        if not asked:
            return {}
        record = dict(self._late)  # what was never written reads its default
        for name, value in values.items():
            if name in record:
                record[name] = self._empty[name] if value is None else value
        names = {**record, RECORD: record}
        told: dict[str, list[str]] = {}
        fuel = FUEL  # of all of them, so that many cost no more than one may
        for validator, fields in asked:
            verdict = validator.compiled.evaluate(names, fuel)
            fuel = verdict.fuel
            if verdict.value is False or verdict.is_spent:
                where = fields[0] if fields else RECORD
                told.setdefault(where, []).append(_COSTS_TOO_MUCH if verdict.is_spent else validator.message)
        return {where: "; ".join(messages) for where, messages in told.items()}


def read_validators(
    given: object, fields: Mapping[str, Field], faults: dict[str, str], *, stored: bool
) -> tuple[Validator, ...]:
    """The validators of a definition. Of one that is stored only the grammar is checked: it counts as it stands."""
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > VALIDATORS_MAX:
        faults["validators"] = f"Must be a list of at most {VALIDATORS_MAX} validators"
        return ()
    fields = {name: field for name, field in fields.items() if not field.encrypted}
    known = {RECORD: Type(Kind.OBJECT, {name: type_of_field(field) for name, field in fields.items()})}
    known = {**{name: type_of_field(f) for name, f in fields.items() if name not in KEYWORDS}, **known}
    validators: list[Validator] = []
    for number, entry in enumerate(given):
        path = f"validators[{number}]"
        if not isinstance(entry, Mapping):
            faults[path] = "Must be an object with expression and message"
            continue
        for name in entry:
            if name not in ("expression", "message"):
                faults[f"{path}.{name}"] = "Unknown attribute"
        expression, message = entry.get("expression"), entry.get("message")
        if not isinstance(message, str) or not 0 < len(message) <= MESSAGE_SIZE_MAX:
            faults[f"{path}.message"] = f"Must be a string of 1 to {MESSAGE_SIZE_MAX} characters"
        if not isinstance(expression, str):
            faults[f"{path}.expression"] = "Must be an expression"
        elif said := expression_faults(expression, None if stored else known):
            faults[f"{path}.expression"] = said
        elif isinstance(message, str):
            validators.append(Validator(expression, message))
    return tuple(validators)


def write_validators(validators: tuple[Validator, ...]) -> list[dict[str, str]]:
    """What `read_validators` reads back."""
    return [{"expression": v.expression, "message": v.message} for v in validators]


def expression_faults(text: str, names: Mapping[str, Type] | None) -> str:
    """What is wrong with an expression, all of it in one text; of its grammar alone without `names`."""
    try:
        expression = compile_expression(text)
    except ExpressionFault as fault:
        return str(fault)
    return "" if names is None else "; ".join(faults_of(expression.node, names))


# -- permissions --------------------------------------------------------------------------------------------


def read_permissions(
    permissions: object, fields: Mapping[str, Field], faults: dict[str, str], *, stored: bool
) -> dict[str, Any]:
    """The permissions of a definition: for each action a word, an expression, or a list of these."""
    if permissions is None:
        return {}
    if not isinstance(permissions, Mapping):
        faults["permissions"] = f"Must be an object with any of: {', '.join(ACTIONS)}"
        return {}
    fields = {name: field for name, field in fields.items() if not field.encrypted}
    record = {**_META, **{name: type_of_field(field) for name, field in fields.items()}}
    names = {"user": _USER, RECORD: Type(Kind.OBJECT, record), "now": DATETIME}
    for action, rule in permissions.items():
        path = f"permissions.{action}"
        if action not in ACTIONS:
            faults[path] = f"Unknown action. Must be one of: {', '.join(ACTIONS)}"
        elif isinstance(rule, list) and not 1 <= len(rule) <= RULES_MAX:
            faults[path] = f"Must list 1 to {RULES_MAX} rules"
        else:
            said = [_rule_fault(part, None if stored else names) for part in _listed(rule)]
            if found := "; ".join(dict.fromkeys(filter(None, said))):
                faults[path] = found
    return {action: list(rule) if isinstance(rule, list) else rule for action, rule in permissions.items()}


def permissions_in_common(said: Sequence[Any]) -> Any:
    """What of several permissions that were said apart is in force: no more than each of them allows (SPEC 11).

    Of two rules those parts are left that a part of the other covers; `false`, which permits nobody, where none
    is. A value that is none takes no part beside one that is.
    """
    different = [value for place, value in enumerate(said) if value not in said[:place]]
    if len(different) > 1:
        different = [value for value in different if _is_readable(value)] or different[:1]
    if len(different) < 2:
        return different[0] if different else None
    return {
        action: _written(reduce(_covered, (_parts(value.get(action), action) for value in different)))
        for action in ACTIONS
    }


def _is_readable(permissions: object) -> bool:
    faults: dict[str, str] = {}
    read_permissions(permissions, {}, faults, stored=True)
    return permissions is not None and not faults


def _parts(rule: object, action: str) -> list[Any]:
    return _listed(DEFAULT_PERMISSIONS[action] if rule is None else rule)


def _covered(some: list[Any], others: list[Any]) -> list[Any]:
    kept = [part for part in some if any(_covers(other, part) for other in others)]
    kept += [part for part in others if any(_covers(one, part) for one in some)]
    return sorted(set(kept))


def _covers(wide: str, narrow: str) -> bool:
    """Whether whoever the one rule permits is permitted by the other, as far as their words tell."""
    is_of_a_user = narrow == "owner" or _ROLE.fullmatch(narrow) is not None
    return wide in (narrow, "public") or (wide == "authenticated" and is_of_a_user)


def _written(parts: list[Any]) -> object:
    if not parts:
        return "false"
    return parts[0] if len(parts) == 1 else parts


def _listed(rule: object) -> list[object]:
    return rule if isinstance(rule, list) else [rule]


def is_word(rule: object) -> bool:
    """Whether a rule is one of the words, and not an expression."""
    return isinstance(rule, str) and (
        rule in ("public", "authenticated", "owner") or _ROLE.fullmatch(rule) is not None
    )


def _rule_fault(rule: object, names: Mapping[str, Type] | None) -> str:
    if is_word(rule):
        return ""
    if not isinstance(rule, str) or (
        names is not None and _WORD.fullmatch(rule) and rule not in ("true", "false")
    ):
        return "Must be public, authenticated, owner, role:NAME, an expression, or a list of these"
    return expression_faults(rule, names)
