"""API keys: what programs show in place of a session, on every node of the network.

Room: makes keys, finds the one that a text is, and says whose rights it carries. What those are is looked up
at each use; a key never carries more than its user has then, and no more than its scopes.

A key reads `cbk_<id>_<secret>`, with `.<application>` behind it unless that is `default`. The record holds a
hash of the secret alone (256 random bits need no slower one). It counts until it expires, is revoked, or its
user is disabled, signs out everywhere, or is given a new password by an administrator; a user's own change of
password leaves keys as they are.

Keys with the scope `admin`, and all keys of administrators, are documents of a model that only `admin` nodes may
write (`account_models`), so that no `member` node can make one that opens administrator routes elsewhere, or acts as
an administrator. Keys that somebody had before do not count while they are one.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from node.services.account_models import ADMIN_KEY, APIKEY, account_models
from node.services.account_rules import APPLICATION, REQUIRED, Checked
from node.services.accounts import Account, Accounts
from node.services.administrators import Administrators
from node.services.edits import Edits
from node.services.ports import Changed, LocalStore, Record, Records, Values
from node.services.refusals import InvalidFields, NotPermitted, UnknownApiKey
from node.services.scopes import ADMIN, Scopes, check_scopes
from protocol.ids import builtin_model_id
from protocol.query import parse_query
from protocol.times import ms_from_datetime, normal_datetime

PREFIX = "cbk_"
USED = "api-key-used"  # kind of node-local records

KEYS_MAX = 100  # of one user
NAME_MAX = 100
LIFETIME_MIN_S = 60
LIFETIME_MAX_S = 10 * 366 * 86_400
_SECRET_SIZE_BYTES = 32
_USES_MAX = 10_000  # keys whose last use is kept in memory; the oldest go to the record
_TEXT = re.compile(r"cbk_([0-9a-z]{16,40})_([A-Za-z0-9_-]{43})(?:\.(.+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, as its owner may see it."""

    id: str
    application: str
    user: str
    name: str
    scopes: Scopes
    created_at_ms: int
    expires_ms: int | None
    generation: str  # of the account's keys when it was made
    model: str  # where it lies: `APIKEY` or `ADMIN_KEY`


@dataclass(slots=True)
class Use:
    """When a key was last used on this node. Who lets a request in sets `at_ms`; `kept_ms` is on disk."""

    at_ms: int
    kept_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A key that counts, and whose it is."""

    key: ApiKey
    account: Account
    use: Use


class ApiKeys:
    def __init__(
        self,
        records: Records,
        local: LocalStore,
        accounts: Accounts,
        edits: Edits,
        administrators: Administrators,
        *,
        new_id: Callable[[], str],
        random_text: Callable[[int], str],
        now_ms: Callable[[], int],
        changed: Changed,
    ) -> None:
        """`random_text(n)` gives n random bytes as base64url text."""
        self._records = records
        self._local = local
        self._accounts = accounts
        self._edits = edits
        self._administrators = administrators
        self._new_id = new_id
        self._random_text = random_text
        self._now_ms = now_ms
        self._changed = changed
        self._uses: dict[tuple[str, str], Use] = {}
        self._model = next(model for model in account_models("default") if model.name == APIKEY)

    async def create(
        self,
        account: Account,
        *,
        name: object,
        scopes: object,
        expires_at: object = None,
        expires_in: object = None,
        is_admin: bool,
    ) -> tuple[ApiKey, str]:
        """-> the key, and its text, which cannot be had again. `is_admin`: whether the caller may give `admin`.

        Raises InvalidFields, NotPermitted for `admin` without that right or on a node that is no `admin`.
        """
        words, fault = check_scopes(scopes)
        faults = {"scopes": fault} if fault else {}
        title, fault = _check_name(name)
        if fault:
            faults["name"] = fault
        expires_ms, faults_of_expiry = _check_expiry(expires_at, expires_in, self._now_ms())
        faults |= faults_of_expiry
        if faults:
            raise InvalidFields(faults)
        if ADMIN in words and not is_admin:
            raise NotPermitted("Only administrators give the scope admin")
        if len(await self.of_user(account.application, account.id)) >= KEYS_MAX:
            raise NotPermitted(f"A user has at most {KEYS_MAX} API keys: revoke one first")
        id, secret = self._new_id(), self._random_text(_SECRET_SIZE_BYTES)
        values: Values = {
            "user": account.id,
            "name": title,
            "scopes": words,
            "hash": _hash(secret),
            "generation": account.keys_generation,
        }
        if expires_ms is not None:
            values["expires_ms"] = expires_ms
        self._administrators.raise_unless_may(account.application, account.id)
        model = ADMIN_KEY if ADMIN in words or account.is_admin else APIKEY
        await self._edits.write(account.application, model, id, lambda _old: values, user=account.id)
        made = self._get(account.application, id)
        assert made is not None
        where = "" if account.application == "default" else f".{account.application}"
        return made[0], f"{PREFIX}{id}_{secret}{where}"

    async def of_user(self, application: str, user: str) -> list[ApiKey]:
        """A user's keys, oldest first, expired ones too."""
        query = parse_query(
            {"filter": f'user:eq:"{user}"', "order": "asc", "per_page": str(KEYS_MAX)}, self._model
        )
        found: list[ApiKey] = []
        for model in self._models_of(application, user):
            records, _total, _cursor = await self._records.find(application, model, query)
            found += [key for record in records if (key := _key(application, model, record)) is not None]
        return sorted(found, key=lambda key: (key.created_at_ms, key.id))

    def get(self, application: str, id: str) -> ApiKey:
        """A key by its id. Raises UnknownApiKey."""
        found = self._get(application, id)
        if found is None:
            raise UnknownApiKey
        return found[0]

    async def revoke(self, key: ApiKey, *, user: str) -> None:
        """End a key for good, here at once and elsewhere as the news spreads. Durable on return."""
        await self._records.delete(key.application, key.model, key.id, user=user)
        self._changed(builtin_model_id(key.application, key.model), key.id)
        self._uses.pop((key.application, key.id), None)
        await self._local.delete(USED, _place(key.application, key.id))

    def behind(self, text: str) -> Shown | None:
        """The key that `text` is and its account, if both count now. Reads the store; quick."""
        parts = _TEXT.fullmatch(text)
        if parts is None:
            return None
        id, secret, application = parts[1], parts[2], parts[3] or "default"
        if not APPLICATION.fullmatch(application):
            return None
        found = self._get(application, id)
        if found is None or not hmac.compare_digest(found[1], _hash(secret)):
            return None
        key = found[0]
        if key.expires_ms is not None and key.expires_ms <= self._now_ms():
            return None
        if key.model not in self._models_of(application, key.user):
            return None
        account = self._accounts.get(application, key.user)
        if account is None or account.is_disabled or key.generation != account.keys_generation:
            return None
        return Shown(key, account, self._use(application, id))

    # -- last use, of this node ---------------------------------------------------------------------

    def last_used_ms(self, key: ApiKey) -> int | None:
        """When this node last met the key, None if never."""
        use = self._uses.get((key.application, key.id))
        if use is not None:
            return use.at_ms
        entry = self._local.get(USED, _place(key.application, key.id))
        return None if entry is None else int(entry["at_ms"])

    async def keep_uses(self) -> None:
        """Write down what only memory knows. For a timer, and before the node stops."""
        for (application, id), use in list(self._uses.items()):
            at_ms = use.at_ms
            if use.kept_ms != at_ms:
                await self._local.put(USED, _place(application, id), {"at_ms": at_ms})
                use.kept_ms = at_ms
        while len(self._uses) > _USES_MAX:
            del self._uses[next(iter(self._uses))]

    async def forget(self, application: str, id: str) -> None:
        """A key was erased: when it was last used here is not kept."""
        self._uses.pop((application, id), None)
        await self._local.delete(USED, _place(application, id))

    def _use(self, application: str, id: str) -> Use:
        use = self._uses.setdefault((application, id), Use(0))
        use.at_ms = self._now_ms()
        return use

    # -- inside ---------------------------------------------------------------------------------------

    def _models_of(self, application: str, user: str) -> tuple[str, ...]:
        """Where keys lie that count for a user."""
        is_admin = self._administrators.credentials(application, user) is not None
        return (ADMIN_KEY,) if is_admin else (ADMIN_KEY, APIKEY)

    def _get(self, application: str, id: str) -> tuple[ApiKey, str] | None:
        """-> the key and the hash of its secret. None that a member node writes takes the place of another."""
        for model in (ADMIN_KEY, APIKEY):
            record = self._records.get(application, model, id)
            key = None if record is None else _key(application, model, record)
            if record is not None and key is not None:
                return key, str(record.values.get("hash"))
        return None


def _key(application: str, model: str, record: Record) -> ApiKey | None:
    """The key in a document; None for one that no honest node writes."""
    values = record.values
    scopes, expires_ms = values.get("scopes"), values.get("expires_ms")
    if not isinstance(scopes, list) or not isinstance(values.get("user"), str):
        return None
    if expires_ms is not None and type(expires_ms) is not int:
        return None
    parsed = Scopes(scopes)
    if parsed.is_admin and model != ADMIN_KEY:
        return None
    return ApiKey(
        id=record.id,
        application=application,
        user=values["user"],
        name=str(values.get("name") or ""),
        scopes=parsed,
        created_at_ms=record.created_at_ms,
        expires_ms=expires_ms,
        generation=str(values.get("generation") or ""),
        model=model,
    )


def _check_name(value: object) -> Checked:
    if value is None or value == "":
        return None, REQUIRED
    if not isinstance(value, str) or len(value) > NAME_MAX or not value.isprintable():
        return None, f"Must be 1 to {NAME_MAX} printable characters"
    return value, None


def _check_expiry(at: object, within: object, now_ms: int) -> tuple[int | None, dict[str, str]]:
    """When a key expires, None for never; and what is wrong."""
    if at is not None and within is not None:
        return None, dict.fromkeys(("expires_at", "expires_in"), "Give expires_at or expires_in, not both")
    if within is not None:
        if type(within) is not int or not LIFETIME_MIN_S <= within <= LIFETIME_MAX_S:
            return None, {"expires_in": f"Must be {LIFETIME_MIN_S} to {LIFETIME_MAX_S} seconds"}
        return now_ms + within * 1000, {}
    if at is None:
        return None, {}
    normal = normal_datetime(at) if isinstance(at, str) else None
    if normal is None:
        return None, {"expires_at": "Must be a date and time (RFC 3339)"}
    expires_ms = ms_from_datetime(normal)
    if not now_ms < expires_ms <= now_ms + LIFETIME_MAX_S * 1000:
        return None, {"expires_at": "Must be in the future, within ten years"}
    return expires_ms, {}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _place(application: str, id: str) -> str:
    return f"{application}/{id}"
