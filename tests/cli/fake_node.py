"""A stand-in for a running node: a loopback server with the answers commands expect, and a node's files."""

import fcntl
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "own3r-t0ken"
STATUS = {
    "node_id": "a" * 64,
    "network_id": "b" * 64,
    "name": "kitchen",
    "version": "0.1.0",
    "data_dir": "/data",
    "api": "http://127.0.0.1:8080",
    "uptime_s": 4000,
    "documents": 28_298,
    "commits": 114,
    "index": {"behind": 0},
    "peers": [],
    "in_sync": True,
    "disk_bytes": 12_345_678,
}


class FakeNode:
    """Serves until `close`; holds what it was sent."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.requests: list[tuple[str, str, Any]] = []
        self.models: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[str, dict[str, Any]]] = {}
        self.origins: list[str] = []
        self.users: list[dict[str, Any]] = []
        self.applications: set[str | None] = set()
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.broken_answer: bytes | None = None
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}  # of routes that a test makes up
        self.network_id, self.node_id = str(STATUS["network_id"]), str(STATUS["node_id"])
        fake = self

        class Handler(_Handler):
            node = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.api = f"http://127.0.0.1:{self._server.server_port}"
        data_dir.mkdir(exist_ok=True)
        (data_dir / "owner.token").write_text(TOKEN)
        self._lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        document = {"pid": os.getpid(), "api": self.api, "started_at": "2026-01-01T00:00:00.000Z"}
        (data_dir / "run.json").write_text(json.dumps(document))

    def stop_serving(self) -> None:
        """Keep the lock and answer nobody any more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def die(self) -> None:
        """Let go of everything but `run.json`, as a killed node does."""
        self.stop_serving()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and body, in the seed's shapes."""
        if self.refusal is not None:
            return self.refusal
        if (method, path) in self.answers:
            status, answer = self.answers[method, path]
            return status, answer() if callable(answer) else answer
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "GET", ["v1", "admin", "status"]:
                known = {"network_id": self.network_id, "node_id": self.node_id}
                return 200, {**STATUS, **known, "api": self.api, "data_dir": str(self.data_dir)}
            case "POST", ["v1", "admin", "admins"]:
                return 201, {"message": "Administrator created", "user_id": "u1"}
            case "GET", ["v1", "admin", "users"]:
                found = [u for u in self.users if query.get("email") in (None, u["email"])]
                page, size = int(query.get("page", 1)), int(query.get("per_page", 20))
                items = found[(page - 1) * size : page * size]
                return 200, {"items": items, "total": len(found), "page": page, "per_page": size}
            case "PUT", ["v1", "admin", "users", _]:
                return 200, {}
            case "DELETE", ["v1", "users", _, "roles", _] | ["v1", "admin", "users", _, "mfa"]:
                return 200, {"message": "Role removed successfully"}
            case "POST", ["v1", "users", _, "roles"]:
                return 200, {"message": "Role assigned successfully"}
            case "POST", ["v1", "admin", "users", _, "password"]:
                return 200, {"message": "Password changed"}
            case "POST", ["v1", "admin", "backup"]:
                Path(body["path"]).write_bytes(b"backup")
                return 200, {"path": body["path"], "bytes": 6}
            case "GET", ["v1", "admin", "origins"]:
                return 200, {"origins": self.origins}
            case "POST", ["v1", "admin", "origins"]:
                self.origins.append(body["origin"])
                return 200, {"origins": self.origins}
            case "DELETE", ["v1", "admin", "origins"]:
                self.origins.remove(query["origin"])
                return 200, {"origins": self.origins}
            case "POST", ["v1", "admin", "query"]:
                return 200, {
                    "columns": ["name", "n"],
                    "rows": [["one", 1], ["two\x1b[31m", 20]],
                    "truncated": True,
                }
            case "GET", ["v1", "data-models"]:
                return 200, list(self.models.values())
            case "POST", ["v1", "data-models"]:
                self.models[body["name"]] = body
                return 201, {"message": "Data model created successfully", "model_id": body["name"].lower()}
            case "GET", ["v1", "data-models", name]:
                if name in self.models:
                    return 200, self.models[name]
                return 404, {"error": "No such model", "error_code": "NOT_FOUND"}
            case "GET", ["v1", "data", name]:
                return self._page(name, query)
            case "POST", ["v1", "batch"]:
                return 200, {"results": [self._create(operation) for operation in body["operations"]]}
        return 404, {"error": f"no route {method} {path}", "error_code": "NOT_FOUND"}

    def _create(self, operation: dict[str, Any]) -> dict[str, Any]:
        name = unquote(operation["path"].removeprefix("/data/"))
        body = dict(operation["body"])
        record_id = body.pop("id", None) or f"r{len(self.records.get(name, {})):09d}"
        known = {field["name"]: field["type"] for field in self.models[name]["fields"]}
        details = {key: "Unknown field" for key in body if key not in known}
        details |= {
            key: "Must be an integer"
            for key, value in body.items()
            if known.get(key) == "integer" and not isinstance(value, int)
        }
        if details:
            return {"status": 400, "body": {"error": "Validation failed", "details": details}}
        self.records.setdefault(name, {})[record_id] = body
        return {"status": 201, "body": {"message": "Instance created successfully", "instance_id": record_id}}

    def _page(self, name: str, query: dict[str, str]) -> tuple[int, Any]:
        ids = sorted(self.records.get(name, {}))
        after = query.get("cursor", "")
        rest = [i for i in ids if i > after]
        size = int(query["per_page"])
        meta = {"created_at": "2026-01-01T00:00:00.000Z", "version": "v1"}
        items = [{"id": i, **self.records[name][i], **meta} for i in rest[:size]]
        cursor = rest[size - 1] if len(rest) > size else None
        return 200, {"items": items, "total": len(ids), "page": 1, "per_page": size, "next_cursor": cursor}


class _Handler(BaseHTTPRequestHandler):
    node: ClassVar[FakeNode]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw) if raw else None
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.node.requests.append((self.command, parts.path, body))
        self.node.applications.add(self.headers.get("X-Application-Id"))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, answer = 401, {"error": "Invalid token", "error_code": "AUTH_INVALID_TOKEN"}
        else:
            status, answer = self.node.answer(self.command, parts.path, query, body)
        encoded = b"" if answer is None else json.dumps(answer).encode()
        if self.node.broken_answer is not None:
            encoded = self.node.broken_answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
