"""Where that lies which lets somebody in: beside the account, or, of an administrator, where admin nodes alone write.

Room: which accounts are administrators', and how their credentials are read and written, for the services that own
these (`accounts`, `mfa`, `api_keys`). Any member node can write accounts and second factors, and must, for its users.
Of an administrator nothing of that counts: with the role come documents of models that count from admin nodes alone
(`account_models`), and what those say is in force. Without them nobody is one, whatever the roles say.

The account's own documents follow, so that they are up to date once somebody is no administrator any more.
"""

from collections.abc import Callable

from node.services.account_models import (
    ACCOUNT,
    ADMIN_ACCOUNT,
    ADMIN_MFA,
    ADMIN_ROLE,
    MFA,
    ROLE,
    account_models,
)
from node.services.edits import Edits
from node.services.ports import Record, Records, Values
from node.services.refusals import NotPermitted
from protocol.schema import FieldType, Model

_ADMINS = {ACCOUNT: ADMIN_ACCOUNT, MFA: ADMIN_MFA}


class Administrators:
    def __init__(
        self,
        records: Records,
        edits: Edits,
        *,
        may_author: Callable[[], bool],
        may_stand: Callable[[], bool],
    ) -> None:
        """`may_author()` is False on a reader node, `may_stand()` is True on an admin node."""
        self._records = records
        self._edits = edits
        self._may_author = may_author
        self._may_stand = may_stand
        self._models = {model.name: model for model in account_models("default")}
        self.credential_names = tuple(self._models[ADMIN_ACCOUNT].fields)

    def roles(self, application: str, user: str) -> frozenset[str]:
        granted = self._records.get(application, ROLE, user)
        if granted is None or not fits(self._models[ROLE], granted):
            return frozenset()
        return frozenset(word for word in granted.values.get("roles") or () if isinstance(word, str))

    def credentials(self, application: str, user: str) -> Record | None:
        """What counts of an administrator's account, in the names of `$account`; None of any other."""
        if ADMIN_ROLE not in self.roles(application, user):
            return None
        found = self._records.get(application, ADMIN_ACCOUNT, user)
        return found if found is not None and fits(self._models[ADMIN_ACCOUNT], found) else None

    def model(self, application: str, kind: str, user: str) -> str:
        """The model whose document counts for this user, of `ACCOUNT` or `MFA`."""
        return kind if self.credentials(application, user) is None else _ADMINS[kind]

    def may_write(self, application: str, user: str) -> bool:
        """Whether this node may write credentials of the user."""
        return self._may_author() if self.credentials(application, user) is None else self._may_stand()

    def raise_unless_may(self, application: str, user: str) -> None:
        """Raises `NotPermitted` on a node that may not write credentials of the user."""
        if self.may_write(application, user):
            return
        if not self._may_author():
            raise NotPermitted("This node is a reader of its network: ask on another device")
        raise NotPermitted(
            "An administrator's credentials are written on a device that is an administrator's too"
        )

    async def write(
        self,
        application: str,
        kind: str,
        account: str,
        change: Callable[[Record | None], Values],
        *,
        user: str,
    ) -> None:
        """Change what counts of a user's `ACCOUNT` or `MFA`. As `Edits.write`; raises `NotPermitted`."""
        model = self.model(application, kind, account)
        if model != kind:
            self.raise_unless_may(application, account)
        await self._edits.write(application, model, account, change, user=user)
        if model != kind:
            await self._copy(application, model, kind, account, user=user)

    async def begin(self, application: str, account: str, *, user: str) -> None:
        """Stand for the credentials that an account has, before it is given the role."""
        for kind, model in _ADMINS.items():
            await self._copy(application, kind, model, account, user=user)

    async def leave(self, application: str, account: str, *, user: str) -> None:
        """Have the account's own documents say what counts now, before the role is taken away."""
        for kind, model in _ADMINS.items():
            await self._copy(application, model, kind, account, user=user)

    async def _copy(self, application: str, source: str, target: str, account: str, *, user: str) -> None:
        said = self._records.get(application, source, account)
        names = self._models[source].fields.keys() & self._models[target].fields.keys()
        wanted = {name: None if said is None else said.values.get(name) for name in names}

        def follow(old: Record | None) -> Values:
            if said is None and old is None:
                return {}
            have = {} if old is None else old.values
            changed = {name: value for name, value in wanted.items() if value != have.get(name)}
            if old is None:
                return changed
            sets = {n for n in changed if self._models[target].fields[n].type is FieldType.SET}
            return changed | {name: changed[name] or [] for name in sets}

        await self._edits.write(application, target, account, follow, user=user)


def fits(model: Model, record: Record) -> bool:
    """Whether the fields we know are as they should be; a newer release may have added others."""
    known = {name: value for name, value in record.values.items() if name in model.fields}
    return not model.check_record(known)
