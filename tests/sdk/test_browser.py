"""The JavaScript client where most of its users are: in a browser, on pages of another origin than the node's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
import pytest
from aiohttp import web

from tests.sdk import chromium
from tests.sdk.chromium import Chromium, Page
from tests.system.neighbours import free_port, join, listening
from tests.system.process import NodeProcess, civicnode

PACKAGE = Path(__file__).parents[2] / "sdk" / "javascript"
PROGRAM = chromium.found()
ADA = {"email": "ada@example.org", "username": "ada", "password": "correct horse"}
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed, or CHROMIUM does not name it")

# What an app of this test is: `given` are the node's address and the tokens that were kept. It counts what it sends.
APP = """
const { CosmicSync } = await import('/src/index.js');
const [url] = given;
const kept = localStorage.getItem('tokens');
const app = (globalThis.app = { heard: [], shown: [], ended: [], batches: 0 });
app.client = new CosmicSync({
  url,
  onTokens: (tokens) => localStorage.setItem('tokens', JSON.stringify(tokens)),
  onError: (error) => app.ended.push(error.message),
  fetch: (where, asked) => {
    if (where.endsWith('/v1/batch')) app.batches += 1;
    return fetch(where, asked);
  },
});
if (kept) app.client.auth.use(JSON.parse(kept));
app.client.watchLocal('Todo', ({ reason, data, error }) => app.shown.push([reason, data?.title, error?.details ?? null]));
"""
LISTEN = """
const { client, heard } = app;
const hear = ({ type, instanceId, data, origin }) => heard.push([type, instanceId, data?.title, Boolean(origin)]);
app.subscription = await client.subscribe('Todo', hear, { durable: 'todos' });
"""


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    """Where the pages are: a server of files that is no node."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><html lang=en><title>App</title></html>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_static("/", PACKAGE)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def browser() -> AsyncIterator[Chromium]:
    assert PROGRAM is not None
    async with Chromium(PROGRAM) as running:
        yield running


async def start(page: Page, url: str) -> None:
    await page.run(APP, url)


async def test_an_app_in_a_browser_works_without_its_node_and_goes_on_when_it_is_back(
    tmp_path: Path, origin: str, browser: Chromium
) -> None:
    ports = ("--api", f"127.0.0.1:{free_port()}", "--listen", "127.0.0.1:0", "--no-mdns")
    with NodeProcess(tmp_path / "one", ports=ports) as node, NodeProcess(tmp_path / "two") as second:
        join(second, node)
        page = await browser.open(origin)
        await start(page, node.url)

        # A page of another origin is told how it is let in, by requests and by realtime.
        refused = await page.run(
            """const { client, ended } = app;
            const subscription = await client.subscribe('Todo', () => {});
            const told = await Promise.allSettled([client.auth.register(given[0]), subscription.ready()]);
            return told.map(({ reason }) => [reason.name, reason.message.split('local apps: ')[1]]);""",
            ADA,
        )
        assert refused == [["Forbidden", f"civicnode origins allow {origin}"]] * 2
        assert civicnode(*refused[0][1].split()[1:], "--data-dir", str(node.data_dir)).returncode == 0

        id = await page.run(
            """const { client } = app;
            await client.auth.register(given[0]);
            await client.auth.login(given[0]);
            const fields = { title: { type: 'string', required: true }, priority: 'integer', done: 'boolean' };
            await client.defineModel('Todo', { fields });
            const { id, heldByPeers } = await client.createInstance('Todo', { title: 'kept', priority: 1 }, { waitForPeers: 1 });
            if (heldByPeers !== 1) throw new Error(`held by ${heldByPeers}`);
            await client.storeLocally('Todo', id, await client.getInstance('Todo', id));
            return id;""",
            ADA,
        )
        await page.run(f"{LISTEN} await app.subscription.ready()")

        # Without a node: what is queued stands in IndexedDB, also when the page is loaded anew.
        node.kill()
        offline = await page.run(
            """const { client } = app;
            const [id] = given;
            await client.queueOfflineAction({ type: 'update', modelId: 'Todo', instanceId: id, data: { done: true } });
            await client.queueOfflineAction({ type: 'create', modelId: 'Todo', data: { title: 'made offline' } });
            await client.queueOfflineAction({ type: 'update', modelId: 'Todo', instanceId: id, data: { priority: 'high' } });
            return client.sync();""",
            id,
        )
        assert (offline["isOffline"], offline["remaining"], offline["sent"]) == (True, 3, 0)
        await page.load()
        await start(page, node.url)
        shown = await page.run("return app.client.getLocalData('Todo', given[0])", id)
        assert (shown["title"], shown["done"], shown["priority"]) == ("kept", True, "high")
        await page.run(LISTEN)

        # Two tabs have the same queue. Both send at once, now that the node is back: it is sent once.
        tab = await browser.open(origin)
        await start(tab, node.url)
        with NodeProcess(tmp_path / "one", "--peer", listening(second), ports=ports) as node:
            results = await asyncio.gather(*(one.run("return app.client.sync()") for one in (page, tab)))
            assert [sum(result[name] for result in results) for name in ("sent", "remaining")] == [2, 0]
            assert await page.run("return app.batches") + await tab.run("return app.batches") == 2
            shown = await page.run("return app.shown") + await tab.run("return app.shown")
            assert ["reverted", "kept", {"priority": "Must be an integer"}] in shown
            assert [reason for reason, *_ in shown].count("confirmed") == 2
            kept = await tab.run("return app.client.getLocalData('Todo', given[0])", id)
            assert (kept["done"], kept["priority"]) == (True, 1)
            assert await tab.run("return (await app.client.getQueuedActions()).length") == 0

            # Realtime goes on where it was before the page was loaded anew, and tells what others do.
            await page.until("app.heard.length >= 2")
            assert {(kind, title) for kind, _, title, _ in await page.run("return app.heard")} == {
                ("update", "kept"),
                ("create", "made offline"),
            }
            elsewhere = origin.replace("127.0.0.1", "localhost")  # with a storage of its own
            assert second.ask("POST", "/v1/admin/origins", {"origin": elsewhere}).status == 200
            other = await browser.open(elsewhere)
            await start(other, second.url)
            await other.run("await app.client.auth.login(given[0])", ADA)
            await other.run(f"{LISTEN} await app.subscription.ready()")
            await other.until("(await app.client.query('Todo', { title: 'made offline' })).length === 1")
            await other.run("await app.client.updateInstance('Todo', given[0], { title: 'from there' })", id)
            await page.until("app.heard.some(([, , title, isRemote]) => title === 'from there' && isRemote)")
            assert (await page.run("return app.client.getLocalData('Todo', given[0])", id))["title"] == "from there"
            for one in (page, tab, other):
                await one.run("await app.client.close()")
                assert await one.run("return app.ended") == []
