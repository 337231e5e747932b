"""Webhooks of real processes: what was acknowledged is delivered, whenever the power fails, and across nodes."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.node.services.webhook_receiver import NODE, Sent, verified_by_node
from tests.system.neighbours import until
from tests.system.process import NodeProcess, civicnode

SECRET = "your_webhook_secret"
PRIVATE = {"CIVICNODE_WEBHOOKS_ALLOW_PRIVATE": "1"}
TASK = {"name": "Task", "fields": {"title": {"type": "string"}}}
WAIT_S = 60.0


class Receiver:
    """A server in a thread. Until `answers` is set, every request hangs."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answers = threading.Event()
        self._more = threading.Condition()
        self.url = ""

    def take(self, sent: Sent) -> None:
        with self._more:
            self.sent.append(sent)
            self._more.notify_all()
        self.answers.wait(WAIT_S)

    def ids(self) -> set[str]:
        return {str(sent.json["instanceId"]) for sent in self.sent}

    def heard(self, ids: set[str]) -> None:
        """Wait until all of these were told of."""
        with self._more:
            assert self._more.wait_for(lambda: self.ids() >= ids, WAIT_S), ids - self.ids()

    def heard_any(self) -> None:
        with self._more:
            assert self._more.wait_for(lambda: bool(self.sent), WAIT_S)


@contextmanager
def _receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.take(Sent(self.path, dict(self.headers), body))
            try:
                self.send_response(204)
                self.end_headers()
            except OSError:
                pass  # whoever asked is dead

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        server.shutdown()
        server.server_close()


def _register(node: NodeProcess, receiver: Receiver) -> str:
    body = {"url": receiver.url, "events": ["Task.created"], "secret": SECRET}
    made = node.ask("POST", "/v1/webhooks", body)
    assert made.status == 201, made.body
    return str(made.json["id"])


def test_a_kill_between_commit_and_delivery_loses_no_event(tmp_path: Path) -> None:
    written: set[str] = set()

    def write(node: NodeProcess, first: int, last: int) -> None:
        for number in range(first, last):
            assert node.ask("POST", "/v1/data/Task", {"id": f"t{number}", "title": "ö"}).status == 201
            written.add(f"t{number}")

    with _receiving() as receiver:
        with NodeProcess(tmp_path / "node", env=PRIVATE) as node:
            assert node.ask("POST", "/v1/data-models", TASK).status == 201
            hook = _register(node, receiver)
            write(node, 0, 10)
            receiver.heard_any()  # some are on their way, some wait, some may not even be in the outbox
            write(node, 10, 14)
            node.kill()
        with NodeProcess(tmp_path / "node", env=PRIVATE) as node:
            write(node, 14, 16)
            node.kill()  # with what the last life left, and more
        receiver.answers.set()
        with NodeProcess(tmp_path / "node", env=PRIVATE) as node:
            receiver.heard(written)
            assert node.ask("GET", f"/v1/webhooks/{hook}").json["enabled"] is True
            assert node.stop() == 0
    by_id: dict[str, set[str]] = {}
    for sent in receiver.sent:
        by_id.setdefault(sent.headers["webhook-id"], set()).add(sent.json["instanceId"])
    assert all(len(instances) == 1 for instances in by_id.values())
    assert len(by_id) == len(written), "what comes twice comes under one id"
    if NODE is not None:
        assert all(verified_by_node([sent.body for sent in receiver.sent], SECRET))


def test_a_node_tells_what_was_written_on_another_one(tmp_path: Path) -> None:
    with _receiving() as receiver:
        receiver.answers.set()
        with NodeProcess(tmp_path / "first", env=PRIVATE) as first:
            assert first.ask("POST", "/v1/data-models", TASK).status == 201
            _register(first, receiver)
            ticket = civicnode("invite", "--data-dir", str(first.data_dir))
            assert ticket.returncode == 0, ticket.stderr
            joined = civicnode("join", ticket.stdout.strip(), "--data-dir", str(tmp_path / "second"))
            assert joined.returncode == 0, joined.stderr
            with NodeProcess(tmp_path / "second") as second:
                until(lambda: len(second.ask("GET", "/v1/data-models").json) == 1, "the model", first, second)
                assert second.ask("POST", "/v1/data/Task", {"id": "t1", "title": "there"}).status == 201
                receiver.heard({"t1"})
                node_id = second.ask("GET", "/v1/admin/status").json["node_id"]
    assert [sent.json.get("origin") for sent in receiver.sent] == [node_id]


def test_a_node_sends_nothing_to_its_own_machine_unless_it_is_told_to(tmp_path: Path) -> None:
    with _receiving() as receiver, NodeProcess(tmp_path / "node") as node:
        receiver.answers.set()
        refused = node.ask("POST", "/v1/webhooks", {"url": receiver.url, "events": ["*"]})
        assert refused.status == 400 and "url" in refused.json["details"]
        # A name that leads there cannot be told by its looks; it is by its address.
        by_name = receiver.url.replace("127.0.0.1", "localhost.localdomain")
        made = node.ask("POST", "/v1/webhooks", {"url": by_name, "events": ["*"]})
        assert made.status == 201
        ping = node.ask("POST", f"/v1/webhooks/{made.json['id']}/test").json
        assert (ping["status"], ping["response_code"]) == ("failed", None)
        assert receiver.sent == []
