"""Who may do what to the documents of a model.

Room: a verdict from a caller (with the scopes of its API key), a model's rules and, for one document, who
created it. It reads nothing and stores nothing but rules it has already taken apart. Rules are those of CONTRACT "Model
permissions": `public`, `authenticated`, `owner`, `role:NAME`, or a list of them, any of which
suffices. Administrators may do everything within their application. A rule this version does not
know permits nobody else: a model may come from a newer peer.

The verdict is taken on every read and write, so a model without rules of its own, as most are,
costs a few comparisons and no lookup.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from node.services.account_rules import ROLE
from node.services.refusals import NotPermitted, SignInNeeded
from node.services.scopes import Scopes

ACTIONS = ("read", "create", "update", "delete")
DEFAULTS: Mapping[str, str] = {
    "read": "authenticated",
    "create": "authenticated",
    "update": "owner",
    "delete": "owner",
}
RULES_MAX = 32  # in one list
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


class _Rule:
    """One action's rule, taken apart."""

    __slots__ = ("authenticated", "owner", "public", "roles")

    def __init__(self, rule: object) -> None:
        words = {
            word for word in (rule if isinstance(rule, list | tuple) else [rule]) if isinstance(word, str)
        }
        self.public = "public" in words
        self.authenticated = "authenticated" in words
        self.owner = "owner" in words
        self.roles = frozenset(w.removeprefix(_ROLE_PREFIX) for w in words if w.startswith(_ROLE_PREFIX))


class Permissions:
    def __init__(self) -> None:
        self._taken_apart: dict[str, tuple[Mapping[str, Any], dict[str, _Rule]]] = {}

    def check(self, actor: Actor, model: Ruled, action: str, record: Owned | None = None) -> bool:
        """Whether `actor` may do `action` (one of ACTIONS) to `record`, or to the model at large.

        Without a record, a rule `owner` holds for creating (the creator will own it) and for nothing
        else; `may_ever` answers what a user could do with documents of their own.
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
            return record is not None and record.created_by == user and action in DEFAULTS
        rule = self._rule(model, action)
        if rule is None:
            return False
        if rule.public:
            return True
        if user is None:
            return False
        if rule.authenticated:
            return True
        if rule.owner and (action == "create" if record is None else record.created_by == user):
            return True
        return not rule.roles.isdisjoint(actor.roles)

    def may_ever(self, actor: Actor, model: Ruled, action: str) -> bool:
        """Whether there could be a document that `actor` may do `action` to: `owner` counts."""
        if self.check(actor, model, action):
            return True
        if actor.user_id is None or actor.application != model.application:
            return False
        if actor.scopes is not None and not actor.scopes.allow(model.name, action):
            return False
        rule = self._rule(model, action)
        return rule is not None and rule.owner

    def raise_unless(self, actor: Actor, model: Ruled, action: str, record: Owned | None = None) -> None:
        """Raises SignInNeeded or NotPermitted unless `check` says yes."""
        if self.check(actor, model, action, record):
            return
        if actor.user_id is None:
            raise SignInNeeded("This needs a signed-in user")
        if actor.scopes is not None and not actor.scopes.allow(model.name, action):
            raise NotPermitted(f"The scopes of this API key do not allow to {action} {model.name}")
        raise NotPermitted(f"You may not {action} {'this' if record is not None else 'here'}")

    def _rule(self, model: Ruled, action: str) -> _Rule | None:
        known = self._taken_apart.get(model.id)
        if known is None or known[0] is not model.permissions:
            rules = {name: _Rule(model.permissions.get(name, DEFAULTS[name])) for name in ACTIONS}
            if len(self._taken_apart) >= _MODELS_MAX:
                self._taken_apart = {}  # a new one: the writer's thread, where guards run, reads it too
            known = self._taken_apart[model.id] = (model.permissions, rules)
        return known[1].get(action)


def permission_faults(permissions: object) -> dict[str, str]:
    """Every fault of the `permissions` of a model definition: where -> what."""
    if permissions is None:
        return {}
    if not isinstance(permissions, Mapping):
        return {"permissions": "Must be an object"}
    faults = {}
    for action, rule in permissions.items():
        where = f"permissions.{action}"
        if action not in ACTIONS:
            faults[where] = f"Unknown action. Must be one of: {', '.join(ACTIONS)}"
        elif isinstance(rule, list) and not 1 <= len(rule) <= RULES_MAX:
            faults[where] = f"Must list 1 to {RULES_MAX} rules"
        elif not all(map(_is_rule, rule if isinstance(rule, list) else [rule])):
            faults[where] = 'Must be "public", "authenticated", "owner", "role:NAME" or a list of them'
    return faults


def _is_rule(rule: object) -> bool:
    if not isinstance(rule, str):
        return False
    name = rule.removeprefix(_ROLE_PREFIX)
    return rule in ("public", "authenticated", "owner") or (name != rule and ROLE.fullmatch(name) is not None)
