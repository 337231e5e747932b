"""Who may do what to the documents of a model.

Room: a verdict from a caller (with the scopes of its API key), a model's rules and, for one document, what it says
and who created it. It reads nothing and stores nothing but rules it has already taken apart. Rules are those of
CONTRACT "Model permissions": `public`, `authenticated`, `owner`, `role:NAME`, an expression over `user`, `record` and
`now` (SPEC, "Expressions"), or a list of them, any of which suffices. An expression permits what it is true of, and
nothing if it is false, null or too dear. Administrators may do everything within their application. A rule this
version does not know permits nobody else: a model may come from a newer peer.

    user    {id, roles, is_admin}, null if nobody is signed in
    record  the document as it reads before it is changed, or as it would be created; of one that is deleted only
            `created_by` is known
    now     this node's time

The verdict is taken on every read and write, so a model without rules of its own, as most are,
costs a few comparisons and no lookup.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from node.services.refusals import NotPermitted, SignInNeeded
from node.services.scopes import Scopes
from protocol.errors import ExpressionFault
from protocol.expression import Expression, compile_expression
from protocol.expression_text import members_of, names_of
from protocol.schema_rules import ACTIONS, DEFAULT_PERMISSIONS, RECORD, is_word
from protocol.times import datetime_from_ms

RULE_FUEL = 5_000  # of all expressions of an action, for one document: a list asks it of each
_ROLE_PREFIX = "role:"
_MODELS_MAX = 1024  # models whose rules are kept taken apart


class Actor(Protocol):
    """Who acts: the API's caller."""

    @property
    def user_id(self) -> str | None: ...
    @property
    def application(self) -> str: ...
    @property
    def is_admin(self) -> bool: ...
    @property
    def roles(self) -> frozenset[str]: ...
    @property
    def scopes(self) -> Scopes | None:
        """What an API key is limited to; None for whoever is signed in."""


class Ruled(Protocol):
    """What has rules: a model."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def application(self) -> str: ...
    @property
    def permissions(self) -> Mapping[str, Any]: ...


class Owned(Protocol):
    """What someone created: a document."""

    @property
    def created_by(self) -> str | None: ...

    def facts(self) -> Mapping[str, Any] | None:
        """The document as JSON; None if it is deleted. Asked only where a rule looks at it."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules are asked about where no record is at hand: what would be created, what is deleted."""

    created_by: str | None
    values: Mapping[str, Any] | None = None

    def facts(self) -> Mapping[str, Any] | None:
        return self.values


@dataclass(frozen=True, slots=True)
class Limit:
    """Which documents someone may read of a model. With `passes` those of which it is true, else their own."""

    owner: str | None
    passes: Callable[[Owned], bool] | None = None


class _Rule:
    """One action's rule, taken apart."""

    __slots__ = ("at_large", "authenticated", "of_creator", "of_record", "owner", "public", "roles")

    def __init__(self, rule: object) -> None:
        words = {
            word for word in (rule if isinstance(rule, list | tuple) else [rule]) if isinstance(word, str)
        }
        self.public = "public" in words
        self.authenticated = "authenticated" in words
        self.owner = "owner" in words
        self.roles = frozenset(w.removeprefix(_ROLE_PREFIX) for w in words if w.startswith(_ROLE_PREFIX))
        written = [_compiled(word) for word in sorted(words) if not is_word(word)]
        expressions = [expression for expression in written if expression is not None]
        self.of_record = [e for e in expressions if RECORD in names_of(e.node)]
        self.of_creator = [e for e in self.of_record if members_of(e.node, RECORD) == ["created_by"]]
        self.at_large = [e for e in expressions if e not in self.of_record]


def _compiled(text: str) -> Expression | None:
    try:
        return compile_expression(text)
    except ExpressionFault:
        return None


class Permissions:
    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._taken_apart: dict[str, tuple[Mapping[str, Any], dict[str, _Rule]]] = {}

    def check(self, actor: Actor, model: Ruled, action: str, record: Owned | None = None) -> bool:
        """Whether `actor` may do `action` (one of ACTIONS) to `record`, or to the model at large.

        Without a record, a rule `owner` holds for creating (the creator will own it) and for nothing
        else, and an expression that looks at the record for nothing; `may_ever` answers what a user could do
        with documents of their own.
        """
        if actor.application != model.application:
            return False
        if actor.scopes is not None and not actor.scopes.allow(model.name, action):
            return False
        if actor.is_admin:
            return True
        user = actor.user_id
        if not model.permissions:
            if user is None:
                return False
            if action == "read" or action == "create":
                return True
            return record is not None and record.created_by == user and action in DEFAULT_PERMISSIONS
        rule = self._rule(model, action)
        if rule is None:
            return False
        if rule.public:
            return True
        if user is None:
            return self._is_true(rule, actor, record)
        if rule.authenticated:
            return True
        if rule.owner and (action == "create" if record is None else record.created_by == user):
            return True
        return not rule.roles.isdisjoint(actor.roles) or self._is_true(rule, actor, record)

    def may_ever(self, actor: Actor, model: Ruled, action: str) -> bool:
        """Whether there could be a document that `actor` may do `action` to: `owner` counts, and what looks at it."""
        if self.check(actor, model, action):
            return True
        if actor.scopes is not None and not actor.scopes.allow(model.name, action):
            return False
        rule = self._rule(model, action)
        if rule is None or actor.application != model.application:
            return False
        return (rule.owner and actor.user_id is not None) or bool(rule.of_record)

    def reading(self, actor: Actor, model: Ruled) -> Limit | None:
        """Which documents of a model `actor` may read; None for all. Raises as `raise_unless` if there is none."""
        if self.check(actor, model, "read"):
            return None
        self.raise_unless_ever(actor, model, "read")
        rule = self._rule(model, "read")
        owner = actor.user_id if rule is not None and rule.owner else None
        if rule is None or not rule.of_record:
            return Limit(owner)
        return Limit(owner, lambda record: self.check(actor, model, "read", record))

    def raise_unless(self, actor: Actor, model: Ruled, action: str, record: Owned | None = None) -> None:
        """Raises SignInNeeded or NotPermitted unless `check` says yes."""
        if self.check(actor, model, action, record):
            return
        if actor.user_id is None:
            raise SignInNeeded("This needs a signed-in user")
        if actor.scopes is not None and not actor.scopes.allow(model.name, action):
            raise NotPermitted(f"The scopes of this API key do not allow to {action} {model.name}")
        raise NotPermitted(f"You may not {action} {'this' if record is not None else 'here'}")

    def raise_unless_ever(self, actor: Actor, model: Ruled, action: str) -> None:
        """Raises as `raise_unless` unless `may_ever` says yes: for what there is no document of, or not yet."""
        if not self.may_ever(actor, model, action):
            self.raise_unless(actor, model, action)

    def _is_true(self, rule: _Rule, actor: Actor, record: Owned | None) -> bool:
        """Whether one of the rule's expressions is true; those that look at a record need one."""
        if not (rule.at_large or rule.of_record):
            return False
        roles = sorted(actor.roles)
        user = {"id": actor.user_id, "roles": roles, "is_admin": actor.is_admin} if actor.user_id else None
        names: dict[str, Any] = {"user": user, "now": datetime_from_ms(self._now_ms())}
        fuel = RULE_FUEL
        for expression in rule.at_large:
            verdict = expression.evaluate(names, fuel)
            if verdict.value is True:
                return True
            fuel = verdict.fuel
        if record is None or not rule.of_record:
            return False
        facts = record.facts()
        names[RECORD] = {"created_by": record.created_by} if facts is None else facts
        asked = rule.of_record if facts is not None else rule.of_creator
        for expression in asked:
            verdict = expression.evaluate(names, fuel)
            if verdict.value is True:
                return True
            fuel = verdict.fuel
        return False

    def _rule(self, model: Ruled, action: str) -> _Rule | None:
        known = self._taken_apart.get(model.id)
        if known is None or known[0] is not model.permissions:
            rules = {name: _Rule(model.permissions.get(name, DEFAULT_PERMISSIONS[name])) for name in ACTIONS}
            if len(self._taken_apart) >= _MODELS_MAX:
                self._taken_apart = {}  # a new one: the writer's thread, where guards run, reads it too
            known = self._taken_apart[model.id] = (model.permissions, rules)
        return known[1].get(action)
