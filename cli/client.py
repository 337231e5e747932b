"""One connection to a running node's API, as its owner.

Room: HTTP from the standard library and nothing else, so that `civicnode status` starts in no time. Turns
every refusal into a `CliError`; what an answer means is the command's affair. The token leaves only for the
address that the node itself wrote into its data directory.
"""

import http.client
import json
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cli.errors import CliError, NotRunning
from cli.place import Running

TIMEOUT_S = 30.0
LOOPBACK_OF_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ApiRefused(CliError):
    """The node answered with an error status."""

    def __init__(self, status: int, body: Any) -> None:
        document = body if isinstance(body, dict) else {}
        self.status = status
        self.code = str(document.get("error_code", ""))
        self.details: dict[str, str] = document.get("details") or {}
        said = str(document.get("error") or f"status {status}")
        if self.details:
            said += ": " + "; ".join(f"{name}: {fault}" for name, fault in self.details.items())
        hint = {
            401: "the owner token was not accepted; is --data-dir the directory of this node?",
            429: f"try again in {document.get('retry_after', 3600)} s",
            507: "free some space on the node's disk; it takes writes again by itself",
        }.get(status)
        super().__init__(f"{said} ({hint})" if hint else said)


class NodeClient:
    """Requests to one node, one at a time, over one kept connection.

    `application` is the one it acts in. Raises `ApiRefused` for an error status, `NotRunning` when nobody
    answers, `CliError` otherwise.
    """

    def __init__(
        self, node: Running, token: str, *, application: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        parts = urlsplit(node.api)
        host = parts.hostname or "127.0.0.1"
        host = LOOPBACK_OF_ANY.get(host, host)
        self.api = node.api
        self.pid = node.pid
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if application is not None:
            self._headers["X-Application-Id"] = application
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            import ssl

            # The node's own certificate is pinned by the path it wrote; its name need not match the address.
            context = ssl.create_default_context(cafile=str(node.tls_cert) if node.tls_cert else None)
            context.check_hostname = node.tls_cert is None
            self._connection = http.client.HTTPSConnection(
                host, parts.port or 443, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, parts.port or 80, timeout=timeout_s)

    def __enter__(self) -> "NodeClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def get(self, path: str, **query: object) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: object) -> Any:
        return self.request("POST", path, body)

    def delete(self, path: str, **query: object) -> Any:
        return self.request("DELETE", f"{path}?{urlencode(query)}" if query else path)

    def request(self, method: str, path: str, body: object | None = None) -> Any:
        """The decoded answer; None when it has no body."""
        encoded = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        return self.send(method, path, encoded)

    def send(self, method: str, path: str, body: bytes | None) -> Any:
        """Like `request`, with a body already encoded as JSON."""
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        try:
            status, raw = self._exchange(method, path, body, headers)
        except (http.client.HTTPException, OSError) as fault:
            self.close()
            raise self._broken(fault) from None
        if not raw and status < 400:
            return None
        try:
            document = json.loads(raw) if raw else None
        except ValueError:
            if status < 400:
                raise CliError(
                    f"{self.api} answered {method} {path} with something that is not JSON"
                ) from None
            document = None
        if status >= 400:
            raise ApiRefused(status, document)
        return document

    def _broken(self, fault: Exception) -> CliError:
        if isinstance(fault, TimeoutError):
            return CliError(
                f"the node at {self.api} (pid {self.pid}) did not answer within {self._timeout_s:.0f} s: "
                "look at its log"
            )
        if isinstance(fault, ConnectionRefusedError):
            return NotRunning(
                f"nobody answers at {self.api}, though pid {self.pid} holds the data directory: "
                "is it still starting? try again, or look at its log"
            )
        return CliError(
            f"the connection to {self.api} broke ({type(fault).__name__}): is the node still running? "
            "civicnode status tells"
        )

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        reused = self._connection.sock is not None
        try:
            return self._once(method, path, body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection that the node closed while idle; only a read may be sent twice.
            self._connection.close()
            if not reused or method != "GET":
                raise
            return self._once(method, path, body, headers)

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")
