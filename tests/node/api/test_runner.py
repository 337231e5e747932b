import asyncio
import datetime
import io
import os
import ssl
import time
from pathlib import Path

import pytest
from aiohttp import web

from node.api import runner
from node.api.replies import json_response
from node.api.routes import Auth, Route
from node.api.runner import ApiServer, tls_context
from node.listening import CannotListen, PortTaken
from node.logs import make_logger
from node.origins import Address
from tests.node.api.harness import NOW_MS, USER_TOKEN, Api, api_with, read_reply

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n"
)


async def open_socket(api: Api) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    request = (
        f"GET /v1/live HTTP/1.1\r\nHost: {api.host}\r\nAuthorization: Bearer {USER_TOKEN}\r\n{UPGRADE}\r\n"
    )
    writer.write(request.encode())
    assert (await read_reply(reader)).status == 101
    assert await reader.readexactly(10) == b"\x81\x08hello u1"
    return reader, writer


async def test_a_free_port_is_taken_and_reported() -> None:
    async with api_with() as one, api_with() as other:
        assert one.port != other.port
        assert one.server.listening is not None
        assert one.server.listening.url == f"http://127.0.0.1:{one.port}"
        assert one.server.listening.address == Address("127.0.0.1", one.port)


async def test_a_taken_port_is_refused_with_the_name_of_its_holder() -> None:
    async with api_with() as api:
        log = make_logger(level="info", format="text", stream=io.StringIO(), clock_ms=lambda: NOW_MS)
        second = ApiServer(api.frame, Address("127.0.0.1", api.port), log)
        with pytest.raises(PortTaken) as caught:
            await second.start()
        assert f"127.0.0.1:{api.port} is taken" in str(caught.value)
        assert "--api" in str(caught.value)
        assert "\n" not in str(caught.value)
        if caught.value.holder is not None:
            assert f"process {os.getpid()}" in caught.value.holder
        assert (await api.ask("GET", "/maybe/1")).status == 200
        await second.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "name.invalid"])
async def test_an_address_that_is_not_ours_is_refused_in_one_line(host: str) -> None:
    async with api_with() as api:
        log = make_logger(level="info", format="text", stream=io.StringIO(), clock_ms=lambda: NOW_MS)
        with pytest.raises(CannotListen) as caught:
            await ApiServer(api.frame, Address(host, 0), log).start()
        assert host in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_localhost_is_served_on_every_family_with_one_port() -> None:
    async with api_with(address=Address("localhost", 0)) as api:
        assert (await api.ask("GET", "/maybe/1")).status == 200
        assert (await api.ask("GET", "/maybe/1", {})).status == 200


async def test_websockets_are_closed_with_1001_when_the_node_stops() -> None:
    async with api_with() as api:
        reader, writer = await open_socket(api)
        stopping = asyncio.create_task(api.server.stop(grace_s=2))
        frame = await reader.readexactly(4)
        assert frame[0] == 0x88
        assert int.from_bytes(frame[2:4], "big") == 1001
        writer.write(b"\x88\x82\x00\x00\x00\x00" + (1001).to_bytes(2, "big"))
        await asyncio.wait_for(stopping, 60)
        writer.close()


async def test_a_websocket_that_never_answers_does_not_hold_up_the_end() -> None:
    async with api_with() as api:
        _, writer = await open_socket(api)
        await asyncio.wait_for(api.server.stop(grace_s=0.2), 9)
        writer.close()


async def test_a_fault_in_a_websocket_closes_it_with_1011() -> None:
    async with api_with() as api:
        reader, writer = await open_socket(api)
        writer.write(b"\x81\x84\x00\x00\x00\x00fail")
        frame = await reader.readexactly(4)
        assert (frame[0], int.from_bytes(frame[2:4], "big")) == (0x88, 1011)
        writer.close()
        assert "in a socket" in api.log.getvalue()


async def test_a_request_under_way_ends_and_later_ones_are_not_taken() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        entered.set()
        await leave.wait()
        return json_response({"done": True})

    async with api_with(Route("GET", "/slow", slow, "", auth=Auth.NONE)) as api:
        asking = asyncio.create_task(api.ask("GET", "/slow"))
        await entered.wait()
        stopping = asyncio.create_task(api.server.stop(grace_s=5))
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r"."):
            await api.ask("GET", "/maybe/1")
        leave.set()
        assert (await asking).json == {"done": True}
        await stopping


async def test_a_stream_without_end_learns_that_the_node_stops() -> None:
    waiting = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        waiting.set()
        await frames[0].stopping.wait()
        return json_response({"over": True})

    frames = []
    async with api_with(Route("GET", "/stream", stream, "", auth=Auth.NONE)) as api:
        frames.append(api.frame)
        asking = asyncio.create_task(api.ask("GET", "/stream"))
        await waiting.wait()
        await asyncio.wait_for(api.server.stop(grace_s=120), 60)
        assert (await asking).json == {"over": True}


async def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    async with api_with() as api:
        await api.server.stop()
        await api.server.stop()


async def test_silent_connections_displace_each_other_and_nobody_else() -> None:
    async with api_with() as api:
        busy_reader, busy = await asyncio.open_connection("127.0.0.1", api.port)
        request = f"GET /maybe/1 HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode()
        busy.write(request)
        assert (await read_reply(busy_reader)).status == 200
        silent = [await asyncio.open_connection("127.0.0.1", api.port) for _ in range(runner.SILENT_MAX * 3)]
        silent[-1][1].write(b"GET / HTTP/1.1\r\nHost:")
        assert (await api.ask("GET", "/maybe/1")).status == 200
        assert await silent[0][0].read() == b""
        busy.write(request)
        assert (await read_reply(busy_reader)).status == 200
        assert api.server._server is not None
        assert len(api.server._server.connections) <= runner.SILENT_MAX + 3
        for _, writer in [*silent, (None, busy)]:
            writer.close()


async def test_a_connection_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SILENT_MAX_S", 0.05)
    async with api_with() as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_request_that_came_in_time_is_answered_however_long_the_node_was_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "SILENT_MAX_S", 0.05)
    async with api_with() as api:
        assert api.server._server is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        while not api.server._server.connections:  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)
        writer.write(f"GET /maybe/1 HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode())
        held_until = time.monotonic() + 2 * runner.SILENT_MAX_S
        while time.monotonic() < held_until:  # nothing of this loop runs meanwhile
            pass
        assert (await read_reply(reader)).status == 200
        writer.close()


async def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from node.api import requests

    monkeypatch.setattr(requests, "BODY_PAUSE_S", 0.05)
    async with api_with() as api:
        headers = {"Content-Type": "application/json", "Content-Length": "100"}
        reply = await api.ask("POST", "/v1/notes", headers, b"{", token=USER_TOKEN)
        assert (reply.status, reply.json["error_code"]) == (408, "REQUEST_TIMEOUT")


async def test_connections_beyond_the_limit_are_not_kept() -> None:
    async with api_with(connections_max=4) as api:
        pairs = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(f"GET /maybe/1 HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode())
            assert (await read_reply(reader)).status == 200
            pairs.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        assert await reader.read() == b""
        for one in [*pairs, writer]:
            one.close()


def certificate(directory: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


async def test_tls_is_served_with_the_given_certificate(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    async with api_with(tls=tls_context(cert_file, key_file)) as api:
        assert api.server.listening is not None
        assert api.server.listening.url.startswith("https://")
        trust = ssl.create_default_context(cafile=cert_file)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", api.port, ssl=trust, server_hostname="localhost"
        )
        writer.write(
            f"GET /maybe/1 HTTP/1.1\r\nHost: {api.host}\r\nOrigin: https://{api.host}\r\n\r\n".encode()
        )
        assert (await read_reply(reader)).status == 200
        writer.close()
        await writer.wait_closed()


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    with pytest.raises(CannotListen, match=r"missing\.pem"):
        tls_context(tmp_path / "missing.pem", key_file)
    with pytest.raises(CannotListen, match=r"cert\.pem"):
        tls_context(cert_file, cert_file)
    key_file.write_text("not a key")
    with pytest.raises(CannotListen, match=r"key\.pem"):
        tls_context(cert_file, key_file)
