"""Plugins in their process, as a node calls them: what they may do to a call, and to themselves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.services.plugin_strategies import PluginStrategies
from node.services.plugins import Plugins, PluginsFault
from node.services.refusals import PluginFailed, PluginRefused, PluginUnavailable

LOG = logging.getLogger("tests.plugins")
GOOD = """
import asyncio, os, time
import civicnode

async def greet(context, name="you"):
    return {"hello": name, "user": context.user}

def ask(context, id):
    return context.get("Task", id)

async def ask_later(context, id):
    return await context.get("Task", id)

def stop(context):
    os._exit(7)

def hang(context):
    time.sleep(1000)

def quit(context):
    raise SystemExit(1)

def fail(context):
    raise KeyError("nothing of it")

def strange(context):
    return object()

@civicnode.hookimpl
def queries():
    functions = (greet, ask, ask_later, stop, hang, quit, fail, strange)
    return [{"name": f.__name__, "model": "Task", "query": f} for f in functions]
"""
RESOLVING = """
import civicnode

def longest(localData, remoteData):
    return max(localData, remoteData, key=lambda record: len(record["title"]))

async def careless(localData, remoteData):
    raise RuntimeError("no")

@civicnode.hookimpl
def sync_strategies():
    return [{"name": "longest", "model": "Task", "resolve": longest},
            {"name": "careless", "model": "Task", "resolve": careless},
            {"name": "odd", "model": "Task", "resolve": lambda localData, remoteData: 5}]
"""


def directory_of(tmp_path: Path, **plugins: str) -> Path:
    directory = tmp_path / "plugins"
    directory.mkdir(mode=0o700)
    for name, code in plugins.items():
        (directory / f"{name}.py").write_text(code)
    return directory


@asynccontextmanager
async def loaded(tmp_path: Path, *, call_timeout_s: float = 60.0, **plugins: str) -> AsyncIterator[Plugins]:
    found = Plugins(directory_of(tmp_path, **plugins), LOG, call_timeout_s=call_timeout_s)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def query(name: str, /, **arguments: str) -> dict[str, Any]:
    return {"application": "default", "user": "ann", "model": "Task", "name": name, "arguments": arguments}


async def again(plugins: Plugins) -> Any:
    """The answer of a call, once the process is there again."""
    while True:
        try:
            return await plugins.call("query", query("greet"))
        except PluginUnavailable:
            await asyncio.sleep(0.01)


async def test_without_plugins_no_process_is_started() -> None:
    plugins = Plugins(None, LOG)
    await plugins.start()
    assert (plugins.starts, plugins.models, plugins.status()["loaded"]) == (0, frozenset(), [])
    assert not plugins.concern("Task", "beforeCreate") and plugins.strategy_named("lww") is None
    await plugins.stop()


async def test_a_function_gets_its_arguments_and_who_asks(tmp_path: Path) -> None:
    async with loaded(tmp_path, good=GOOD) as plugins:
        assert await plugins.call("query", query("greet", name="bob")) == {"hello": "bob", "user": "ann"}
        assert plugins.has_query("Task", "greet") and not plugins.has_query("Other", "greet")
        assert [one["name"] for one in plugins.status()["loaded"]] == ["good"]


@pytest.mark.parametrize("name", ["ask", "ask_later"])
async def test_a_function_may_ask_the_node_whether_or_not_it_is_async(tmp_path: Path, name: str) -> None:
    async def answer(verb: str, asked: Mapping[str, Any]) -> Any:
        if asked["id"] == "none":
            raise LookupError("there is none")
        return [verb, asked["model"], asked["id"]]

    async with loaded(tmp_path, good=GOOD) as plugins:
        assert await plugins.call("query", query(name, id="one"), answer) == ["get", "Task", "one"]
        with pytest.raises(PluginFailed, match="RuntimeError: there is none"):
            await plugins.call("query", query(name, id="none"), answer)
        with pytest.raises(PluginFailed, match="may ask nothing"):
            await plugins.call("query", query(name, id="one"))


async def test_what_goes_wrong_in_a_function_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    async with loaded(tmp_path, good=GOOD) as plugins:
        for name, message in (("quit", "SystemExit"), ("fail", "KeyError"), ("strange", "TypeError")):
            with pytest.raises(PluginFailed, match=message):
                await plugins.call("query", query(name))
        with pytest.raises(PluginRefused, match="nme"):
            await plugins.call("query", query("greet", nme="bob"))
        assert plugins.starts == 1


async def test_a_process_that_ends_is_started_again(tmp_path: Path) -> None:
    async with loaded(tmp_path, good=GOOD) as plugins:
        with pytest.raises(PluginUnavailable):
            await plugins.call("query", query("stop"))
        assert (await again(plugins))["hello"] == "you"
        assert plugins.starts == 2


async def test_a_call_that_hangs_ends_the_process_and_the_next_one_is_answered(tmp_path: Path) -> None:
    async with loaded(tmp_path, call_timeout_s=0.5, good=GOOD) as plugins:
        with pytest.raises(PluginUnavailable, match=r"longer than 0\.5 s"):
            await plugins.call("query", query("hang"))
        assert (await again(plugins))["hello"] == "you"


async def test_a_plugin_that_cannot_be_loaded_is_listed_and_the_others_work(tmp_path: Path) -> None:
    twice = GOOD.replace("greet, ask, ", "greet, ")
    wrong = GOOD.replace("queries", "triggers").replace('"query": f', '"event": "onTuesday", "handler": f')
    unknown = "import civicnode\n@civicnode.hookimpl\ndef validaters():\n    return []\n"
    async with loaded(
        tmp_path,
        a_good=GOOD,
        b_twice=twice,
        c_syntax="def",
        d_exit="raise SystemExit",
        e_wrong=wrong,
        f_unknown=unknown,
    ) as plugins:
        failed = {one["plugin"]: one["reason"] for one in plugins.status()["failed"]}
        assert set(failed) == {"b_twice", "c_syntax", "d_exit", "e_wrong", "f_unknown"}
        assert "another plugin's" in failed["b_twice"] and "beforeCreate" in failed["e_wrong"]
        assert (await plugins.call("query", query("greet")))["hello"] == "you"


async def test_a_package_is_one_plugin_and_its_hash_is_of_all_its_code(tmp_path: Path) -> None:
    directory = directory_of(tmp_path)
    (directory / "_private.py").write_text("raise SystemExit")
    package = directory / "several"
    package.mkdir()
    (package / "__init__.py").write_text(f"from .part import *\n{RESOLVING}")
    hashes = []
    for part in ("x = 1", "x = 2"):
        (package / "part.py").write_text(part)
        plugins = Plugins(directory, LOG)
        await plugins.start()
        hashes.append(plugins.strategy_named("longest"))
        assert [one["name"] for one in plugins.status()["loaded"]] == ["several"]
        await plugins.stop()
    assert None not in hashes and hashes[0] != hashes[1]


async def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    directory = directory_of(tmp_path, good=GOOD)
    directory.chmod(0o777)
    with pytest.raises(PluginsFault, match="chmod go-w"):
        await Plugins(directory, LOG).start()
    with pytest.raises(PluginsFault, match="cannot be read"):
        await Plugins(tmp_path / "nowhere", LOG).start()


async def test_a_plugin_that_stops_the_process_while_it_is_loaded_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(PluginsFault, match="when it is loaded"):
        await Plugins(directory_of(tmp_path, bad="import os\nos._exit(1)"), LOG).start()


# -- strategies ------------------------------------------------------------------------------------------------


async def test_a_strategy_is_asked_for_records_one_after_the_other(tmp_path: Path) -> None:
    async with loaded(tmp_path, resolving=RESOLVING) as plugins:
        strategies = PluginStrategies(plugins, LOG, lambda: 0.0)
        name = plugins.strategy_named("longest")
        assert name is not None and name.startswith("longest@")
        resolve = strategies.resolver_of(name)
        assert resolve is not None and strategies.resolver_of("longest@" + "0" * 32) is None
        versions = [{"title": title} for title in ("ab", "abcd", "abc")]
        assert await asyncio.to_thread(resolve, versions) == {"title": "abcd"}


async def test_a_strategy_that_fails_answers_nothing(tmp_path: Path) -> None:
    async with loaded(tmp_path, resolving=RESOLVING) as plugins:
        strategies = PluginStrategies(plugins, LOG, lambda: 0.0)
        for name in ("careless", "odd"):
            resolve = strategies.resolver_of(plugins.strategy_named(name) or "")
            assert resolve is not None
            assert await asyncio.to_thread(resolve, [{"title": "a"}, {"title": "b"}]) is None


async def test_what_a_strategy_said_is_remembered_while_its_process_is_gone(tmp_path: Path) -> None:
    async with loaded(tmp_path, good=GOOD, resolving=RESOLVING) as plugins:
        now = [0.0]
        strategies = PluginStrategies(plugins, LOG, lambda: now[0])
        resolve = strategies.resolver_of(plugins.strategy_named("longest") or "")
        assert resolve is not None
        known, new = [{"title": "a"}, {"title": "bb"}], [{"title": "cc"}, {"title": "d"}]
        assert await asyncio.to_thread(resolve, known) == {"title": "bb"}
        plugins.kill()
        assert await asyncio.to_thread(resolve, new) is None
        assert await asyncio.to_thread(resolve, known) == {"title": "bb"}
        await again(plugins)
        now[0] = 60.0
        assert await asyncio.to_thread(resolve, new) == {"title": "cc"}
