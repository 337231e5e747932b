"""Daemons of one network over TLS on loopback: they come to hold the same, whatever is cut or killed."""

import asyncio
import json
import random
import shutil
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.system.neighbours import (
    MODEL,
    PATIENCE_S,
    agree,
    directories,
    entries,
    free_port,
    listening,
    status,
    until,
)
from tests.system.process import NodeProcess, civicnode
from tests.system.proxy import Proxy

WRITERS = 4

# Before a command, on a machine whose clock is wrong.
A_DAY_AHEAD = (
    sys.executable,
    "-c",
    """
import sys, time
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() + 86_400, lambda: now_ns() + 86_400 * 10**9
from cli.main import main
sys.exit(main(sys.argv[sys.argv.index("cli.main") + 1 :]))
""",
)


def fill(node: NodeProcess, count: int, word: str) -> None:
    body = [
        {"method": "POST", "path": "/data/Entry", "body": {"text": f"{word} {number}", "number": number}}
        for number in range(count)
    ]
    answer = node.ask("POST", "/v1/batch", {"operations": body, "atomic": False})
    assert answer.status == 200 and {result["status"] for result in answer.json["results"]} == {201}


def check(*directories: Path) -> None:
    for directory in directories:
        report = civicnode("doctor", "--data-dir", str(directory), "--json")
        assert report.returncode == 0, report.stdout + report.stderr


def test_an_empty_node_comes_to_hold_everything_and_from_then_on_both_hear_at_once(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a:
        assert a.ask("POST", "/v1/data-models", MODEL).status == 201
        fill(a, 700, "first")
        account = {"email": "ada@example.org", "password": "correct horse", "application_id": "default"}
        assert a.ask("POST", "/v1/auth/register", {**account, "username": "ada"}, token=None).status == 201
        with NodeProcess(two, "--peer", listening(a)) as b:
            synced = b.ask("POST", "/v1/sync?timeout_ms=60000")
            assert synced.status == 200
            assert status(b)["in_sync"]
            agree(a, b)
            assert len(entries(b)) == 700
            signed_in = b.ask("POST", "/v1/auth/login", account, token=None)
            assert signed_in.status == 200
            made = b.ask("POST", "/v1/data/Entry", {"text": "from two"}, token=signed_in.json["token"])
            assert made.status == 201
            path = f"/v1/data/Entry/{made.json['instance_id']}"
            until(lambda: a.ask("GET", path).status == 200, "what was written on two", a, b)
            assert a.ask("DELETE", path).status == 204
            until(lambda: b.ask("GET", path).status == 404, "the delete on one", a, b)
            agree(a, b)
            (peer,) = status(a)["peers"]
            assert (peer["state"], peer["direction"], peer["lag_arrivals"]) == ("live", "in", 0)
            shown = civicnode("status", "--data-dir", str(one))
            assert "1 link, in sync" in shown.stdout and "live" in shown.stdout
            told = json.loads(civicnode("status", "--data-dir", str(two), "--json").stdout)
            assert told["in_sync"] and told["peers"][0]["direction"] == "out"
            text = a.ask("GET", "/metrics").body.decode()
            assert "civicnode_links 1.0" in text and 'civicnode_link_bytes_total{direction="in"}' in text
            assert b.stop() == 0
        until(lambda: not status(a)["in_sync"] or not status(a)["peers"], "the end of the link", a)
        assert a.stop() == 0
    for node in (a, b):
        assert "Traceback" not in node.errors.read_text()
    check(one, two)


async def test_a_remote_change_reaches_subscribers(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a, NodeProcess(two, "--peer", listening(a)) as b:
        a.ask("POST", "/v1/data-models", MODEL)
        until(lambda: b.ask("GET", "/v1/data-models/Entry").status == 200, "the model", a, b)
        headers = {"Authorization": f"Bearer {b.token}"}
        async with (
            aiohttp.ClientSession(b.url, headers=headers) as session,
            session.ws_connect("/v1/realtime") as socket,
        ):
            await socket.send_json({"action": "subscribe", "model": "Entry"})
            await socket.receive_json(timeout=PATIENCE_S)
            made = await asyncio.to_thread(a.ask, "POST", "/v1/data/Entry", {"text": "live"})
            event = await socket.receive_json(timeout=PATIENCE_S)
            if event["event"] == "resync":  # of the first sync, which has just been
                event = await socket.receive_json(timeout=PATIENCE_S)
        assert made.json["instance_id"] in json.dumps(event)


def test_a_link_that_is_cut_again_and_again_in_the_middle_brings_everything_in_the_end(
    tmp_path: Path,
) -> None:
    one, two = directories(tmp_path, "one", "two")
    chance = random.Random(7)
    with NodeProcess(one) as a:
        a.ask("POST", "/v1/data-models", MODEL)
        for part in range(8):
            fill(a, 500, f"part {part}")
        with (
            Proxy(int(listening(a).rpartition(":")[2])) as proxy,
            NodeProcess(two, "--peer", f"127.0.0.1:{proxy.port}") as b,
        ):
            written = 0
            for _ in range(12):
                proxy.cut_after_bytes = chance.randrange(1_000, 400_000)
                calls = proxy.connections
                proxy.cut()
                b.ask("POST", "/v1/sync?timeout_ms=300")
                until(lambda calls=calls: proxy.connections > calls, "another call", a, b)  # type: ignore[misc]
                if b.ask("GET", "/v1/data-models/Entry").status == 200:
                    fill(b, 3, "meanwhile")
                    written += 3
            proxy.cut_after_bytes = None
            proxy.cut()
            b.ask("POST", "/v1/sync?timeout_ms=1000")
            agree(a, b)
            assert len(entries(a)) == 8 * 500 + written
            assert proxy.connections > 12
            assert b.stop() == 0
        assert a.stop() == 0
    check(one, two)


def test_what_was_written_apart_is_on_both_sides_once_they_meet_and_little_is_said(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a:
        a.ask("POST", "/v1/data-models", MODEL)
        fill(a, 1_000, "first")
        with (
            Proxy(int(listening(a).rpartition(":")[2])) as proxy,
            NodeProcess(two, "--peer", f"127.0.0.1:{proxy.port}") as b,
        ):
            agree(a, b)
            proxy.cut(stays_down=True)
            until(lambda: not status(b)["in_sync"], "the cut", a, b)
            ids = [row[0] for row in entries(a)[:10]]
            for id in ids:
                assert a.ask("PUT", f"/v1/data/Entry/{id}", {"text": "changed on one"}).status == 200
            assert b.ask("PUT", f"/v1/data/Entry/{ids[0]}", {"text": "changed on two"}).status == 200
            proxy.is_down, proxy.bytes = False, 0
            synced = b.ask("POST", "/v1/sync?timeout_ms=60000").json
            agree(a, b)
            (conflict,) = synced["conflicts"] or b.ask("GET", "/v1/conflicts").json["items"]
            assert (conflict["instance_id"], conflict["field"]) == (ids[0], "text")
            assert {value["value"] for value in conflict["values"]} == {"changed on one", "changed on two"}
            assert proxy.bytes < 12_000  # with TLS and its handshake; nothing of the thousand is said again
            assert b.stop() == 0
        assert a.stop() == 0


def test_two_who_edit_one_text_apart_find_both_edits_in_it(tmp_path: Path) -> None:
    page = {"name": "Page", "fields": [{"name": "body", "type": "text"}, {"name": "steps", "type": "array"}]}
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a:
        assert a.ask("POST", "/v1/data-models", page).status == 201
        first = a.ask("POST", "/v1/data/Page", {"id": "p", "body": "The fox jumps.", "steps": [1, 2]})
        version = first.headers["etag"].strip('"')
        with (
            Proxy(int(listening(a).rpartition(":")[2])) as proxy,
            NodeProcess(two, "--peer", f"127.0.0.1:{proxy.port}") as b,
        ):
            until(lambda: b.ask("GET", "/v1/data/Page/p").status == 200, "the page on two", a, b)
            proxy.cut(stays_down=True)
            until(lambda: not status(b)["in_sync"], "the cut", a, b)
            ops = [{"retain": 4}, {"insert": "quick "}]
            edit = {"body": {"ops": ops, "base_version": version}, "steps": [0, 1, 2]}
            assert a.ask("PUT", "/v1/data/Page/p", edit).status == 200
            assert (
                b.ask("PUT", "/v1/data/Page/p", {"body": "The fox jumps high 🦊.", "steps": [1, 2, 3]}).status
                == 200
            )
            proxy.is_down = False
            both = "The quick fox jumps high 🦊."

            def shown(node: NodeProcess) -> Any:
                return node.ask("GET", "/v1/data/Page/p").json

            until(lambda: shown(a)["body"] == shown(b)["body"] == both, "both edits", a, b)
            assert shown(a)["steps"] == shown(b)["steps"] == [0, 1, 2, 3]
            late = {"body": {"ops": [{"retain": 3}, {"insert": " red"}], "base_version": version}}
            assert b.ask("PUT", "/v1/data/Page/p", late).status == 200  # made on what both have seen long ago
            expected = "The red quick fox jumps high 🦊."
            until(lambda: a.ask("GET", "/v1/data/Page/p").json["body"] == expected, "the late edit", a, b)
            history = b.ask("GET", "/v1/data/Page/p/history").json["items"]
            assert {"op": "text", "field": "body", "inserted": [" red"], "deleted": 0} in history[0][
                "operations"
            ]
            assert [node.ask("GET", "/v1/admin/status").json["quarantined"] for node in (a, b)] == [[], []]
            assert b.stop() == 0
        assert a.stop() == 0
    for node in (a, b):
        assert "Traceback" not in node.errors.read_text()
    check(one, two)


def test_three_in_a_line_hold_the_same_whatever_becomes_of_the_one_in_the_middle(tmp_path: Path) -> None:
    """The ends never meet; what they write while it is gone crosses once it is back."""
    one, two, three = directories(tmp_path, "one", "two", "three")
    middle = f"127.0.0.1:{free_port()}"
    with (
        NodeProcess(one, "--peer", middle) as a,
        NodeProcess(three, "--peer", middle) as c,
        NodeProcess(two, "--listen", middle) as b,
    ):
        a.ask("POST", "/v1/data-models", MODEL)
        until(lambda: c.ask("GET", "/v1/data-models/Entry").status == 200, "the model", a, b, c)
        for node, word in ((a, "a"), (b, "b"), (c, "c")):
            fill(node, 100, word)
        agree(a, b, c)
        assert len(entries(c)) == 300
        assert len(status(a)["peers"]) == len(status(c)["peers"]) == 1
        for node, word in ((a, "of a"), (b, "of b"), (c, "of c")):
            fill(node, 100, word)
        b.kill()
        for node in (a, c):
            fill(node, 10, "alone")
        with NodeProcess(two, "--listen", middle) as again:
            agree(a, again, c)
            assert len(entries(a)) == 620
            for node in (a, c, again):
                assert node.stop() == 0
    check(one, two, three)


def test_a_clock_that_is_a_day_ahead_keeps_nobody_from_agreeing(tmp_path: Path) -> None:
    """Both hold everything at once; what is dated tomorrow is shown where it is tomorrow."""
    one, two = directories(tmp_path, "one", "two")
    with NodeProcess(one) as a:
        a.ask("POST", "/v1/data-models", MODEL)
        with NodeProcess(two, "--peer", listening(a), prefix=A_DAY_AHEAD) as b:
            until(lambda: b.ask("GET", "/v1/data-models/Entry").status == 200, "the model", a, b)
            fill(a, 10, "today")
            fill(b, 10, "tomorrow")
            until(
                lambda: len(entries(b) or ()) == 20 and all(status(node)["in_sync"] for node in (a, b)),
                "all",
                a,
                b,
            )
            assert {row[1].split()[0] for row in entries(a)} == {"today"}
            assert a.stop() == 0
            with NodeProcess(one, "--peer", listening(b), prefix=A_DAY_AHEAD) as later:
                agree(later, b)
                assert len(entries(later)) == 20
                fill(later, 10, "the day after")
                agree(later, b)
                assert later.stop() == b.stop() == 0
    check(one, two)


def test_two_that_know_each_other_keep_one_link(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    ports = free_port(), free_port()
    for _ in range(2):
        with (
            NodeProcess(one, "--listen", f"127.0.0.1:{ports[0]}", "--peer", f"127.0.0.1:{ports[1]}") as a,
            NodeProcess(two, "--listen", f"127.0.0.1:{ports[1]}", "--peer", f"127.0.0.1:{ports[0]}") as b,
        ):
            until(lambda: status(a)["in_sync"] and status(b)["in_sync"], "the link", a, b)

            def is_one() -> bool:
                """Not for a moment only, in which one of them has still to call."""
                links = [link for node in (a, b) for link in status(node)["peers"]]
                return sorted(link["direction"] for link in links) == ["in", "out"]

            until(is_one, "one link", a, b)
            assert a.stop() == b.stop() == 0


async def _write_until(node: NodeProcess, over: asyncio.Event, first: int, kept: dict[str, int]) -> None:
    """Create from several connections until it is over; whatever was answered is noted."""
    headers = {"Authorization": f"Bearer {node.token}"}
    async with aiohttp.ClientSession(node.url, headers=headers) as session:

        async def write(writer: int) -> None:
            number = first + writer
            while not over.is_set():
                body = {"text": f"entry {number}", "number": number}
                try:
                    async with session.post("/v1/data/Entry", json=body) as answer:
                        created = await answer.json()
                        assert answer.status == 201, created
                    kept[created["instance_id"]] = number
                except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                    return
                number += WRITERS

        await asyncio.gather(*(write(number) for number in range(WRITERS)))


async def _kill_either(tmp_path: Path, times: int, seed: int) -> None:
    chance = random.Random(seed)
    one, two = directories(tmp_path, "one", "two")
    ports = free_port(), free_port()
    kept: dict[str, int] = {}

    def start(number: int) -> NodeProcess:
        peer = f"127.0.0.1:{ports[1 - number]}"
        return NodeProcess((one, two)[number], "--listen", f"127.0.0.1:{ports[number]}", "--peer", peer)

    nodes = [start(0), start(1)]
    try:
        assert nodes[0].ask("POST", "/v1/data-models", MODEL).status == 201
        until(lambda: nodes[1].ask("GET", "/v1/data-models/Entry").status == 200, "the model", *nodes)
        for turn in range(times):
            victim = chance.randrange(2)
            over, before = asyncio.Event(), len(kept)
            writing = [
                asyncio.create_task(_write_until(node, over, (turn * 2 + number) * 100_000 + 1, kept))
                for number, node in enumerate(nodes)
            ]
            async with asyncio.timeout(PATIENCE_S):
                while len(kept) <= before + 10:  # noqa: ASYNC110  # what is waited for has no event
                    await asyncio.sleep(0.001)
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            nodes[victim].kill()
            await asyncio.sleep(0.2)  # for which the other one goes on
            over.set()
            await asyncio.gather(*writing)
            nodes[victim] = start(victim)
        await asyncio.to_thread(agree, *nodes)
        for node in nodes:
            held = {row[0]: row[2] for row in entries(node)}
            assert {id: held.get(id) for id in kept} == kept
            assert "Traceback" not in node.errors.read_text()
            assert node.stop() == 0
        assert len(kept) > 10 * times
    finally:
        for node in nodes:
            node.__exit__(None, None, None)
    check(one, two)


async def test_either_side_is_killed_under_load_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    await _kill_either(tmp_path, 20, seed=1)


@pytest.mark.soak
async def test_either_side_is_killed_under_load_five_hundred_times(tmp_path: Path) -> None:
    await _kill_either(tmp_path, 500, seed=2)


def test_a_node_that_was_restored_gets_back_what_it_had_written_since(tmp_path: Path) -> None:
    one, two = directories(tmp_path, "one", "two")
    restored, backup = tmp_path / "restored", tmp_path / "one.backup"
    with NodeProcess(one) as a:
        a.ask("POST", "/v1/data-models", MODEL)
        fill(a, 50, "before")
        assert civicnode("backup", str(backup), "--data-dir", str(one)).returncode == 0
        with NodeProcess(two, "--peer", listening(a)) as b:
            fill(a, 50, "after")
            agree(a, b)
            assert a.stop() == b.stop() == 0
    command = civicnode("restore", str(backup), "--data-dir", str(restored))
    assert command.returncode == 0, command.stderr
    with NodeProcess(restored) as a, NodeProcess(two, "--peer", listening(a)) as b:
        agree(a, b)
        assert len(entries(a)) == 100
        fill(a, 10, "a new life")
        agree(a, b)
        assert a.stop() == b.stop() == 0
    assert "new author" in a.errors.read_text()
    check(restored, two)


def test_a_disk_that_went_back_in_time_makes_the_node_go_on_as_a_new_author_while_it_runs(
    tmp_path: Path,
) -> None:
    one, two = directories(tmp_path, "one", "two")
    old = tmp_path / "old"
    port = free_port()
    here = ("--listen", f"127.0.0.1:{port}")
    with NodeProcess(one, *here) as a:
        a.ask("POST", "/v1/data-models", MODEL)
        fill(a, 20, "before")
        with NodeProcess(two, "--peer", f"127.0.0.1:{port}") as b:
            agree(a, b)
            assert a.stop() == 0
            shutil.copytree(one, old)
            with NodeProcess(one, *here) as a:
                fill(a, 20, "after")
                agree(a, b)
                author = status(b)["peers"][0]["author"]
                assert a.stop() == 0
            for name in ("data.mdb", "anchor"):  # the same files, with what was in them before
                shutil.copyfile(old / name, one / name)
            shutil.copystat(old / "data.mdb", one / "data.mdb")
            with NodeProcess(one, *here) as a:
                url = a.url
                until(lambda: status(b)["peers"][0]["author"] != author, "a new life", a, b)
                agree(a, b)
                assert len(entries(a)) == 40
                fill(a, 5, "a new life")
                agree(a, b)
                told = civicnode("status", "--data-dir", str(one), "--json")
                assert json.loads(told.stdout)["api"] == url
                assert a.stop() == b.stop() == 0
    assert "new author: a peer holds commits of this node" in a.errors.read_text()
    check(one, two)


def _shake(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))


def test_a_stranger_gets_a_challenge_and_nothing_more(tmp_path: Path) -> None:
    (one,) = directories(tmp_path, "one")
    with NodeProcess(one) as a:
        port = int(listening(a).rpartition(":")[2])
        with _shake(port) as quiet, _shake(port) as noisy, _shake(port) as liar:
            for stranger in (quiet, noisy, liar):
                assert len(stranger.recv(1_000)) == 4 + 2 + 34  # a frame, a kind and a nonce
            noisy.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert noisy.recv(1_000) == b""
            proof: list[Any] = [1, 1, 1, b"n" * 32, b"m" * 32]
            from protocol.encoding import encode
            from protocol.frames import to_frames

            liar.sendall(to_frames(encode(proof)))
            assert liar.recv(1_000) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
            plain.sendall(b"hello\r\n\r\n")
            assert plain.recv(1_000).find(b"civic") == -1

        def are_counted() -> bool:
            text = a.ask("GET", "/metrics").body.decode()
            return 'reason="stranger"' in text and (
                'reason="too_large"' in text or 'reason="malformed"' in text
            )

        until(are_counted, "the count", a)
        assert a.ask("GET", "/health").status == 200
        assert status(a)["peers"] == []
        assert a.stop() == 0
    assert "Traceback" not in a.errors.read_text()


def test_a_flood_of_connections_leaves_the_api_alone(tmp_path: Path) -> None:
    (one,) = directories(tmp_path, "one")
    with NodeProcess(one) as a:
        port = int(listening(a).rpartition(":")[2])
        held = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(300)]
        assert a.ask("GET", "/health").status == 200
        until(lambda: 'reason="flood"' in a.ask("GET", "/metrics").body.decode(), "the count", a)
        for connection in held:
            connection.close()
        assert a.stop() == 0
    assert "Traceback" not in a.errors.read_text()


def test_a_taken_port_for_peers_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("--data-dir", str(tmp_path / "n"), "--api", "127.0.0.1:0", "--listen", address)
        refused = civicnode("start", *arguments, "--no-mdns")
    assert refused.returncode != 0
    assert f"{address} is taken" in refused.stderr and "--listen" in refused.stderr
    assert "Traceback" not in refused.stderr
