"""`CosmicSync`: the same client for code without an event loop.

Room: a thread with a loop, on which the asynchronous client lives. Every method here is one there, waited for.
Hooks run on threads of their own, so that they may call this client.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from cosmicsync.accounts import Accounts
from cosmicsync.client import DEFAULT_URL, AsyncCosmicSync, ModelAccess
from cosmicsync.errors import Closed
from cosmicsync.hooks import Hooks, call_in_thread
from cosmicsync.realtime import Event, Subscription
from cosmicsync.store import MEMORY
from cosmicsync.transport import RateLimit, Tokens

P = ParamSpec("P")
T = TypeVar("T")


class Runner:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cosmicsync", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine. Raises `RuntimeError` on the loop's own thread, which would wait for itself, and
        `Closed` at the end."""
        if self.is_closed:
            work.close()
            raise Closed
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "A coroutine that runs inside CosmicSync cannot wait for it: use a plain function"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # interrupted while waiting
            raise

    def close(self) -> None:
        self.run(
            self._loop.shutdown_default_executor()
        )  # there: the caller may be inside a loop, as in a notebook
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _waited(
    method: Callable[Concatenate[AsyncCosmicSync, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["CosmicSync", P], T]:
    @wraps(method)
    def call(self: "CosmicSync", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._runner.run(method(self._client, *args, **kwargs))

    return call


def _passed(
    method: Callable[Concatenate[AsyncCosmicSync, P], T],
) -> Callable[Concatenate["CosmicSync", P], T]:
    @wraps(method)
    def call(self: "CosmicSync", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._client, *args, **kwargs)

    return call


def _signed(
    method: Callable[Concatenate[Accounts, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["BlockingAccounts", P], T]:
    @wraps(method)
    def call(self: "BlockingAccounts", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._runner.run(method(self._accounts, *args, **kwargs))

    return call


class BlockingAccounts:
    """`Accounts`, waited for."""

    def __init__(self, runner: Runner, accounts: Accounts) -> None:
        self._runner = runner
        self._accounts = accounts

    @property
    def tokens(self) -> Tokens | None:
        """What requests are made with; keep it to stay signed in across a restart."""
        return self._accounts.tokens

    def use(self, tokens: Tokens | None) -> None:
        """Go on with tokens that were kept."""
        self._accounts.use(tokens)

    register = _signed(Accounts.register)
    login = _signed(Accounts.login)
    refresh = _signed(Accounts.refresh)
    logout = _signed(Accounts.logout)
    change_password = _signed(Accounts.change_password)
    enable_mfa = _signed(Accounts.enable_mfa)
    verify_mfa = _signed(Accounts.verify_mfa)
    me = _signed(Accounts.me)
    update_me = _signed(Accounts.update_me)
    put_user_data = _signed(Accounts.put_user_data)
    user_data = _signed(Accounts.user_data)
    is_permitted = _signed(Accounts.is_permitted)


class BlockingSubscription:
    """`Subscription`, waited for."""

    def __init__(self, runner: Runner, subscription: Subscription) -> None:
        self._runner = runner
        self._subscription = subscription

    @property
    def cursor(self) -> str | None:
        """Where it stands: `subscribe(cursor=…)` goes on behind it."""
        return self._subscription.cursor

    @property
    def is_connected(self) -> bool:
        return self._subscription.is_connected

    def ready(self) -> None:
        """Wait until the node has acknowledged it. Raises what ended it."""
        self._runner.run(self._subscription.ready())

    def close(self) -> None:
        self._runner.run(self._subscription.close())

    def __iter__(self) -> Iterator[Event]:
        events = self._subscription.__aiter__()

        async def following() -> Event | None:
            return await anext(events, None)

        while (event := self._runner.run(following())) is not None:
            yield event


class CosmicSync:
    """One node, one user, one local store; see `AsyncCosmicSync`. Use it from any thread, and `close` it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        store: str | Path = MEMORY,
        application: str | None = None,
        timeout_s: float = 30.0,
        rate_limit_wait_max_s: float = 5.0,
        on_tokens: Callable[[Tokens | None], None] | None = None,
    ) -> None:
        self._client = AsyncCosmicSync(
            url,
            token=token,
            token_file=token_file,
            store=store,
            application=application,
            timeout_s=timeout_s,
            rate_limit_wait_max_s=rate_limit_wait_max_s,
            on_tokens=on_tokens,
            _hooks=Hooks(call_in_thread),
            _client=self,
        )
        self._runner = Runner()
        self.auth = BlockingAccounts(self._runner, self._client.auth)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End subscriptions, connections, and whatever waits for the node, which raises `Closed`. Nothing more is sent;
        what is queued stays in the store."""
        if not self._runner.is_closed:
            self._runner.run(self._client.close())
            self._runner.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer said of it."""
        return self._client.rate_limit

    def __getattr__(self, name: str) -> ModelAccess:
        if not name[:1].isupper():
            raise AttributeError(name)
        return self.model(name)

    def model(self, name: str) -> ModelAccess:
        """The query methods of a model: those registered here, and those of the node's plugins, which take their
        parameters by name."""
        return ModelAccess(self, name)

    @property
    def _hooks(self) -> Hooks:
        return self._client._hooks

    def subscribe(self, *args: Any, **kwargs: Any) -> BlockingSubscription:
        """As `AsyncCosmicSync.subscribe`; a handler is called on a thread of its own."""
        return BlockingSubscription(self._runner, self._runner.run(self._client.subscribe(*args, **kwargs)))

    request = _waited(AsyncCosmicSync.request)
    define_model = _waited(AsyncCosmicSync.define_model)
    create_instance = _waited(AsyncCosmicSync.create_instance)
    get_instance = _waited(AsyncCosmicSync.get_instance)
    update_instance = _waited(AsyncCosmicSync.update_instance)
    delete_instance = _waited(AsyncCosmicSync.delete_instance)
    query = _waited(AsyncCosmicSync.query)
    aggregate = _waited(AsyncCosmicSync.aggregate)
    batch_update = _waited(AsyncCosmicSync.batch_update)
    batch = _waited(AsyncCosmicSync.batch)
    store_locally = _waited(AsyncCosmicSync.store_locally)
    get_local_data = _waited(AsyncCosmicSync.get_local_data)
    query_local = _waited(AsyncCosmicSync.query_local)
    clear_local_data = _waited(AsyncCosmicSync.clear_local_data)
    watch_local = _passed(AsyncCosmicSync.watch_local)
    queue_offline_action = _waited(AsyncCosmicSync.queue_offline_action)
    get_queued_actions = _waited(AsyncCosmicSync.get_queued_actions)
    discard_queued_action = _waited(AsyncCosmicSync.discard_queued_action)
    sync = _waited(AsyncCosmicSync.sync)
    partial_sync = _waited(AsyncCosmicSync.partial_sync)
    get_cached_data = _waited(AsyncCosmicSync.get_cached_data)
    set_conflict_resolver = _waited(AsyncCosmicSync.set_conflict_resolver)
    resolve_conflict = _waited(AsyncCosmicSync.resolve_conflict)
    get_conflicts = _waited(AsyncCosmicSync.get_conflicts)
    get_common_ancestor = _waited(AsyncCosmicSync.get_common_ancestor)
    register_validator = _passed(AsyncCosmicSync.register_validator)
    register_trigger = _passed(AsyncCosmicSync.register_trigger)
    register_query_method = _passed(AsyncCosmicSync.register_query_method)
    extend_model = _passed(AsyncCosmicSync.extend_model)
    register_sync_strategy = _passed(AsyncCosmicSync.register_sync_strategy)
    named_query = _waited(AsyncCosmicSync.named_query)
    call_method = _waited(AsyncCosmicSync.call_method)
    graphql = _waited(AsyncCosmicSync.graphql)
    notify_peer_deletion = _waited(AsyncCosmicSync.notify_peer_deletion)
    register_webhook = _waited(AsyncCosmicSync.register_webhook)
    export_data = _waited(AsyncCosmicSync.export_data)
    import_data = _waited(AsyncCosmicSync.import_data)
