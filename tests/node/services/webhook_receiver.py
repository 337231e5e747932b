"""A receiver of webhooks on loopback, which keeps what it is sent and answers as it is told; and Node.js beside it.

Room: what tests of webhooks share on the other side of the wire.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

NODE = shutil.which("node")
# The seed's verifier, word for word (seed S1, "Payload Signature Verification").
VERIFIER = """
const crypto = require('crypto');

function verifyWebhookSignature(payload, signature, secret) {
  const expectedSignature = crypto
    .createHmac('sha256', secret)
    .update(JSON.stringify(payload))
    .digest('hex');
  return crypto.timingSafeEqual(
    Buffer.from(signature),
    Buffer.from(expectedSignature)
  );
}
"""
_VERIFY_ALL = (
    VERIFIER
    + """
const found = JSON.parse(require('fs').readFileSync(0, 'utf8')).map(({body, secret}) => {
  const {signature, ...payload} = JSON.parse(body);
  return verifyWebhookSignature(payload, signature.replace(/^sha256=/, ''), secret);
});
console.log(JSON.stringify(found));
"""
)
_STRINGIFY_ALL = """
const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(texts.map((text) => JSON.stringify(JSON.parse(text)))));
"""


def _run(script: str, given: Any) -> Any:
    assert NODE is not None
    told = subprocess.run(
        [NODE, "-e", script], input=json.dumps(given).encode(), capture_output=True, timeout=60, check=True
    )
    return json.loads(told.stdout)


def verified_by_node(bodies: list[bytes], secret: str) -> list[bool]:
    """What the seed's verifier says of each body, once the prefix of its signature is stripped."""
    found: list[bool] = _run(_VERIFY_ALL, [{"body": body.decode(), "secret": secret} for body in bodies])
    return found


def stringified_by_node(texts: list[str]) -> list[str]:
    """`JSON.stringify(JSON.parse(text))` of each."""
    found: list[str] = _run(_STRINGIFY_ALL, texts)
    return found


@dataclass(frozen=True, slots=True)
class Sent:
    """One request to the receiver."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"thanks")


@dataclass
class Receiver:
    """`answer` decides what each request gets; None lets it hang."""

    url: str
    answer: Callable[[Sent], Answer | None] = lambda sent: OK
    sent: list[Sent] = field(default_factory=list)
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def heard(self, count: int) -> list[Sent]:
        """Wait until so many requests have come."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: len(self.sent) >= count)
        return self.sent

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        sent = Sent(request.path_qs, dict(request.headers), await request.read())
        async with self._more:
            self.sent.append(sent)
            self._more.notify_all()
        said = self.answer(sent)
        if said is None:
            await asyncio.Event().wait()
            raise AssertionError
        status, headers, body = said
        return web.Response(status=status, headers=headers, body=body)


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    receiver = Receiver("")
    runner = web.ServerRunner(web.Server(receiver._handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
