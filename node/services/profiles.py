"""What users say about themselves, and what applications keep about them.

Room: profile fields, interests and application data of accounts that exist. Every value here is
the user's own to change; names, rights and credentials are `accounts`' business.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from node.services import account_rules as rules
from node.services.account_models import ACCOUNT, USERDATA, account_models, userdata_id
from node.services.accounts import Account, Accounts
from node.services.edits import Edits
from node.services.lockout import Source
from node.services.ports import Record, Records, Values
from node.services.refusals import InvalidFields, UnknownAccount, UnknownData

# Shown in a profile, set elsewhere or never. A client may send them back as it read them.
READ_ONLY = frozenset(
    [
        "id",
        "user_id",
        "application_id",
        "roles",
        "is_admin",
        "created_at",
        "updated_at",
        "created_by",
        "version",
        "disabled",
        "mfa_enabled",
        "mfa_recovery_codes_left",
    ]
)
_NEVER = frozenset(["password", "verifier", "generation", "kept_session", "credentials_at"])


class Profiles:
    def __init__(self, records: Records, accounts: Accounts, edits: Edits) -> None:
        self._records = records
        self._accounts = accounts
        self._edits = edits
        models = {model.name: model for model in account_models("default")}
        self._account = models[ACCOUNT]
        self._userdata = models[USERDATA]

    async def update(
        self, account: Account, changes: Mapping[str, Any], shown: Mapping[str, Any], *, source: Source
    ) -> Account:
        """The owner changes own fields: `username`, `interests` (the whole list), `email` (which
        takes `current_password`), and any field of their own choosing; null removes one of those.

        `shown` is the profile as the owner reads it: read-only fields may come back unchanged.
        Raises InvalidFields, EmailTaken, WrongPassword, TooManyAttempts.
        """
        values, free, faults = _sort(changes, shown)
        email = values.get("email")
        if email == account.email:
            del values["email"]
            email = None
        password = changes.get("current_password")
        if (email is not None or "email" in faults) and (not password or not isinstance(password, str)):
            faults["current_password"] = "This field is required to change the e-mail address"
        profile = _merged(account.profile, free)
        faults |= self._account.check_update({"profile": profile})[1] or rules.check_profile(profile)
        if faults:
            raise InvalidFields(faults)

        def change(old: Record | None) -> Values:
            if old is None:
                raise UnknownAccount
            profile = _merged(old.values.get("profile") or {}, free)
            return values | ({"profile": profile} if free else {})

        async with AsyncExitStack() as held:
            if email is not None and isinstance(password, str):
                await self._accounts.confirm(account, password, source)
                await held.enter_async_context(self._accounts.claim_email(account.application, email))
            named: Values = {name: values[name] for name in ("email", "username") if name in values}
            if account.is_admin and named:
                await self._accounts.edit(
                    account.application, account.id, lambda _old: named, user=account.id
                )
            await self._edits.write(account.application, ACCOUNT, account.id, change, user=account.id)
        return self._accounts.require(account.application, account.id)

    async def add_interests(self, application: str, account: str, interests: object, *, user: str) -> None:
        """Add to the interests of an account. Raises InvalidFields, UnknownAccount."""
        words, fault = rules.check_interests(interests)
        if fault:
            raise InvalidFields({"interests": fault})

        def add(old: Record | None) -> Values:
            if old is None:
                raise UnknownAccount
            have = old.values.get("interests") or []
            new = [word for word in words if word not in have]
            if len(have) + len(new) > rules.INTERESTS_MAX:
                raise InvalidFields({"interests": f"Must be at most {rules.INTERESTS_MAX} in all"})
            return {"interests": [*have, *new]} if new else {}

        await self._edits.write(application, ACCOUNT, account, add, user=user)

    async def put_data(self, application: str, user: str, body: Mapping[str, Any]) -> None:
        """Keep `value` under `key` for this user. Raises InvalidFields."""
        faults: dict[str, str] = {}
        key, fault = rules.check_data_key(body.get("key"))
        if fault:
            faults["key"] = fault
        value = body.get("value")
        fault = rules.check_data_value(value)[1] if "value" in body else rules.REQUIRED
        if fault:
            faults["value"] = fault
        if faults:
            raise InvalidFields(faults)
        content: Values = {"user": user, "key": key, "value": value}
        faults = self._userdata.check_create(content)[1]
        if faults:
            raise InvalidFields(faults)
        await self._edits.write(
            application, USERDATA, userdata_id(user, key), lambda _old: content, user=user
        )

    def get_data(self, application: str, user: str, key: str) -> Any:
        """What is kept under `key`. Raises UnknownData."""
        record = self._records.get(application, USERDATA, userdata_id(user, key))
        if record is None:
            raise UnknownData
        return record.values.get("value")


def _sort(changes: Mapping[str, Any], shown: Mapping[str, Any]) -> tuple[Values, Values, dict[str, str]]:
    """-> the account's own fields, the free ones, and the faults of both."""
    values: Values = {}
    free: Values = {}
    faults: dict[str, str] = {}
    checks = {"username": rules.check_username, "email": rules.check_email}
    for name, value in changes.items():
        if name in checks:
            values[name], fault = checks[name](value)
            if fault:
                faults[name] = fault
        elif name == "interests":
            values[name], fault = ([], None) if value in (None, [], "") else rules.check_interests(value)
            if fault:
                faults[name] = fault
        elif name in READ_ONLY:
            if value != shown.get(name):
                faults[name] = "This field cannot be changed here"
        elif name in _NEVER:
            faults[name] = "This field cannot be changed here"
        elif name != "current_password":
            free[name] = value
    return values, free, faults


def _merged(profile: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    merged = {**profile, **changes}
    return {name: value for name, value in merged.items() if value is not None}
