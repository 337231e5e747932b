"""The daemon: builds every part of a node, starts them in order, and stops them in the reverse order.

Room: composition. No part is decided about here; each is handed its clock, its randomness and its neighbours,
so that many nodes fit into one process. `run` is what `civicnode start` calls.
"""

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from node.api.app import build_app
from node.api.authenticator import Authenticator, owner_caller
from node.api.error_table import ERROR_TABLE
from node.api.middleware import FrameParts
from node.api.ratelimit import RatePolicy
from node.api.routes import Caller
from node.api.runner import ApiServer, tls_context
from node.api.system import System
from node.belonging import Belonging, BelongingParts
from node.civicbase import CivicBase, CivicBaseParts
from node.conflict_feed import ConflictFeed
from node.feed import Feed
from node.listening import is_of_this_machine
from node.logs import make_logger
from node.metrics import Metrics
from node.net.network import Network, NetworkParts
from node.pace import Pace, Pauses
from node.randomness import RandomPool
from node.services.builtin import builtin_models
from node.services.business_logic import BusinessLogic
from node.services.canary import Canary
from node.services.erasing import Erasing, ErasingParts
from node.services.idempotency import Idempotency
from node.services.identity import build_identity
from node.services.local import LocalStore
from node.services.models import Models
from node.services.named import NamedRecords
from node.services.origins import AllowedOrigins
from node.services.owner import ensure_owner_token
from node.services.plugin_answers import answers_for
from node.services.plugin_strategies import PluginStrategies
from node.services.plugins import Plugins
from node.services.records import Records
from node.services.screening import Screen, quarantined_of
from node.services.sealing import Sealing
from node.settings import Settings
from node.sharing import Sharing, SharingParts
from node.writer import Writer, count_writes
from protocol.changes import Record
from protocol.clock import HybridClock
from protocol.roles import Role
from storage.backup import backup_store
from storage.catalog import Catalog
from storage.changes import Written
from storage.errors import IndexDamaged, StorageError
from storage.feed_entry import FeedEntry
from storage.gate import INDEX_FILE
from storage.index import Index
from storage.integrator import Integrator
from storage.opening import OpenRecord, open_record

RUN_FILE = "run.json"
HOUR_S = 3_600
WARM_AFTER_S = 1.0  # after the first requests have been answered, before someone signs in
BENCH_FLUSH_DELAY = "CIVICNODE_BENCH_FLUSH_DELAY_MS"  # for `civicnode bench`: what a slower disk would do


def program_version() -> str:
    try:
        return version("civicnode")
    except PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class World:
    """Where time and randomness come from."""

    random: RandomPool = field(default_factory=RandomPool)
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    seconds: Callable[[], float] = time.perf_counter

    @property
    def random_bytes(self) -> Callable[[int], bytes]:
        return self.random.bytes

    @property
    def random_bits(self) -> Callable[[int], int]:
        return self.random.bits


@dataclass(frozen=True, slots=True)
class NewLife:
    """A node that starts again in the same process: why it goes on as a new author, if it does, and its sockets."""

    reason: str | None
    sockets: list[socket.socket]


class Node:
    """One node. `start` it on an event loop, `stop` it once; nothing of it outlives `stop`."""

    def __init__(
        self,
        settings: Settings,
        world: World | None = None,
        new_life: NewLife | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.settings = settings
        self._new_life = new_life
        # Resolved when the node must start again in place: why it goes on as a new author, if that is the reason.
        self.renewal: asyncio.Future[str | None] | None = None
        self.world = world or World()
        self.log = make_logger(
            level=settings.log_level,
            format=settings.log_format,
            stream=sys.stderr,
            clock_ms=self.world.now_ms,
        )
        self.metrics = Metrics()
        self.pace = pace or Pace()
        self.plugins = Plugins(settings.plugins_dir, self.log)
        self.record: OpenRecord | None = None
        self.url = ""
        self._started_ms = self.world.now_ms()

    async def start(self) -> None:
        """Open the record, start the writer, listen. Raises `StorageError`, `CannotListen` or OSError."""
        directory = self.settings.data_dir
        flush_delay_ms = float(os.environ.get(BENCH_FLUSH_DELAY, "0"))
        self.record = open_record(
            directory,
            now_ms=self.world.now_ms(),
            random_bytes=self.world.random_bytes,
            flush_delay_ms=flush_delay_ms,
            new_life=self._new_life.reason if self._new_life is not None else None,
        )
        self.renewal = asyncio.get_running_loop().create_future()
        try:
            await self.plugins.start()
            self._build(self.record, directory)
            self.network.bind()
            self.writer.start()
            self.sharing.start()
            self.civicbase.start()
            listening = await self.server.start()
            self.network.start()
            self.belonging.start()
        except BaseException:
            await self._stop_parts()
            raise
        self.url = listening.url
        self.server.allow_origins(self.origins.listed())
        self._housekeeping = asyncio.create_task(self._keep_house())
        _write_run_file(directory, self.url, self._started_ms, self.settings.api_tls_cert)

    def _build(self, record: OpenRecord, directory: Path) -> None:
        store, world, settings = record.store, self.world, self.settings
        assert store.identity is not None
        strategies = PluginStrategies(self.plugins, self.log, world.seconds)
        self.catalog = Catalog(store, strategies.resolver_of)
        for model in builtin_models():
            self.catalog.add_builtin(model)
        with store.read() as snapshot:
            self.catalog.load(snapshot)
        self.index = _open_index(directory / INDEX_FILE)
        self.integrator = Integrator(
            store, self.index, self.catalog, record.keys, HybridClock(), world.random_bytes, record.note,
            on_step=Pauses(self.pace),
        )  # fmt: skip
        self.integrator.indexer.open()
        self.feed = Feed(store, world.now_ms)
        self.conflict_feed = ConflictFeed(self.feed, self.index)
        self.writer = Writer(
            self.integrator,
            now_ms=world.now_ms,
            on_written=self._on_written,
            on_stored=self._on_stored,
            on_durable=lambda written: self.network.on_durable(written),
            on_members_changed=self._on_members_changed,
            on_caught_up=self.feed.caught_up,
            log=self.log,
        )
        self.sharing = Sharing(
            SharingParts(
                store=store,
                catalog=self.catalog,
                integrator=self.integrator,
                writer=self.writer,
                now_ms=world.now_ms,
                timers=asyncio.get_running_loop(),
                log=self.log,
            )
        )
        self.records = Records(
            store,
            self.catalog,
            self.index,
            self.writer,
            now_ms=world.now_ms,
            random_bits=world.random_bits,
            is_index_stale=self.integrator.indexer.is_stale_for,
        )
        node_id = store.identity.author[:32]
        self.models = Models(
            self.records,
            self.catalog,
            may_govern=lambda: store.members.role_of(node_id) is Role.ADMIN,
            strategy_named=self.plugins.strategy_named,
        )
        self.local = LocalStore(store, self.writer)
        self.idempotency = Idempotency(self.local, now_ms=world.now_ms)
        self.identity = build_identity(
            records=NamedRecords(self.records),
            local=self.local,
            node_id=node_id.hex(),
            network_id=store.identity.network_id.hex(),
            seed=record.keys.seed,
            issuer_role=lambda node: store.members.role_of(bytes.fromhex(node)),
            new_id=self.records.new_id,
            random_bytes=world.random_bytes,
            now_ms=world.now_ms,
            lifetime_s=settings.jwt_expires_s,
            shared_secret=settings.jwt_secret,
        )
        self.authenticator = Authenticator(
            self.identity.tokens, self.identity.sessions, self.identity.api_keys, now_ms=world.now_ms
        )
        self.identity.changes.listen(self.authenticator.on_change)
        self.records.sealing = Sealing(
            self.identity.keyring, self.records.get, self.identity.accounts.public_key_of, world.random_bytes
        )
        self.records.logic = BusinessLogic(
            self.plugins,
            self.records.get,
            Record.facts,
            answers_for(self.records, self.identity.permissions),
            self.log,
        )
        self.origins = AllowedOrigins(
            self.local, settings.origins, lambda all: self.server.allow_origins(all)
        )
        self.erasing = Erasing(
            ErasingParts(
                store=store,
                writer=self.writer,
                records=self.records,
                indexer=self.integrator.indexer,
                index=self.index,
                compaction=record.compaction,
                user=settings.name or os.uname().nodename,
                log=self.log,
            )
        )
        self.erasing.listen(self.idempotency.forget)
        self.canary = Canary(self.log)
        self.network = Network(
            NetworkParts(
                store=store,
                keys=record.keys,
                writer=self.writer,
                submit=Screen(store, self.writer, self.canary, self.log, now_ms=world.now_ms).submit,
                metrics=self.metrics,
                log=self.log,
                pace=self.pace,
                directory=directory,
                listen=settings.listen,
                peers=settings.peers,
                mdns=settings.mdns,
                clock_ms=world.now_ms,
                steady_ms=lambda: int(world.seconds() * 1_000),
                random_bytes=world.random_bytes,
                on_rolled_back=self._on_rolled_back,
                on_in_sync=self.sharing.on_in_sync,
                on_peer_holds=self.sharing.receipts.on_peer_holds,
                name_of=lambda node: self.belonging.devices.name_of(node),
                on_admitted=lambda node, name: self.belonging.on_admitted(node, name),
            )
        )
        count_writes(self.metrics, self.writer, store, self.integrator.indexer)
        name = settings.name or os.uname().nodename
        token, owner = ensure_owner_token(directory, self._random_text), owner_caller(name)
        self.belonging = Belonging(
            BelongingParts(
                record=record,
                catalog=self.catalog,
                records=self.records,
                writer=self.writer,
                local=self.local,
                identity=self.identity,
                network=lambda: self.network,
                name=name,
                user=owner.user_id or "owner",
                start_again=self._start_again,
                now_ms=world.now_ms,
                steady_ms=lambda: int(world.seconds() * 1_000),
                random_bytes=world.random_bytes,
                log=self.log,
            )
        )
        self.civicbase = CivicBase(
            CivicBaseParts(
                store=store,
                keys=record.keys,
                feed=self.feed,
                metrics=self.metrics,
                catalog=self.catalog,
                index=self.index,
                records=self.records,
                models=self.models,
                local=self.local,
                identity=self.identity,
                authenticator=self.authenticator,
                origins=self.origins,
                conflict_feed=self.conflict_feed,
                network=self.network,
                belonging=self.belonging,
                sharing=self.sharing,
                erasing=self.erasing,
                plugins=self.plugins,
                settings=settings,
                owner=owner,
                owner_token=token,
                status=self.status,
                backup=self._backup,
                is_own=self._is_own,
                timers=asyncio.get_running_loop(),
                now_ms=world.now_ms,
                steady_ms=lambda: int(world.seconds() * 1_000),
                random_bytes=world.random_bytes,
                log=self.log,
            )
        )
        parts = FrameParts(
            clock_ms=world.now_ms,
            seconds=world.seconds,
            new_request_id=lambda: world.random_bytes(8).hex(),
            log=self.log,
            metrics=self.metrics,
            authenticator=self.authenticator,
            owner_token=token,
            owner=owner,
            rates={
                "s1": RatePolicy(
                    HOUR_S, settings.s1_rate_limit_authenticated, settings.s1_rate_limit_anonymous
                )
            },
            error_table=ERROR_TABLE,
            idempotency=self.idempotency,
            log_requests=settings.log_requests,
        )
        system = System(
            version=program_version(),
            started_ms=self._started_ms,
            changelog=_changelog(),
            models_of=lambda application: list(self.catalog.models_of(application)),
            health_of=self._health,
        )
        frame = build_app(self.civicbase.routes(), parts, system)
        self.server = ApiServer(
            frame,
            settings.api,
            self.log,
            tls=_tls(settings),
            names=settings.hosts,
            origins=self.origins.listed(),
            sockets=self._new_life.sockets if self._new_life is not None else (),
            pace=self.pace,
        )

    def _start_again(self, reason: str | None = None) -> None:
        """Stop and start in place, with the record and the keys that are there then."""
        assert self.renewal is not None
        if not self.renewal.done():
            self.renewal.set_result(reason)

    async def _keep_house(self) -> None:
        """What need not hold up the start, and what comes round every hour."""
        await asyncio.sleep(WARM_AFTER_S)
        await asyncio.to_thread(self.identity.tokens.warm)
        while True:
            await asyncio.sleep(HOUR_S)
            try:
                await self.identity.sweep(self.catalog.applications())
                await self.idempotency.sweep()
                await self.civicbase.keep_house()
            except StorageError as error:
                self.log.warning("sweeping failed", extra={"data": {"reason": str(error)}})

    def _random_text(self, size_bytes: int) -> str:
        return base64.urlsafe_b64encode(self.world.random_bytes(size_bytes)).rstrip(b"=").decode("ascii")

    def _on_rolled_back(self, event: object) -> None:
        """A peer holds commits of ours that we lack: not one more may be signed as the author that we were."""
        self.writer.freeze("this node goes on as a new author: try again")
        self._start_again("a peer holds commits of this node that are not in its record any more")

    def _on_written(self, entries: Sequence[FeedEntry]) -> None:
        self.records.forget(entries)
        self.network.on_entries(entries)
        self.erasing.on_entries(entries)
        for entry in entries:
            if entry.model.startswith("$"):
                self.identity.on_change(entry.model, entry.id)
        self.feed.publish(entries)

    def _on_stored(self, written: Written) -> None:
        self.network.on_stored(written)
        self.belonging.on_stored()
        if written.conflicts:
            self.conflict_feed.publish(written)
        self.sharing.on_stored()

    def _on_members_changed(self) -> None:
        """Other statements count than before: every token is judged again. Links see to themselves."""
        self.authenticator.forget_all()
        self.civicbase.on_members_changed()
        self.sharing.on_members_changed()

    def _health(self, caller: Caller) -> Mapping[str, object]:
        assert self.record is not None and self.record.store.identity is not None
        state = "catching_up" if self.integrator.indexer.is_stale else "ready"
        return {"node_id": self.record.store.identity.author[:32].hex(), "index": state}

    def status(self) -> dict[str, Any]:
        """What this node is and holds, for `civicnode status`."""
        assert self.record is not None and self.record.store.identity is not None
        store = self.record.store
        identity = store.identity
        assert identity is not None
        directory = self.settings.data_dir
        return {
            "node_id": identity.author[:32].hex(),
            "network_id": identity.network_id.hex(),
            "name": self.settings.name or os.uname().nodename,
            "version": program_version(),
            "data_dir": str(directory),
            "api": self.url,
            "uptime_s": (self.world.now_ms() - self._started_ms) // 1000,
            **store.counts(),
            "index": {"behind": int(self.integrator.indexer.is_stale)},
            "quarantined": quarantined_of(store),
            "plugins": self.plugins.status(),
            **self._peers_status(),
            "webhooks": self.civicbase.webhooks.status(),
            "disk_bytes": sum(file.stat().st_blocks * 512 for file in directory.iterdir() if file.is_file()),
        }

    def _peers_status(self) -> dict[str, Any]:
        told = self.network.status()
        return {name: told[name] for name in ("listen", "peers", "in_sync", "warnings")}

    def _is_own(self, host: str, port: int) -> bool:
        """Whether this node listens there."""
        api = self.server.listening
        ports = {self.network.listening.port, api.address.port if api is not None else port}
        return port in ports and is_of_this_machine(host)

    def _backup(self, path: Path) -> int:
        assert self.record is not None
        return backup_store(self.record, path)

    async def stop(self) -> None:
        """Answer what is under way, write what is pending, close the record cleanly."""
        with contextlib.suppress(FileNotFoundError):
            (self.settings.data_dir / RUN_FILE).unlink()
        self._housekeeping.cancel()
        self.sharing.stop()
        await self.belonging.stop()
        await self.civicbase.stop()
        await asyncio.gather(self.server.stop(), self.network.stop())
        with contextlib.suppress(StorageError):
            await self.identity.api_keys.keep_uses()
        await self._stop_parts()

    async def _stop_parts(self) -> None:
        if hasattr(self, "records") and self.records.logic is not None:
            await self.records.logic.close()
        await self.plugins.stop()
        if hasattr(self, "network"):
            await self.network.stop()
            await self.canary.stop()
        if hasattr(self, "writer") and self.writer.is_started:
            await self.writer.stop()
        if hasattr(self, "identity"):
            self.identity.close()
        if hasattr(self, "records"):
            self.records.close()
        if hasattr(self, "index"):
            self.index.close()
        if self.record is not None:
            self.record.close()


def _open_index(path: Path) -> Index:
    try:
        return Index(str(path))
    except IndexDamaged:
        for file in path.parent.glob(path.name + "*"):  # with its -wal and -shm
            file.unlink()
        return Index(str(path))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.api_tls_cert is None or settings.api_tls_key is None:
        return None
    return tls_context(settings.api_tls_cert, settings.api_tls_key)


def _changelog() -> str:
    """From beside this module in an installation, from the repository otherwise."""
    here = Path(__file__).parent
    for path in (here / "CHANGELOG.md", here.parent / "CHANGELOG.md"):
        if path.is_file():
            return path.read_text("utf-8")
    return ""


def _write_run_file(directory: Path, url: str, started_ms: int, tls_cert: Path | None) -> None:
    """Tell the command line where the API is; for the owner's eyes alone."""
    path = directory / RUN_FILE
    temporary = directory / (RUN_FILE + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        facts = {"pid": os.getpid(), "api": url, "started_at": started_ms}
        json.dump(facts | ({"tls_cert": str(tls_cert.resolve())} if tls_cert else {}), file)
    temporary.replace(path)
