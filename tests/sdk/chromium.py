"""Chromium without a window, told what to do over its DevTools protocol.

Room: starting it, opening pages, running scripts in them. What an app is to do there is said in the tests.
Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import itertools
import json
import os
import re
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # containers do not allow one; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def found() -> str | None:
    """The program: what `CHROMIUM` names, or one of the usual names."""
    named = (os.environ.get("CHROMIUM"), *_NAMES)
    paths = (shutil.which(name) for name in named if name)
    return next((path for path in paths if path), str(_MAC) if _MAC.exists() else None)


class Page:
    """One tab. `faults` are exceptions that nobody caught, and what was said as an error on its console."""

    def __init__(self, browser: "Chromium", session: str) -> None:
        self.faults: list[str] = []
        self._browser = browser
        self._session = session
        self._loaded = asyncio.Event()

    async def ask(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol. -> its result."""
        return await self._browser.ask(method, parameters, self._session)

    async def run(self, script: str, *arguments: Any) -> Any:
        """The body of an asynchronous function, with `arguments` in a list of that name. -> what it returns, as JSON.

        Raises `AssertionError` with what it throws.
        """
        expression = f"(async (given) => {{ {script} }})({json.dumps(arguments)})"
        answer = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer))
        return answer["result"].get("value")

    async def until(self, condition: str, *arguments: Any) -> None:
        """Wait until an expression holds."""
        what = f"{condition} has not happened"
        await self.run(
            f"""const end = Date.now() + 120_000;
            while (!({condition})) {{
              if (Date.now() > end) throw new Error({json.dumps(what)});
              await new Promise((resolve) => setTimeout(resolve, 10));
            }}""",
            *arguments,
        )

    async def load(self, url: str | None = None) -> None:
        """Go to an address, or load the page anew."""
        self._loaded.clear()
        await (self.ask("Page.reload") if url is None else self.ask("Page.navigate", url=url))
        await self._loaded.wait()

    def hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            self.faults.append(told["exceptionDetails"]["exception"].get("description", str(told)))
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.faults.append(str([one.get("description", one.get("value")) for one in told["args"]]))


class Chromium:
    """A browser with a profile of its own: its pages share what they store, by origin."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._stack = AsyncExitStack()
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}

    async def __aenter__(self) -> Self:
        profile = self._stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        process = await asyncio.create_subprocess_exec(
            self._program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._stack.push_async_callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stderr is not None
        said = b""
        while (match := re.search(rb"DevTools listening on (ws://\S+)", said)) is None:
            said += (line := await process.stderr.readline())
            assert line, said.decode()
        self._follow(_drain(process.stderr))
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        self._socket = await self._stack.enter_async_context(
            session.ws_connect(match[1].decode(), max_msg_size=0)
        )
        self._follow(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _follow(self, work: Any) -> None:
        async def end() -> None:
            task.cancel()
            await asyncio.wait({task})

        task = asyncio.ensure_future(work)
        self._stack.push_async_callback(end)

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif page := self._pages.get(told.get("sessionId", "")):
                page.hear(told["method"], told["params"])

    async def ask(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        asked = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(asked if session is None else {**asked, "sessionId": session})
        told = await asyncio.wait_for(answer, 180)
        assert "error" not in told, (method, told["error"])
        return told["result"]

    async def open(self, url: str) -> Page:
        """A new tab, once its page is loaded."""
        target = (await self.ask("Target.createTarget", {"url": "about:blank"}))["targetId"]
        attached = await self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        await page.ask("Runtime.enable")
        await page.ask("Page.enable")
        await page.load(url)
        return page


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
