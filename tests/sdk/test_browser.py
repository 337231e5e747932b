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
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium, nor does CHROMIUM name one")

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
app.client.watchLocal('Todo', ({ reason, data, error }) => {
  app.shown.push([reason, data?.title, error?.details ?? null]);
});
app.queue = (type, instanceId, data) => app.client.queueOfflineAction({ type, modelId: 'Todo', instanceId, data });
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
            const data = { title: 'kept', priority: 1 };
            const { id, heldByPeers } = await client.createInstance('Todo', data, { waitForPeers: 1 });
            if (heldByPeers !== 1) throw new Error(`held by ${heldByPeers}`);
            await client.storeLocally('Todo', id, await client.getInstance('Todo', id));
            return id;""",
            ADA,
        )
        await page.run(f"{LISTEN} await app.subscription.ready()")

        # Without a node: what is queued stands in IndexedDB, also when the page is loaded anew.
        node.kill()
        offline = await page.run(
            """await app.queue('update', given[0], { done: true });
            await app.queue('create', undefined, { title: 'made offline' });
            await app.queue('update', given[0], { priority: 'high' });
            return app.client.sync();""",
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
            shown = await page.run("return app.client.getLocalData('Todo', given[0])", id)
            assert shown["title"] == "from there"
            for one in (page, tab, other):
                await one.run("await app.client.close()")
                assert await one.run("return app.ended") == []


# -- the example


async def press(page: Page, *keys: str) -> None:
    """Keys by name, any other text as it is typed."""
    codes = {"Tab": 9, "Enter": 13, "Space": 32}
    for key in keys:
        if key not in codes:
            await page.ask("Input.insertText", text=key)
            continue
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        named = {"key": text.replace("\r", key) or key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await page.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        await page.ask("Input.dispatchKeyEvent", type="keyUp", **named)


async def offline(page: Page, is_offline: bool) -> None:
    speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await page.ask("Network.emulateNetworkConditions", offline=is_offline, **speeds)


STATE = "document.getElementById('state').textContent"
SENT = f"!document.querySelector('.waits:not([hidden])') && {STATE} === 'Up to date'"
FIRST = "document.querySelector('#items .title')?.value"


async def test_the_example_is_used_by_keyboard_and_shows_what_waits_and_what_conflicts(
    node: NodeProcess, origin: str, browser: Chromium
) -> None:
    assert node.ask("POST", "/v1/admin/origins", {"origin": origin}).status == 200
    page = await browser.open(f"{origin}/example/index.html?node={node.url}")
    await page.ask("Network.enable")
    await page.until(f"{STATE} === 'Nobody is signed in'")
    await press(page, "Tab", "eve@example.org", "Tab", "correct horse", "Tab", "Tab", "Space")
    await page.until(f"{STATE} === 'Up to date'")
    await page.run("document.getElementById('title').focus()")
    await press(page, "Milk", "Enter")
    await page.until(f"{FIRST} === 'Milk' && {SENT}")

    await offline(page, True)
    await press(
        page, "Tab", "Tab", "Tab", "Oat milk", "Enter"
    )  # over the button and the checkbox; a field is selected
    await page.until(f"{STATE} === 'No node: 1 change waits'")
    assert await page.run("return document.querySelector('.waits').checkVisibility()")
    (milk,) = node.ask("GET", "/v1/data/ShoppingItem").json["items"]
    assert node.ask("PUT", f"/v1/data/ShoppingItem/{milk['id']}", {"title": "Soy milk"}).status == 200
    await offline(page, False)
    choices = "[...document.querySelectorAll('.conflict button')]"
    await page.until(f"{choices}.length === 2 && {STATE} === 'Your decision is needed'")
    assert await page.run(f"return {choices}.map((one) => one.textContent)") == [
        "Mine: Oat milk",
        "Theirs: Soy milk",
    ]
    await page.run(f"{choices}[1].focus()")
    await press(page, "Enter")
    await page.until(f"{FIRST} === 'Soy milk' && {SENT}")

    # What the node refuses goes again, and the reason is said.
    await press(page, "x" * 61, "Enter")
    await page.until("document.getElementById('fault').textContent === 'A title has 60 characters at most'")
    await page.until("document.querySelectorAll('#items li').length === 1")
    await node_changes(node, page, milk["id"])

    tree = (await page.ask("Accessibility.getFullAXTree"))["nodes"]
    controls = [one for one in tree if one.get("role", {}).get("value") in ("button", "textbox", "checkbox")]
    assert len(controls) == 6 and all(one["name"]["value"] for one in controls)
    assert page.faults == []


async def node_changes(node: NodeProcess, page: Page, id: str) -> None:
    """What others do shows by itself."""
    assert node.ask("PUT", f"/v1/data/ShoppingItem/{id}", {"title": "Rice milk"}).status == 200
    await page.until(f"{FIRST} === 'Rice milk'")
    assert node.ask("DELETE", f"/v1/data/ShoppingItem/{id}").status == 204
    await page.until("!document.getElementById('empty').hidden")
    assert node.ask("POST", "/v1/data/ShoppingItem", {"title": "Tea"}).status == 201
    await page.until(f"{FIRST} === 'Tea'")
