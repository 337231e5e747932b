"""What this node alone keeps about an account and its keys, dropped when they are erased.

Room: which records of which service. `erasing` calls it on every node, and again if it was cut short.

Failed sign-ins are counted by address, whether an account has it or not, so what was counted for an account is not
found from the account, whose addresses are gone. What no account has any more goes instead.
"""

from node.services.account_models import ACCOUNT, ADMIN_ACCOUNT, ADMIN_KEY, APIKEY
from node.services.identity import Identity
from node.services.lockout import key_of
from node.services.records import Records
from protocol.ids import builtin_model_id
from storage.store import Store


class Forgetting:
    """For one event loop."""

    def __init__(self, store: Store, records: Records, identity: Identity) -> None:
        self._store = store
        self._records = records
        self._identity = identity
        self._is_account_gone = False

    async def forget(self, application: str, model: str, id: str) -> None:
        """A document was erased."""
        if model == builtin_model_id(application, ACCOUNT):
            self._is_account_gone = True
            await self._identity.sessions.forget(application, id)
            await self._identity.mfa.forget(application, id)
        elif model in (builtin_model_id(application, APIKEY), builtin_model_id(application, ADMIN_KEY)):
            await self._identity.api_keys.forget(application, id)

    async def finish(self) -> None:
        """After all that were erased together: no address is counted at that no account has."""
        if self._is_account_gone:
            counted = (
                await self._identity.lockout.counted()
            )  # before: an account that comes meanwhile is left alone
            kept = await self._records.in_pool(self._keys_in_use)
            await self._identity.lockout.forget(counted - kept)
            self._is_account_gone = False

    def _keys_in_use(self) -> set[str]:
        """Where failures at the accounts that there are, are counted."""
        found: set[str] = set()
        with self._store.read() as snapshot:
            for application in snapshot.applications():
                for name in (ACCOUNT, ADMIN_ACCOUNT):
                    model = builtin_model_id(application, name)
                    for document in snapshot.documents.all_of(self._store.space(application), model):
                        email = document.values().get("email") if document.exists else None
                        if isinstance(email, str):
                            found.add(key_of(application, email))
        return found
