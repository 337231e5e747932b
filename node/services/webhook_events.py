"""Which events a change is for webhooks, and what of it a webhook's user may see.

Room: names of events (seed S1, "Supported Events") and the rights to read them, which are looked up whenever they
are asked for. Accounts are told of as the model `User`: what only administrators and the account itself may see of
one makes an event private, and nothing of credentials is ever told.

    *                                                   everything, under its general name
    data.created  data.updated  data.deleted            of any model
    user.created  user.updated                          of accounts
    breach.created                                      a notice of a breach, to those affected and administrators
    Model.created  Model.updated  Model.deleted         of one, by its name or id
    Model.field_changed                                 an update that set this field
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from node.services.account_models import ACCOUNT, ADMIN_ROLE, ROLE
from node.services.accounts import Account, Accounts
from node.services.breach_notices import Notice, read_notice
from node.services.permissions import Permissions, Subject
from node.services.privacy_models import BREACH
from node.services.records import Records
from node.services.webhook_records import Delivery, Hook
from protocol.clock import ms_of_hlc
from protocol.ids import builtin_model_id, node_of
from protocol.integrate import Change
from protocol.schema import Model
from storage.errors import StoreDamaged, UnknownModel
from storage.feed_entry import FeedEntry

EVENTS_MAX = 100  # of one webhook
EVERYTHING = "*"
RESYNC = "resync"  # the feed does not reach back far enough: read anew
PING = "ping"  # of a test
USER = "User"
BREACHES = "Breach"
_BREACH_CREATED = "breach.created"
_CHANGED = "_changed"
_VERBS = {Change.CREATED: "created", Change.UPDATED: "updated", Change.DELETED: "deleted"}
_GENERAL = frozenset(
    {"data", "user", "breach"}
)  # in front of a verb these are the seed's events, not names of models
_USER_VERBS = frozenset({"created", "updated"})
_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9_.:~-]{0,127}")  # a name or an id
_FIELD_CHANGED = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}_changed")
# The seed's own example; it spells the model both ways.
_STATUS_CHANGED = "project.status_changed"
_PROJECTS = frozenset({"project", "Project"})
_members = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class HookUser:
    """A webhook's user with the rights of this moment: an `Actor` of `permissions`."""

    user_id: str | None
    application: str
    is_admin: bool
    roles: frozenset[str]
    scopes: None = None


@dataclass(frozen=True, slots=True)
class Happening:
    """A change as webhooks tell it. `names` are the events that it is, `general` the one that `*` hears."""

    names: frozenset[str]
    general: str
    model: str  # its id
    model_name: str
    instance: str
    changes: Mapping[str, Any]
    at_ms: int
    origin: str | None
    created_by: str | None
    private: Mapping[str, Any] | None = None  # `changes` for those who may see all of an account

    def heard_as(self, events: Iterable[str]) -> list[str]:
        """Under which names someone hears of it who asks for these events: each of them once."""
        heard = dict.fromkeys(name for name in events if name in self.names)
        if EVERYTHING in events:
            heard.setdefault(self.general)
        return list(heard)


def check_events(events: object) -> tuple[tuple[str, ...], dict[str, str]]:
    """-> the names, each once, and every fault: where -> what."""
    if not isinstance(events, list) or not 1 <= len(events) <= EVENTS_MAX:
        return (), {"events": f"Must be a list of 1 to {EVENTS_MAX} events"}
    faults: dict[str, str] = {}
    for position, name in enumerate(events):
        fault = _event_fault(name)
        if fault is not None:
            faults[f"events[{position}]"] = fault
    return tuple(dict.fromkeys(events)) if not faults else (), faults


def _event_fault(name: object) -> str | None:
    if not isinstance(name, str):
        return "Must be a text"
    if name == EVERYTHING:
        return None
    model, dot, what = name.rpartition(".")
    if not dot or not _MODEL.fullmatch(model):
        return "Must be *, or the form data.updated, user.created, Model.deleted or Model.field_changed"
    if model == "user" and what not in _USER_VERBS and not _FIELD_CHANGED.fullmatch(what):
        return f"Invalid option. Must be one of: {', '.join(f'user.{verb}' for verb in sorted(_USER_VERBS))}"
    if model == "breach" and what != "created" and not _FIELD_CHANGED.fullmatch(what):
        return f"Invalid option. Must be: {_BREACH_CREATED}"
    if what not in _VERBS.values() and not _FIELD_CHANGED.fullmatch(what):
        return "Must end in created, updated, deleted or a field's name with _changed"
    return None


class HookEvents:
    """For the event loop. Reads the cache of records, the store where that does not do."""

    def __init__(
        self, records: Records, accounts: Accounts, permissions: Permissions, node_id: bytes
    ) -> None:
        self._records = records
        self._accounts = accounts
        self._permissions = permissions
        self._node_id = node_id

    def user_of(self, hook: Hook) -> HookUser | None:
        """Who a webhook reads as, with the rights of now; None if there is no such user, or it is disabled.

        Rights beyond those that it was registered with do not count.
        """
        if hook.is_owner:
            return HookUser(hook.user, hook.application, True, frozenset())
        account = self._accounts.get(hook.application, hook.user)
        if account is None or account.is_disabled:
            return None
        is_admin = hook.is_admin and account.is_admin
        roles = account.roles if is_admin else account.roles - {ADMIN_ROLE}
        return HookUser(account.id, hook.application, is_admin, roles)

    def unmatched(self, hook: Hook) -> list[str]:
        """Those of its events that nothing here can be, as things stand: of models or fields that are not there."""
        return [name for name in hook.events if not self._can_be(hook.application, name)]

    def _can_be(self, application: str, name: str) -> bool:
        model_name, _, what = name.rpartition(".")
        if name == EVERYTHING or (model_name in _GENERAL and what in _VERBS.values()):
            return True
        names = _PROJECTS if name == _STATUS_CHANGED else {model_name}
        for each in names:
            try:
                model = self._records.model(application, each)
            except UnknownModel:
                continue
            if what in _VERBS.values() or what.removesuffix(_CHANGED) in model.fields:
                return True
        return False

    # -- a change

    def happening(self, entry: FeedEntry) -> Happening | None:
        """What a change is for webhooks; None if it is nothing, or there is nothing to show of it."""
        try:
            if entry.model == builtin_model_id(entry.application, ACCOUNT):
                return self._account_happening(entry, entry.changed)
            if entry.model == builtin_model_id(entry.application, ROLE):
                return self._account_happening(entry, ("roles",))
            if entry.model == builtin_model_id(entry.application, BREACH):
                return self._breach_happening(entry)
            return self._data_happening(entry)
        except StoreDamaged:
            return None  # reading it by id says so; the other events go on

    def _data_happening(self, entry: FeedEntry) -> Happening | None:
        model = self._model(entry.application, entry.model)
        if model is None:
            return None
        shown: dict[str, Any] = {}
        if entry.change is Change.DELETED:
            creator = self._records.creator(model, entry.id) or entry.created_by
        else:
            rendered = self._records.rendered(model, entry.id)
            if rendered is not None:
                creator, shown = rendered.created_by, _members(rendered.json)
            elif (creator := self._records.creator_of_shown(model, entry.id)) is None:
                return None  # of what has been deleted since it is told that it happened, and no content
        changes = {name: value for name, value in shown.items() if name in entry.changed}
        names = _names_of(model, entry.change, entry.changed)
        general = f"data.{_VERBS[entry.change]}"
        return self._told(entry, names | {general}, general, model.id, model.name, changes, creator)

    def _account_happening(
        self, entry: FeedEntry, changed: Sequence[str] | Mapping[str, Any]
    ) -> Happening | None:
        account = self._accounts.get(entry.application, entry.id)
        is_account = entry.model == builtin_model_id(entry.application, ACCOUNT)
        if account is None or (is_account and entry.change is Change.DELETED):
            return None
        is_new = is_account and entry.change is Change.CREATED
        whole = _of_account(account, changed)
        if not whole:
            return None  # of credentials alone
        name = "user.created" if is_new else "user.updated"
        public = {"username": account.username} if "username" in whole else {}
        happening = self._told(
            entry, frozenset({name}), name, entry.model, USER, public, account.id, private=whole
        )
        return happening

    def _breach_happening(self, entry: FeedEntry) -> Happening | None:
        notice = self._notice(entry.application, entry.id)
        if notice is None or entry.change is not Change.CREATED:
            return None
        name = _BREACH_CREATED
        return self._told(
            entry, frozenset({name}), name, entry.model, BREACHES, notice.said, None, private=notice.whole
        )

    def _notice(self, application: str, id: str) -> Notice | None:
        record = self._records.get(self._records.builtin(application, BREACH), id)
        return None if record is None else read_notice(record)

    def _told(
        self,
        entry: FeedEntry,
        names: frozenset[str],
        general: str,
        model: str,
        model_name: str,
        changes: Mapping[str, Any],
        created_by: str | None,
        private: Mapping[str, Any] | None = None,
    ) -> Happening:
        node = node_of(entry.author)
        return Happening(
            names,
            general,
            model,
            model_name,
            entry.id,
            changes,
            ms_of_hlc(entry.hlc),
            None if node == self._node_id else node.hex(),
            created_by,
            private,
        )

    # -- rights

    def changes_for(self, user: HookUser, happening: Happening) -> tuple[Mapping[str, Any], bool] | None:
        """What a user may see of a change, and whether that is private; None if nothing."""
        if happening.private is not None:
            if user.is_admin or user.user_id == happening.instance:
                return happening.private, True
            if not happening.changes:
                return None
        may = self.may_read(user, happening.model, happening.instance, happening.created_by, is_private=False)
        return (happening.changes, False) if may else None

    def may_read(
        self, user: HookUser, model_id: str, instance: str, created_by: str | None, *, is_private: bool
    ) -> bool:
        """Whether a user may read what is told of an instance, as things stand."""
        if model_id == "":
            return True
        if model_id in (builtin_model_id(user.application, name) for name in (ACCOUNT, ROLE)):
            return not is_private or user.is_admin or user.user_id == instance
        if model_id == builtin_model_id(user.application, BREACH):
            notice = self._notice(user.application, instance)
            return user.is_admin or (
                not is_private and notice is not None and user.user_id in notice.affected
            )
        model = self._model(user.application, model_id)
        if model is None:
            return False
        shown = self._records.rendered(model, instance)
        return self._permissions.check(user, model, "read", shown or Subject(created_by))

    def may_be_told(self, user: HookUser, delivery: Delivery) -> bool:
        """The same of a delivery."""
        return self.may_read(
            user, delivery.model, delivery.instance, delivery.created_by, is_private=delivery.is_private
        )

    def _model(self, application: str, id: str) -> Model | None:
        try:
            model = self._records.model(application, id)
        except UnknownModel:
            return None
        return model if model.id == id else None  # not one that took another's id for a name


def _names_of(model: Model, change: Change, changed: Iterable[str]) -> frozenset[str]:
    verb = _VERBS[change]
    names = {f"{model.id}.{verb}"}
    if model.name not in _GENERAL:
        names.add(f"{model.name}.{verb}")
    if change is Change.UPDATED:
        for field in changed:
            names |= {f"{model.id}.{field}{_CHANGED}", f"{model.name}.{field}{_CHANGED}"}
            if field == "status" and model.name in _PROJECTS:
                names.add(_STATUS_CHANGED)
    return frozenset(names)


_SHOWN: Mapping[str, Callable[[Account], Any]] = {
    "email": lambda account: account.email,
    "username": lambda account: account.username,
    "interests": lambda account: list(account.interests),
    "disabled": lambda account: account.is_disabled,
    "roles": lambda account: sorted(account.roles),
}


def _of_account(account: Account, changed: Iterable[str]) -> dict[str, Any]:
    """Those of the changed fields that are told, as a profile shows them: free fields first, so that none can pose
    as a real one. Of free fields all are there, since they change as one."""
    told = dict(account.profile) if "profile" in changed else {}
    return told | {name: _SHOWN[name](account) for name in changed if name in _SHOWN}
