"""The process in which plugins live. Whatever they do to it, they do to it alone.

Room: loading plugins, and calling their functions for `plugins`, which holds the other end. Run as
`python -m node.services.plugin_worker CALLS STRATEGIES [DIRECTORY]`, the first two being descriptors of sockets:
calls come on one, many at a time, and strategies are asked for on the other, one at a time. Both end when the node
does. Messages are frames of JSON, see `plugin_frames`.
"""

import asyncio
import hashlib
import importlib.util
import inspect
import os
import resource
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

import civicnode
from node.services.object_filter import filter_text
from node.services.plugin_frames import pack, receive, send, unpack_from

THREADS = 8  # for functions that are not async
EVENTS = frozenset(
    {"beforeCreate", "beforeUpdate", "beforeDelete", "afterCreate", "afterUpdate", "afterDelete"}
)
_NAME_MAX = 63
_FUNCTIONS = {
    "validators": "validate",
    "triggers": "handler",
    "queries": "query",
    "sync_strategies": "resolve",
}


@dataclass
class Registry:
    """What the loaded plugins offer, and which could not be loaded, with the reason."""

    validators: list[tuple[str, str, Callable[..., Any]]] = field(default_factory=list)  # model, name
    triggers: list[tuple[str, str, str, Callable[..., Any]]] = field(
        default_factory=list
    )  # model, event, name
    queries: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)  # by model and name
    methods: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    strategies: dict[str, Callable[..., Any]] = field(default_factory=dict)  # by name@hash
    plugins: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def offer(self) -> dict[str, Any]:
        return {
            "plugins": self.plugins,
            "failed": self.failed,
            "validators": [[model, name] for model, name, _ in self.validators],
            "triggers": [[model, event, name] for model, event, name, _ in self.triggers],
            "queries": [list(key) for key in self.queries],
            "methods": [list(key) for key in self.methods],
            "strategies": sorted(self.strategies),
        }


# -- loading ---------------------------------------------------------------------------------------------------


def load(directory: Path | None) -> Registry:
    """Load every plugin, each by itself: one that fails is listed, and the others go on."""
    registry = Registry()
    for name, import_it in _found(directory):
        taken = Registry()
        try:
            module = import_it()
            _take(taken, module, _hash_of(module))
            _merge(registry, taken)
        except BaseException as error:  # SystemExit of a careless plugin, too
            traceback.print_exc()
            registry.failed.append({"plugin": name, "reason": _reason(error)})
        else:
            registry.plugins.append({"name": name, "hash": _hash_of(module)})
    return registry


def _found(directory: Path | None) -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    for path in sorted(directory.iterdir()) if directory is not None else ():
        start = path / "__init__.py" if path.is_dir() else path
        if path.name[0] not in "._" and start.suffix == ".py" and start.is_file():
            yield path.stem, partial(_import, start, path.stem)
    for point in sorted(entry_points(group="civicnode"), key=lambda point: point.name):
        yield point.name, point.load


def _import(start: Path, name: str) -> ModuleType:
    name = f"civicnode_plugins_{name}"  # so that no plugin stands in the way of a library of its name
    package = [str(start.parent)] if start.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=package)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _hash_of(module: ModuleType) -> str:
    """Of the plugin's code: nodes whose strategies have the same name and other code must not mix them up."""
    start = Path(inspect.getfile(module))
    files = sorted(start.parent.rglob("*.py")) if start.name == "__init__.py" else [start]
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(start.parent).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _take(taken: Registry, module: ModuleType, code_hash: str) -> None:
    """What a plugin's hooks return. Raises ValueError where that is not what they should."""
    manager = pluggy.PluginManager("civicnode")
    manager.add_hookspecs(civicnode.Hooks)
    manager.register(module)
    manager.check_pending()
    returned = [(hook, parts) for hook in _FUNCTIONS for parts in getattr(manager.hook, hook)()]
    for hook, parts in returned:
        for part in parts:
            name, model, function = _text(part, "name"), _text(part, "model"), part.get(_FUNCTIONS[hook])
            if not callable(function):
                raise ValueError(f"{hook}: {name} has no function as {_FUNCTIONS[hook]}")
            match hook:
                case "validators":
                    taken.validators.append((model, name, function))
                case "triggers":
                    if (event := part.get("event")) not in EVENTS:
                        raise ValueError(
                            f"triggers: the event of {name} must be one of {', '.join(sorted(EVENTS))}"
                        )
                    taken.triggers.append((model, event, name, function))
                case "queries":
                    taken.queries[model, name] = function
                case "sync_strategies":
                    taken.strategies[f"{name}@{code_hash}"] = function
    for parts in manager.hook.model_methods():
        for part in parts:
            for name, function in part.get("methods", {}).items():
                if not callable(function):
                    raise ValueError(f"model_methods: {name} is no function")
                taken.methods[_text(part, "model"), name] = function


def _merge(registry: Registry, taken: Registry) -> None:
    for all, new in ((registry.queries, taken.queries), (registry.methods, taken.methods)):
        if double := all.keys() & new.keys():
            raise ValueError(f"{'.'.join(min(double))} is another plugin's already")
    registry.validators += taken.validators
    registry.triggers += taken.triggers
    registry.queries |= taken.queries
    registry.methods |= taken.methods
    registry.strategies |= taken.strategies


def _text(part: Mapping[str, Any], key: str) -> str:
    value = part.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_MAX:
        raise ValueError(f"{key} must be a text of 1 to {_NAME_MAX} characters")
    return value


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__


# -- calling ---------------------------------------------------------------------------------------------------


class AskingContext:
    """A `civicnode.Context`, of one call."""

    def __init__(self, worker: "Worker", call: int, known: Mapping[str, Any], *, is_plain: bool) -> None:
        self._worker, self._call, self._is_plain = worker, call, is_plain
        self.application: str = known["application"]
        self.user: str = known["user"]
        self.model: str = known["model"]
        self.instance_id: str = known.get("instance_id", "")
        self.event: str = known.get("event", "")
        self.changes: dict[str, Any] = known.get("changes", {})
        self.previous: dict[str, Any] | None = known.get("previous")

    def get(self, model: str, id: str) -> Any:
        return self._ask("get", model=model, id=id)

    def query(self, model: str, where: Mapping[str, Any] | str | None = None, **options: Any) -> Any:
        text = where if isinstance(where, str) or where is None else filter_text(where)
        return self._ask("query", model=model, filter=text, options=options)

    def create(self, model: str, data: Mapping[str, Any]) -> Any:
        return self._ask("create", model=model, data=dict(data))

    def update(self, model: str, id: str, data: Mapping[str, Any]) -> Any:
        return self._ask("update", model=model, id=id, data=dict(data))

    def delete(self, model: str, id: str) -> Any:
        return self._ask("delete", model=model, id=id)

    def _ask(self, what: str, **arguments: Any) -> Any:
        asked = self._worker.ask(self._call, what, arguments)
        return self._worker.wait(asked) if self._is_plain else asked


class Worker:
    """Serves calls on one socket, as many at a time as come."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="plugin")
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._asks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, calls: socket.socket) -> None:
        """Until the other side closes."""
        reader, self._writer = await asyncio.open_connection(sock=calls)
        self._send({"offer": self._registry.offer()})
        while (message := await unpack_from(reader)) is not None:
            if "answer" in message:
                waiting = self._asked.pop(message["answer"], None)
                if waiting is not None and not waiting.done():
                    self._answer(waiting, message)
            else:
                task = self._loop.create_task(self._handle(message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _answer(waiting: "asyncio.Future[Any]", message: Mapping[str, Any]) -> None:
        if "refused" in message:
            waiting.set_exception(RuntimeError(message["refused"]))
        else:
            waiting.set_result(message["ok"])

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(pack(message))

    async def ask(self, call: int, what: str, arguments: Mapping[str, Any]) -> Any:
        """Have the node do something. Raises RuntimeError if it refuses."""
        self._asks += 1
        number, waiting = self._asks, self._loop.create_future()
        self._asked[number] = waiting
        self._send({"ask": number, "for": call, "do": what, **arguments})
        return await waiting

    def wait(self, asked: Any) -> Any:
        """The same in a thread of a plain function."""
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()

    async def _handle(self, message: Mapping[str, Any]) -> None:
        call = message["call"]
        try:
            answer = {"done": call, "ok": await self._perform(call, message)}
            packed = pack(answer)
        except asyncio.CancelledError:
            raise
        except ValueError as error:  # how Python says that an argument is wrong
            packed = pack({"done": call, "refused": str(error) or "An argument is wrong"})
        except BaseException as error:  # SystemExit of a careless plugin, too
            traceback.print_exc()
            packed = pack({"done": call, "failed": _reason(error)})
        assert self._writer is not None
        self._writer.write(packed)

    async def _perform(self, call: int, message: Mapping[str, Any]) -> Any:
        match message["do"]:
            case "before":
                return [await self._before(call, edit) for edit in message["edits"]]
            case "after":
                for edit in message["edits"]:
                    await self._after(call, edit)
                return None
            case "query":
                function = self._registry.queries[message["model"], message["name"]]
                return await self._run(function, call, message, **message["arguments"])
            case "method":
                function = self._registry.methods[message["model"], message["name"]]
                return await self._run(
                    function, call, message, record=message["record"], **message["arguments"]
                )
        raise ValueError(f"unknown call {message['do']}")

    async def _before(self, call: int, edit: Mapping[str, Any]) -> dict[str, Any]:
        """Which fields triggers set besides, and every fault that triggers and validators found, by their names."""
        data = edit["data"]
        sets: dict[str, Any] = {}
        faults: dict[str, str] = {}
        for model, event, name, function in self._registry.triggers:
            if (model, event) == (edit["model"], edit["event"]):
                try:
                    result = await self._run(function, call, edit, data=dict(data))
                except Exception as error:
                    faults[name] = str(error) or type(error).__name__
                else:
                    if isinstance(result, dict):
                        sets |= result
                        data = {**data, **result}
        for model, name, function in self._registry.validators if edit["event"] != "beforeDelete" else ():
            if model == edit["model"]:
                try:
                    await self._run(function, call, edit, data=dict(data))
                except Exception as error:
                    faults[name] = str(error) or type(error).__name__
        return {"sets": sets, "faults": faults}

    async def _after(self, call: int, edit: Mapping[str, Any]) -> None:
        for model, event, _, function in self._registry.triggers:
            if (model, event) == (edit["model"], edit["event"]):
                try:
                    await self._run(function, call, edit, data=dict(edit["data"]))
                except Exception:
                    traceback.print_exc()  # the others go on; the change is made

    async def _run(
        self, function: Callable[..., Any], call: int, known: Mapping[str, Any], **arguments: Any
    ) -> Any:
        is_plain = not inspect.iscoroutinefunction(function)
        context = AskingContext(self, call, known, is_plain=is_plain)
        try:
            inspect.signature(function).bind(context=context, **arguments)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if is_plain:
            return await self._loop.run_in_executor(
                self._threads, lambda: function(context=context, **arguments)
            )
        return await function(context=context, **arguments)


def serve_strategies(asked: socket.socket, registry: Registry) -> None:
    """Resolve versions, two at a time, until the other side closes. Blocks."""
    with suppress(OSError):
        while (message := receive(asked)) is not None:
            try:
                function = registry.strategies[message["strategy"]]
                result, *others = message["versions"]
                for version in others:
                    result = function(localData=result, remoteData=version)
                    if inspect.isawaitable(result):
                        result = asyncio.run(_awaited(result))
                if not isinstance(result, dict):
                    raise TypeError(f"{message['strategy']} returned no record")
                send(asked, {"ok": result})
            except BaseException as error:
                traceback.print_exc()
                send(asked, {"failed": _reason(error)})


async def _awaited(result: Any) -> Any:
    return await result


def main() -> None:
    calls, strategies = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    directory = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    os.dup2(2, 1)  # what plugins print belongs to the log
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    registry = load(directory)
    threading.Thread(target=serve_strategies, args=(strategies, registry), daemon=True).start()

    async def serve() -> None:
        await Worker(registry).serve(calls)

    with suppress(ConnectionError, KeyboardInterrupt):
        asyncio.run(serve())
    sys.stdout.flush()
    os._exit(0)  # threads that hang in a plugin hold up nobody


if __name__ == "__main__":
    main()
