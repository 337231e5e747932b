"""Accounts: who exists, what they may be called, and proof that they are who they say.

Room: reads and writes the documents of `account_models`, for any surface. It checks passwords and
counts failures, but issues no tokens (`sessions`) and decides no rights (`permissions`). Accounts
belong to one application each. Two nodes apart may make two accounts with one e-mail; both stay,
and signing in tries the password against each.

Any member node can write accounts, passwords included, and must, for its users. Of an administrator nothing of that
counts but what admin nodes have written: `administrators` knows where it lies.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from node.services import account_rules as rules
from node.services import recovery
from node.services.account_models import ACCOUNT, ADMIN_ACCOUNT, ADMIN_ROLE, ROLE, account_models
from node.services.administrators import Administrators, fits
from node.services.edits import Edits
from node.services.keyring import SEED_SIZE_BYTES, UserKey
from node.services.lockout import Attempt, Lockout, Source
from node.services.mfa import Mfa, MfaStatus
from node.services.passwords import Passwords, password_fault
from node.services.ports import Record, Records, Values
from node.services.refusals import (
    EmailTaken,
    InvalidFields,
    MfaNotEnabled,
    MfaRequired,
    UnknownAccount,
    WrongCredentials,
    WrongMfaCode,
    WrongPassword,
    WrongRecoveryCode,
)
from node.services.user_keys import PublicKeys, first_key, next_key, read_keys
from protocol.query import parse_query

NAMESAKES_MAX = 4  # accounts with one e-mail that a sign-in tries; each costs a password check
GENERATION_SIZE_BYTES = 12
_NO_PASSWORD = object()


@dataclass(frozen=True, slots=True)
class Account:
    """One account as it stands. Never rendered whole: `verifier` stays inside."""

    id: str
    application: str
    email: str
    username: str
    is_disabled: bool
    roles: frozenset[str]
    interests: tuple[str, ...]
    profile: Mapping[str, Any]
    created_at_ms: int
    updated_at_ms: int
    version: str
    generation: str
    kept_session: str | None
    mfa: MfaStatus | None
    keys_generation: str
    keys: PublicKeys | None
    recovery: str | None = field(repr=False)
    is_admin: bool  # by the role and by credentials that an admin node stands for
    verifier: str | None = field(repr=False)
    key: bytes | None = field(
        default=None, repr=False
    )  # what the password opened, of an account that has just proved itself

    def accepts_session(self, session: str | None, generation: str | None) -> bool:
        """Whether a session begun under `generation` outlived every change of password since."""
        if generation is None or generation == self.generation:
            return True
        return session is not None and session == self.kept_session


class Accounts:
    def __init__(
        self,
        records: Records,
        passwords: Passwords,
        lockout: Lockout,
        mfa: Mfa,
        edits: Edits,
        administrators: Administrators,
        *,
        new_id: Callable[[], str],
        random_text: Callable[[int], str],
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        """`random_text(n)` gives n random bytes as text."""
        self._records = records
        self._passwords = passwords
        self._lockout = lockout
        self._mfa = mfa
        self._new_id = new_id
        self._random_text = random_text
        self._random_bytes = random_bytes
        self._now_ms = now_ms
        self._edits = edits
        self._administrators = administrators
        self._emails_claimed: set[tuple[str, str]] = set()
        # Fields are the same in every application, and they are all that queries and checks need.
        self._model = next(model for model in account_models("default") if model.name == ACCOUNT)

    # -- reading ----------------------------------------------------------------------------

    def get(self, application: str, user: str) -> Account | None:
        """The account, disabled or not. Reads the store; does not block for long."""
        return self._account(application, user, self._records.get(application, ACCOUNT, user))

    def require(self, application: str, user: str) -> Account:
        """The account. Raises UnknownAccount."""
        account = self.get(application, user)
        if account is None:
            raise UnknownAccount
        return account

    def public_key_of(self, application: str, user: str) -> bytes | None:
        """What to encrypt to for a user; None for somebody who is not there, or has no password yet."""
        account = self.get(application, user)
        return None if account is None or account.keys is None else account.keys.newest

    async def find_by_email(self, application: str, email: str) -> list[Account]:
        """The accounts with this (normalised) e-mail: one, as a rule. Administrators first, so that no number of others
        hides them, then the oldest."""
        value = email.replace("\\", "\\\\").replace('"', '\\"')
        query = parse_query(
            {"filter": f'email:eq:"{value}"', "order": "asc", "per_page": str(NAMESAKES_MAX)}, self._model
        )
        found: dict[str, Account | None] = {}
        for model in (ADMIN_ACCOUNT, ACCOUNT):
            records, _total, _cursor = await self._records.find(application, model, query)
            found |= {record.id: self.get(application, record.id) for record in records}
        return [account for account in found.values() if account is not None and account.email == email]

    async def page(
        self, application: str, *, page: int, per_page: int, with_disabled: bool
    ) -> tuple[list[Account], int]:
        """Accounts, oldest first, and how many there are in all."""
        params = {"page": str(page), "per_page": str(per_page), "order": "asc"}
        if not with_disabled:
            params["filter"] = "disabled:ne:true"
        records, total, _cursor = await self._records.find(
            application, ACCOUNT, parse_query(params, self._model)
        )
        return self._accounts(application, records), total

    async def each(self, application: str) -> AsyncIterator[Account]:
        """Every account, oldest first, read page by page."""
        params = {"per_page": "100", "order": "asc"}
        while True:
            query = parse_query(params, self._model)
            records, _total, cursor = await self._records.find(application, ACCOUNT, query)
            for account in self._accounts(application, records):
                yield account
            if cursor is None:
                return
            params["cursor"] = cursor

    # -- making -----------------------------------------------------------------------------

    async def register(
        self, application: str, *, email: object, username: object, password: object
    ) -> Account:
        """Someone makes an account of their own. Raises InvalidFields, EmailTaken, TooBusy."""
        fields = _checked(email, username, password)
        return await self._create(application, fields, str(password), user=None, roles=())

    async def create(self, application: str, *, email: object, username: object, user: str) -> Account:
        """An administrator makes an account, which cannot sign in before a password is set."""
        fields = _checked(email, username, _NO_PASSWORD)
        return await self._create(application, fields, None, user=user, roles=())

    async def create_admin(
        self, application: str, *, email: object, username: object, password: object, user: str
    ) -> Account:
        """A new administrator. Without a `username`, the e-mail up to its `@` serves."""
        if username is None and isinstance(email, str):
            username = email.strip().rpartition("@")[0][: rules.USERNAME_MAX] or "admin"
        fields = _checked(email, username, password)
        return await self._create(application, fields, str(password), user=user, roles=(ADMIN_ROLE,))

    async def _create(
        self,
        application: str,
        fields: Values,
        password: str | None,
        *,
        user: str | None,
        roles: Iterable[str],
    ) -> Account:
        async with self.claim_email(application, fields["email"]):
            account = self._new_id()
            if password is not None:
                key = UserKey.of(self._random_bytes(SEED_SIZE_BYTES))
                fields |= await self._new_credentials(password, key, kept_session=None)
                fields["keys"] = first_key(account, key)
            author = user or account
            given = {name: value for name, value in fields.items() if value is not None}
            # Rights first: a crash in between leaves a grant to nobody, not an administrator without one.
            if roles:
                given_roles: Values = {"roles": sorted(roles)}
                await self._edits.write(application, ADMIN_ACCOUNT, account, lambda _old: given, user=author)
                await self._edits.write(application, ROLE, account, lambda _old: given_roles, user=author)
            await self._edits.write(application, ACCOUNT, account, lambda _old: given, user=author)
        return self.require(application, account)

    @asynccontextmanager
    async def claim_email(self, application: str, email: str) -> AsyncIterator[None]:
        """Hold a free e-mail address while an account that bears it is written. Raises EmailTaken."""
        claim = (application, email)
        if claim in self._emails_claimed:  # the index knows an e-mail only once it is written
            raise EmailTaken
        self._emails_claimed.add(claim)
        try:
            if await self.find_by_email(application, email):
                raise EmailTaken
            yield
        finally:
            self._emails_claimed.discard(claim)

    # -- signing in, and what guards it -------------------------------------------------------

    async def prove(
        self, application: str, email: str, password: str, source: Source, *, mfa_code: object = None
    ) -> Account:
        """The account that e-mail and password belong to, and the second factor if it has one.

        Raises TooManyAttempts, TooBusy, and WrongCredentials alike for an unknown e-mail, a wrong
        password, an account without one and a disabled one, after the same work. With the right
        password, MfaRequired and WrongMfaCode.
        """
        address, fault = rules.check_email(email)
        if fault:
            address = "?"  # no account has it; it is counted and costs the same
        async with self._lockout.attempt(application, address, source) as attempt:
            account = await self._match(application, address, password)
            if account is None:
                raise WrongCredentials
            await self._check_factor(account, mfa_code, attempt)
            await attempt.passed()
        if (
            account.verifier is not None
            and self._passwords.is_outdated(account.verifier)
            and self._administrators.may_write(application, account.id)
        ):
            assert account.key is not None
            renewed: Values = {"verifier": await self._passwords.make_verifier(password, account.key)}
            await self.edit(application, account.id, lambda _old: renewed, user=account.id)
        return account

    async def _check_factor(self, account: Account, mfa_code: object, attempt: Attempt) -> None:
        """Raises MfaRequired or WrongMfaCode, if the account has a second factor."""
        if account.mfa is not None:
            if mfa_code is None:
                await attempt.withdrawn()  # not `passed`: codes could be guessed in between for ever
                raise MfaRequired
            if not await self._mfa.accepts(account.application, account.id, mfa_code):
                raise WrongMfaCode

    async def _match(self, application: str, email: str, password: str) -> Account | None:
        found = await self.find_by_email(application, email)
        able = [account for account in found if account.verifier is not None and not account.is_disabled]
        for account in able:
            key = await self._passwords.open(account.verifier, password)
            if key is not None:
                return replace(account, key=key)
        if not able:
            await self._passwords.open(None, password)
        return None

    async def change_password(
        self, account: Account, current: object, new: object, *, session: str | None, source: Source
    ) -> None:
        """The account's owner sets a new password; every session but `session` ends, on every node."""
        faults = {"new_password": fault} if (fault := password_fault(new)) else {}
        if not current or not isinstance(current, str):
            faults["current_password"] = "Must be a string" if current else rules.REQUIRED
        if faults or not isinstance(current, str) or not isinstance(new, str):
            raise InvalidFields(faults)
        self._administrators.raise_unless_may(account.application, account.id)
        key = await self.confirm(account, current, source)
        values = await self._new_credentials(new, UserKey.of(key), kept_session=session)
        await self.edit(account.application, account.id, lambda _old: values, user=account.id)

    async def confirm(self, account: Account, password: str, source: Source) -> bytes:
        """Prove the password again before something weighty. Returns the account's key.

        Raises WrongPassword, TooManyAttempts.
        """
        async with self._lockout.attempt(account.application, account.email, source) as attempt:
            key = await self._passwords.open(account.verifier, password)
            if key is None:
                raise WrongPassword
            await attempt.passed()
        return key

    async def confirm_all(self, account: Account, password: str, mfa_code: str, source: Source) -> None:
        """Prove both factors again. Raises MfaNotEnabled, InvalidFields, TooManyAttempts."""
        if account.mfa is None:
            raise MfaNotEnabled
        async with self._lockout.attempt(account.application, account.email, source) as attempt:
            if await self._passwords.open(account.verifier, password) is None:
                raise InvalidFields({"password": "The current password is wrong"})
            if not await self._mfa.accepts(account.application, account.id, mfa_code):
                raise InvalidFields({"code": "This code is wrong, or was used"})
            await attempt.passed()

    async def set_password(self, application: str, account: str, new: object, *, user: str) -> None:
        """An administrator sets a password; sessions and API keys of the account end, its count is cleared.

        The account gets another key: nobody can open what was sealed to the one before, and nobody else's reset can.
        """
        if (fault := password_fault(new)) or not isinstance(new, str):
            raise InvalidFields({"password": fault or rules.REQUIRED})
        known = self.require(application, account)
        self._administrators.raise_unless_may(application, account)
        key = UserKey.of(self._random_bytes(SEED_SIZE_BYTES))
        values = await self._new_credentials(new, key, kept_session=None)
        values["keys_generation"] = values["generation"]

        def reset(old: Record) -> Values:
            return {**values, "keys": next_key(account, old.values.get("keys"), key, None), "recovery": None}

        await self.edit(application, account, reset, user=user)
        await self._lockout.clear(application, known.email)

    async def reset_mfa(self, application: str, account: str, *, user: str) -> None:
        """An administrator takes a second factor away, for an owner who has lost it."""
        self.require(application, account)
        await self._mfa.disable(application, account, by=user)

    async def set_disabled(self, application: str, account: str, is_disabled: bool, *, user: str) -> None:
        """A disabled account cannot sign in, and its sessions and API keys end for good."""
        values: Values = {"disabled": is_disabled}
        if is_disabled:
            values |= self._ending_all()
        await self.edit(application, account, lambda _old: values, user=user)

    async def end_all(self, account: Account) -> None:
        """Sign out everywhere: every session and API key of the account ends, on every node."""
        values = self._ending_all()
        await self.edit(account.application, account.id, lambda _old: values, user=account.id)

    def _ending_all(self) -> Values:
        generation = self._random_text(GENERATION_SIZE_BYTES)
        return {"generation": generation, "kept_session": None, "keys_generation": generation}

    async def new_recovery_code(self, account: Account, password: object, source: Source) -> str:
        """A code that opens the account's key without the password, shown once; the one before counts no more.

        Raises InvalidFields, WrongPassword, TooManyAttempts.
        """
        if not password or not isinstance(password, str):
            raise InvalidFields({"password": "Must be a string" if password else rules.REQUIRED})
        key = await self.confirm(account, password, source)
        code = self._random_bytes(recovery.CODE_SIZE_BYTES)
        sealed = recovery.seal(code, key, account.id, self._random_bytes)
        await self.edit(account.application, account.id, lambda _old: {"recovery": sealed}, user=account.id)
        return recovery.code_text(code)

    async def recover(
        self, application: str, email: str, code: str, new: object, source: Source, *, mfa_code: object = None
    ) -> Account:
        """The owner sets a new password by the recovery code; sessions end, the key and what it opens stay.

        Raises InvalidFields, WrongRecoveryCode, TooManyAttempts, as `prove` where a second factor is set, and
        NotPermitted for an administrator on a node that is no `admin`.
        """
        if (fault := password_fault(new)) or not isinstance(new, str):
            raise InvalidFields({"new_password": fault or rules.REQUIRED})
        address, fault = rules.check_email(email)
        async with self._lockout.attempt(application, "?" if fault else address, source) as attempt:
            found = [] if fault else await self.find_by_email(application, address)
            opened = [
                (one, recovery.opened(code, one.recovery, one.id)) for one in found if not one.is_disabled
            ]
            account, key = next(((one, key) for one, key in opened if key is not None), (None, None))
            if account is None or key is None:
                raise WrongRecoveryCode
            await self._check_factor(account, mfa_code, attempt)
            await attempt.passed()
        self._administrators.raise_unless_may(application, account.id)
        values = await self._new_credentials(new, UserKey.of(key), kept_session=None)
        await self.edit(application, account.id, lambda _old: {**values, "recovery": None}, user=account.id)
        return replace(self.require(application, account.id), key=key)

    async def _new_credentials(self, password: str, key: UserKey, *, kept_session: str | None) -> Values:
        return {
            "verifier": await self._passwords.make_verifier(password, key.seed),
            "generation": self._random_text(GENERATION_SIZE_BYTES),
            "kept_session": kept_session,
            "credentials_at": self._now_ms(),
        }

    # -- rights -----------------------------------------------------------------------------

    async def grant_role(self, application: str, account: str, role: object, *, user: str) -> None:
        """Give a role; `admin` makes an administrator, and stands for the credentials that the account has.

        Raises InvalidFields, UnknownAccount.
        """
        name, fault = rules.check_role(role)
        if fault:
            raise InvalidFields({"role": fault})
        known = self.require(application, account)
        if name == ADMIN_ROLE and not known.is_admin:
            await self._administrators.begin(application, account, user=user)
        await self._edits.write(application, ROLE, account, lambda old: _with_role(old, name), user=user)

    async def withdraw_role(self, application: str, account: str, role: str, *, user: str) -> None:
        """Take a role away; nothing happens if the account has not got it."""
        known = self.require(application, account)
        if role == ADMIN_ROLE and known.is_admin:
            await self._administrators.leave(application, account, user=user)
        await self._edits.write(application, ROLE, account, lambda old: _without_role(old, role), user=user)

    async def edit(
        self, application: str, account: str, change: Callable[[Record], Values], *, user: str
    ) -> None:
        """Change the credentials of an account that exists, its names included. Raises UnknownAccount, NotPermitted."""

        def existing(old: Record | None) -> Values:
            if old is None:
                raise UnknownAccount
            return change(old)

        await self._administrators.write(application, ACCOUNT, account, existing, user=user)

    def _accounts(self, application: str, records: Iterable[Record]) -> list[Account]:
        found = (self._account(application, record.id, record) for record in records)
        return [account for account in found if account is not None]

    def _account(self, application: str, user: str, record: Record | None) -> Account | None:
        """The account in a document. One that its model does not allow, as a peer could write it, is nobody's; an
        administrator has one without it."""
        if record is not None and not fits(self._model, record):
            record = None
        counting = self._administrators.credentials(application, user)
        shown = record or counting
        if shown is None:
            return None
        values = {} if record is None else dict(record.values)
        if counting is not None:
            values |= {name: counting.values.get(name) for name in self._administrators.credential_names}
        return Account(
            id=user,
            application=application,
            email=values["email"],
            username=values["username"],
            is_disabled=bool(values.get("disabled")),
            roles=self._administrators.roles(application, user),
            interests=tuple(word for word in values.get("interests") or () if isinstance(word, str)),
            profile=profile if isinstance(profile := values.get("profile"), dict) else {},
            created_at_ms=shown.created_at_ms,
            updated_at_ms=shown.updated_at_ms,
            version=shown.version,
            generation=values.get("generation") or "",
            kept_session=values.get("kept_session"),
            mfa=self._mfa.status(application, user),
            keys_generation=values.get("keys_generation") or "",
            keys=read_keys(user, values.get("keys")),
            recovery=values.get("recovery"),
            is_admin=counting is not None,
            verifier=values.get("verifier"),
        )


def registration_faults(email: object, username: object, password: object) -> dict[str, str]:
    """Every fault of what someone would register with."""
    found = {
        "email": rules.check_email(email)[1],
        "username": rules.check_username(username)[1],
        "password": None if password is _NO_PASSWORD else password_fault(password),
    }
    return {name: fault for name, fault in found.items() if fault}


def _checked(email: object, username: object, password: object) -> Values:
    """The fields of a new account. Raises InvalidFields."""
    faults = registration_faults(email, username, password)
    if faults:
        raise InvalidFields(faults)
    return {
        "email": rules.check_email(email)[0],
        "username": rules.check_username(username)[0],
        "disabled": False,
    }


def _with_role(old: Record | None, role: str) -> Values:
    have = [] if old is None else old.values.get("roles") or []
    return {} if role in have else {"roles": sorted([*have, role])}


def _without_role(old: Record | None, role: str) -> Values:
    have = [] if old is None else old.values.get("roles") or []
    return {"roles": [name for name in have if name != role]} if role in have else {}
