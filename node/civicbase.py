"""The surface CivicBase (S1), put together: its services, its two ways of following changes, its routes.

Room: composition. The daemon hands in what all surfaces share; what serves S1 alone is made here, started after
the writer and stopped before it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.api.authenticator import Authenticator
from node.api.civicbase.account_admin import routes as account_admin_routes
from node.api.civicbase.admin import AdminRoutes
from node.api.civicbase.api_keys import routes as api_key_routes
from node.api.civicbase.auth import routes as auth_routes
from node.api.civicbase.batch import BatchRoutes
from node.api.civicbase.changes import ChangeRoutes
from node.api.civicbase.conflicts import ConflictRoutes
from node.api.civicbase.data import DataRoutes
from node.api.civicbase.explain import ExplainRoutes
from node.api.civicbase.graphql.routes import GraphQLParts, GraphQLRoutes
from node.api.civicbase.mfa import routes as mfa_routes
from node.api.civicbase.models import ModelRoutes
from node.api.civicbase.network import NetworkRoutes
from node.api.civicbase.plugins import PluginRoutes
from node.api.civicbase.privacy import PrivacyRoutes
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.realtime import routes as realtime_routes
from node.api.civicbase.realtime_edits import RealtimeEdits
from node.api.civicbase.realtime_socket import RealtimeParts
from node.api.civicbase.receipts import PeerReceipts
from node.api.civicbase.sync import SyncRoutes
from node.api.civicbase.transfer import UPLOAD_PREFIX, TransferRoutes
from node.api.civicbase.users import routes as user_routes
from node.api.civicbase.webhooks import WebhookRoutes
from node.api.error_table import ERROR_TABLE
from node.api.errors import from_exception
from node.api.routes import Caller, Route
from node.belonging import Belonging
from node.conflict_feed import ConflictFeed
from node.due import Timers
from node.feed import Feed
from node.metrics import Metrics
from node.net.network import Network
from node.services.conflicts import Conflicts
from node.services.erasing import Erasing
from node.services.explaining import Explanations
from node.services.exporting import Exports
from node.services.forgetting import Forgetting
from node.services.history import Histories
from node.services.identity import Identity
from node.services.importing import Imports
from node.services.local import LocalStore
from node.services.models import Models
from node.services.origins import AllowedOrigins
from node.services.permissions import Ruled
from node.services.plugins import Plugins
from node.services.privacy import Privacy
from node.services.records import Records
from node.services.webhook_events import HookEvents
from node.services.webhooks import WebhookParts, Webhooks
from node.settings import Settings
from node.sharing import Sharing
from protocol.ids import node_of
from protocol.keys import KeyPair
from protocol.schema import Model
from storage.catalog import Catalog, is_builtin
from storage.index import Index
from storage.store import Store


@dataclass(frozen=True, slots=True)
class CivicBaseParts:
    """What is handed in. `steady_ms` never goes back; `is_own(host, port)` is whether this node listens there."""

    store: Store
    keys: KeyPair
    feed: Feed
    metrics: Metrics
    catalog: Catalog
    index: Index
    records: Records
    models: Models
    local: LocalStore
    identity: Identity
    authenticator: Authenticator
    origins: AllowedOrigins
    conflict_feed: ConflictFeed
    network: Network
    belonging: Belonging
    sharing: Sharing
    erasing: Erasing
    plugins: Plugins
    settings: Settings
    owner: Caller
    owner_token: str
    status: Callable[[], dict[str, Any]]
    backup: Callable[[Path], int]
    is_own: Callable[[str, int], bool]
    timers: Timers
    now_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    log: logging.Logger


@dataclass(frozen=True, slots=True)
class AccountRoutesNeed:
    """What the routes about accounts need of the node."""

    identity: Identity
    find_model: Callable[[str, str], Ruled | None]


class CivicBase:
    """`start` it once the writer runs, `stop` it before the writer does."""

    def __init__(self, parts: CivicBaseParts) -> None:
        self._parts = parts
        identity, store = parts.identity, parts.store
        assert store.identity is not None
        self.conflicts = Conflicts(store, parts.catalog, parts.index, parts.records)
        self.realtime = Realtime(
            RealtimeParts(
                feed=parts.conflict_feed,
                documents=parts.records,
                permissions=identity.permissions,
                authenticator=parts.authenticator,
                node_id=store.identity.author[:32],
                steady_ms=parts.steady_ms,
                log=parts.log,
                edit=RealtimeEdits(parts.records, identity.permissions, ERROR_TABLE).make,
                owner_token=parts.owner_token,
                owner=parts.owner,
                conflict=self.conflicts.view,
                breach=lambda application, id: self.privacy.breach(application, id),
            )
        )
        self.changes = ChangeRoutes(self.realtime, self.conflicts_among)
        self.receipts = PeerReceipts(parts.sharing.receipts)
        self.graphql = GraphQLRoutes(
            GraphQLParts(
                models=parts.catalog,
                records=parts.records,
                permissions=identity.permissions,
                receipts=self.receipts,
                realtime=self.realtime,
                streams=self.changes.streams,
                error_table=ERROR_TABLE,
                introspection=parts.settings.graphql_introspection,
                is_local=parts.settings.api.is_loopback,
                new_request_id=lambda: parts.random_bytes(8).hex(),
                log=parts.log,
            )
        )
        self.webhooks = Webhooks(
            WebhookParts(
                feed=parts.feed,
                local=parts.local,
                events=HookEvents(
                    parts.records, identity.accounts, identity.permissions, node_of(store.identity.author)
                ),
                metrics=parts.metrics,
                allow_private=parts.settings.webhooks_allow_private,
                is_own=parts.is_own,
                public_key=parts.keys.public,
                sign=parts.keys.sign,
                new_id=parts.records.new_id,
                now_ms=parts.now_ms,
                seconds=lambda: parts.steady_ms() / 1_000,
                random_bytes=parts.random_bytes,
                timers=parts.timers,
                log=parts.log,
            )
        )
        self.privacy = Privacy(
            store,
            parts.catalog,
            parts.records,
            parts.local,
            identity.api_keys,
            self.webhooks,
            parts.erasing,
            now_ms=parts.now_ms,
        )
        forgetting = Forgetting(store, parts.records, identity)
        parts.erasing.listen(forgetting.forget, forgetting.finish)
        parts.erasing.listen(self.webhooks.forget)

    def start(self) -> None:
        for left in self._parts.settings.data_dir.glob(f"{UPLOAD_PREFIX}*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        self.realtime.start()
        self._parts.erasing.start()
        self.changes.start()
        self.webhooks.start()

    async def stop(self) -> None:
        await self.webhooks.stop()
        self.graphql.stop()
        self.changes.stop()
        await self._parts.erasing.stop()
        await self.realtime.stop()

    async def keep_house(self) -> None:
        """What comes round every hour."""
        self._parts.erasing.look_again()
        await self.privacy.retire(user=self._parts.owner.user_id or "owner")

    def on_members_changed(self) -> None:
        """Other statements count than before."""
        self.realtime.check_all()
        self.changes.streams.check_all()

    def routes(self) -> list[Route]:
        parts = self._parts
        store, records, belonging = parts.store, parts.records, parts.belonging
        permissions = parts.identity.permissions
        accounts = AccountRoutesNeed(parts.identity, self._find_model)
        receipts = self.receipts
        histories = Histories(store, records)
        explanations = Explanations(
            store,
            records,
            lambda: parts.sharing.receipts.holdings,
            lambda node: belonging.devices.name_of(node),
        )
        return [
            *auth_routes(accounts),
            *mfa_routes(accounts),
            *api_key_routes(accounts),
            *user_routes(accounts),
            *account_admin_routes(accounts),
            *PrivacyRoutes(
                accounts,
                self.privacy,
                parts.erasing,
                records,
                permissions,
                find_model=self._find_model,
                name_of=lambda node: belonging.devices.name_of(node),
            ).routes(),
            *ModelRoutes(parts.models, records).routes(),
            *DataRoutes(records, permissions, receipts).routes(),
            *ConflictRoutes(self.conflicts, histories, parts.models, records, permissions).routes(),
            *PluginRoutes(parts.plugins, records, permissions).routes(),
            *TransferRoutes(
                records,
                parts.models,
                permissions,
                Exports(store, records),
                Imports(records, permissions, lambda error: from_exception(error, ERROR_TABLE) is not None),
                ERROR_TABLE,
                parts.settings.data_dir,
            ).routes(),
            *BatchRoutes(records, permissions, ERROR_TABLE, receipts).routes(),
            *realtime_routes(self.realtime),
            *self.graphql.routes(),
            *SyncRoutes(parts.network.status, parts.network.root, self._sync).routes(),
            *self.changes.routes(),
            *WebhookRoutes(self.webhooks).routes(),
            *ExplainRoutes(explanations, records, permissions).routes(),
            *NetworkRoutes(
                belonging.membership, belonging.joining, belonging.bringing, parts.network.network_id.hex()
            ).routes(),
            *AdminRoutes(records, parts.origins, parts.status, parts.backup).routes(),
        ]

    async def conflicts_among(
        self, caller: Caller, touched: Sequence[tuple[str, str, str]]
    ) -> list[dict[str, Any]]:
        """The open conflicts of some documents that the caller may see."""
        found = await self.conflicts.among(caller.application, touched)
        may = self._parts.identity.permissions.check
        return [content for subject, content in found if may(caller, subject.model, "read", subject)]

    def _find_model(self, application: str, name: str) -> Model | None:
        model = self._parts.catalog.find(application, name)
        return None if model is None or is_builtin(model) else model

    async def _sync(self, timeout_s: float, caller: Caller) -> dict[str, Any]:
        synced = await self._parts.network.sync(timeout_s)
        return {"syncedCount": synced.count, "conflicts": await self.conflicts_among(caller, synced.touched)}
