"""A wire between two nodes that can be cut: after so many bytes, at once, or for good.

Room: a TCP relay on loopback, in a thread of its own, so that tests may block.
"""

import asyncio
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Relays connections to a port. `cut_after_bytes` counts both directions of one connection."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.cut_after_bytes: int | None = None
        self.is_down = False
        self.connections = 0
        self.bytes = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()

    def _refuses(self) -> bool:
        return self.is_down

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses():
            writer.transport.abort()
            return
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        if self._refuses():  # since
            writer.transport.abort()
            back.transport.abort()
            return
        passed = [0]
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back, passed), self._pass(there, writer, passed))
        except OSError:
            pass
        finally:
            self._open -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: list[int]
    ) -> None:
        while data := await reader.read(4_096):
            passed[0] += len(data)
            self.bytes += len(data)
            limit = self.cut_after_bytes
            if limit is not None and passed[0] > limit:
                raise ConnectionResetError("cut")
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("ended")

    def cut(self, *, stays_down: bool = False) -> None:
        """Cut every connection; let none through from now on if it stays down. Nothing crosses once this returns."""
        self.is_down = stays_down

        async def abort() -> None:
            for writer in list(self._open):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(abort(), self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        async def close() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
