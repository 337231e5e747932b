"""Multi-factor authentication: a second proof beside the password, by TOTP or recovery code.

Room: who has a second factor, and whether a code is one that was not used before. It counts no failures
itself: `accounts` asks it inside an attempt of the lockout, and the routes about MFA do so here. No
secret and no hash leaves it, but to the user at `enable`.

A secret becomes part of the account with the first code made from it; until then it waits on this node. From
then on it replicates as `$mfa`, since every node must be able to check a code offline. Which codes are spent:

- TOTP: this node keeps the last step it accepted, and takes later ones only. Steps do not replicate.
- Recovery codes: the hash of a used one is noted here, and taken out of the replicated set, so that it is
  spent on every node that has heard of it.

Why the secret is not sealed under the password: nobody is let in by a code alone, so whoever could use the
secret has the password, which would open the seal. TOTP guards against those who know a password; those
who hold a device of the network have its record, passwords' verifiers and secrets alike.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from node.services import totp
from node.services.account_models import MFA
from node.services.administrators import Administrators
from node.services.lockout import Lockout, Source
from node.services.ports import LocalStore, Record, Records, Values
from node.services.refusals import InvalidFields, MfaEnabled, MfaNotEnabled

SPENT = "mfa"  # kinds of node-local records
PENDING = "mfa-pending"

PENDING_MS = 3_600_000  # how long a new secret waits for its first code
ISSUER = "CivicBase"  # seed S1, "Setting Up 2FA"
_SET_SIZE_BYTES = 9

Entry = dict[str, Any]


class Owner(Protocol):
    """Whose second factor it is: an account."""

    @property
    def id(self) -> str: ...
    @property
    def application(self) -> str: ...
    @property
    def email(self) -> str: ...


@dataclass(frozen=True, slots=True)
class MfaStatus:
    """A second factor that is in force, as its owner may see it."""

    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the user is shown, once."""

    secret: str
    uri: str  # for the QR code
    recovery_codes: tuple[str, ...]


class Mfa:
    def __init__(
        self,
        records: Records,
        local: LocalStore,
        administrators: Administrators,
        lockout: Lockout,
        *,
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        self._records = records
        self._local = local
        self._administrators = administrators
        self._lockout = lockout
        self._random_bytes = random_bytes
        self._now_ms = now_ms

    def status(self, application: str, user: str) -> MfaStatus | None:
        """The second factor of an account, None if it has none."""
        record = self._record(application, user)
        if record is None or record.values.get("secret") is None:
            return None
        spent = self._spent(application, user)
        return MfaStatus(len([code for code in _codes(record) if code not in spent.get("codes", ())]))

    # -- coming and going -------------------------------------------------------------------------

    async def enable(self, owner: Owner) -> Enrolment:
        """A new secret, which counts once `verify` has seen a code of it. Raises MfaEnabled.

        Asked again before that, it takes the place of the one before.
        """
        self._administrators.raise_unless_may(owner.application, owner.id)
        if self.status(owner.application, owner.id) is not None:
            raise MfaEnabled
        secret = totp.secret_text(self._random_bytes(totp.SECRET_SIZE_BYTES))
        codes = self._new_codes()
        pending = {
            "secret": secret,
            "codes": _hashes(owner.id, codes),
            "until_ms": self._now_ms() + PENDING_MS,
        }
        await self._local.put(PENDING, _key(owner.application, owner.id), pending)
        issuer = ISSUER if owner.application == "default" else f"{ISSUER} {owner.application}"
        uri = totp.provisioning_uri(secret, account=owner.email, issuer=issuer)
        return Enrolment(secret, uri, codes)

    async def verify(self, owner: Owner, code: object, source: Source) -> None:
        """Put the waiting secret in force by a code of it; with none waiting, check a code.

        A wrong code counts as a failed sign-in. Raises InvalidFields, MfaNotEnabled, TooManyAttempts.
        """
        text = totp.normalised(code)
        if text is None:
            raise InvalidFields({"code": "Must be the 6 digits of a TOTP, or a recovery code"})
        async with self._lockout.attempt(owner.application, owner.email, source) as attempt:
            pending = self._local.get(PENDING, _key(owner.application, owner.id))
            if self.status(owner.application, owner.id) is not None:
                is_right = await self.accepts(owner.application, owner.id, text)
            elif pending is None or pending["until_ms"] < self._now_ms():
                await attempt.withdrawn()
                raise MfaNotEnabled("MFA waits for no code: POST /v1/auth/mfa/enable first")
            else:
                is_right = await self._take_step(owner.application, owner.id, pending["secret"], text)
                if is_right:
                    await self._put_in_force(owner, pending)
            if not is_right:
                raise InvalidFields({"code": "This code is wrong, or was used"})
            await attempt.withdrawn()  # proves no password: the account's failures stay counted

    async def _put_in_force(self, owner: Owner, pending: Entry) -> None:
        values = {"secret": pending["secret"], **self._stored(pending["codes"])}
        await self._administrators.write(owner.application, MFA, owner.id, lambda _old: values, user=owner.id)
        await self._local.delete(PENDING, _key(owner.application, owner.id))

    async def disable(self, application: str, user: str, *, by: str) -> None:
        """The account is left with its password alone. Nothing happens if it has no second factor.

        Whoever asks has proved both factors, or is an administrator.
        """

        def drop(old: Record | None) -> Values:
            return {"secret": None, "set": None, "codes": []} if old is not None else {}

        await self._administrators.write(application, MFA, user, drop, user=by)
        await self._local.delete(PENDING, _key(application, user))

    async def renew_codes(self, application: str, user: str) -> tuple[str, ...]:
        """New recovery codes in the place of all before. Raises MfaNotEnabled."""
        codes = self._new_codes()

        def renew(old: Record | None) -> Values:
            if old is None or old.values.get("secret") is None:
                raise MfaNotEnabled
            return self._stored(_hashes(user, codes))

        await self._administrators.write(application, MFA, user, renew, user=user)
        return codes

    # -- checking ---------------------------------------------------------------------------------

    async def accepts(self, application: str, user: str, code: object) -> bool:
        """Whether `code` is good, which it is once. To be asked inside an attempt of the lockout."""
        text, record = totp.normalised(code), self._record(application, user)
        if text is None or record is None:
            return False
        if totp.is_totp(text):
            secret = record.values.get("secret")
            return isinstance(secret, str) and await self._take_step(application, user, secret, text)
        return await self._take_recovery(application, user, record, totp.recovery_hash(user, text))

    async def forget(self, application: str, user: str) -> None:
        """An account was erased: what this node notes of its second factor goes, a secret that waits as well."""
        for kind in (PENDING, SPENT):
            await self._local.delete(kind, _key(application, user))

    async def sweep(self) -> None:
        """Drop secrets that nobody has verified. For a timer, about once an hour."""
        now_ms = self._now_ms()
        for key in [key for key, entry in self._local.scan(PENDING) if entry["until_ms"] < now_ms]:
            await self._local.delete(PENDING, key)

    async def _take_step(self, application: str, user: str, secret: str, code: str) -> bool:
        step = totp.matching_step(secret, code, self._now_ms() // 1000)
        if step is None:
            return False
        of = hashlib.sha256(secret.encode()).hexdigest()[:16]  # a new secret begins anew

        def take(entry: Entry | None) -> tuple[Entry | None, bool]:
            """Runs on the writer thread: of many at once, one."""
            before = entry or {}
            if before.get("of") == of and step <= before["step"]:
                return entry, False
            return {**before, "of": of, "step": step}, True

        return await self._local.transact(SPENT, _key(application, user), take)

    async def _take_recovery(self, application: str, user: str, record: Record, code: str) -> bool:
        valid = _codes(record)
        if code not in valid:
            return False

        def take(entry: Entry | None) -> tuple[Entry | None, bool]:
            """Runs on the writer thread: of many at once, one."""
            spent = [known for known in (entry or {}).get("codes", ()) if known in valid]
            if code in spent:
                return entry, False
            return {**(entry or {}), "codes": [*spent, code]}, True

        if not await self._local.transact(SPENT, _key(application, user), take):
            return False

        def spend(old: Record | None) -> Values:
            stored = [] if old is None else old.values.get("codes") or []
            left = [text for text in stored if not str(text).endswith(code)]
            return {"codes": left} if len(left) < len(stored) else {}

        if self._administrators.may_write(application, user):  # elsewhere it is spent for this node alone
            await self._administrators.write(application, MFA, user, spend, user=user)
        return True

    # -- inside -----------------------------------------------------------------------------------

    def _record(self, application: str, user: str) -> Record | None:
        return self._records.get(application, self._administrators.model(application, MFA, user), user)

    def _spent(self, application: str, user: str) -> Entry:
        return self._local.get(SPENT, _key(application, user)) or {}

    def _new_codes(self) -> tuple[str, ...]:
        return tuple(
            totp.recovery_code(self._random_bytes(totp.RECOVERY_SIZE_BYTES))
            for _ in range(totp.RECOVERY_CODES)
        )

    def _stored(self, hashes: Iterable[str]) -> Values:
        """Codes of one set bear its name, so that of two sets made apart only one counts."""
        name = self._random_bytes(_SET_SIZE_BYTES).hex()
        return {"set": name, "codes": [f"{name}:{hash}" for hash in hashes]}


def _codes(record: Record) -> frozenset[str]:
    """The hashes of the recovery codes that count."""
    prefix = f"{record.values.get('set')}:"
    stored = [text for text in record.values.get("codes") or () if isinstance(text, str)]
    return frozenset(text.removeprefix(prefix) for text in stored if text.startswith(prefix))


def _hashes(user: str, codes: Iterable[str]) -> list[str]:
    return [totp.recovery_hash(user, totp.normalised(code) or "") for code in codes]


def _key(application: str, user: str) -> str:
    return f"{application}/{user}"
