"""One request to a receiver that may be slow, hostile, somewhere else by now, or not there at all."""

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from node.services.webhook_sending import ANSWER_READ_MAX_BYTES, LookUps, Sender
from tests.node.services.webhook_receiver import Receiver, Sent, receiving

NOW_MS = 1_700_000_000_000


@asynccontextmanager
async def sending(**options: Any) -> AsyncIterator[Sender]:
    defaults: dict[str, Any] = {
        "allow_private": True,
        "is_own": lambda host, port: False,
        "seconds": time.perf_counter,
        "now_ms": lambda: NOW_MS,
    }
    sender = Sender(**(defaults | options))
    try:
        yield sender
    finally:
        await sender.close()


def _answers(*answers: list[str]) -> Callable[[str, int], Any]:
    """A name server that answers one thing after another."""
    left = list(answers)

    async def look_up(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return look_up


def _at(receiver: Receiver, host: str) -> str:
    return receiver.url.replace("127.0.0.1", host)


async def test_what_is_sent_arrives_as_it_is() -> None:
    async with receiving() as receiver, sending() as sender:
        outcome = await sender.send(receiver.url + "?a=%2F", {"webhook-id": "msg_1"}, b'{"a":1}')
        assert (outcome.code, outcome.excerpt, outcome.error) == (200, "thanks", None)
        assert outcome.is_delivered and outcome.latency_ms >= 0
        (sent,) = receiver.sent
        assert (sent.path, sent.body) == ("/hook?a=%2F", b'{"a":1}')
        assert sent.headers["webhook-id"] == "msg_1"
        assert sent.headers["Content-Type"] == "application/json"
        assert sent.headers["Accept-Encoding"] == "identity"


async def test_an_answer_that_is_no_success_is_told() -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answer = lambda sent: (503, {"Retry-After": "120"}, b"later")
        outcome = await sender.send(receiver.url, {}, b"{}")
        assert (outcome.code, outcome.retry_after_s, outcome.is_delivered) == (503, 120, False)
        assert outcome.error == "the receiver answered 503"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("99999999999999999999", 999_999_999),
        (email.utils.formatdate(NOW_MS / 1_000 + 90, usegmt=True), 90),
        (email.utils.formatdate(NOW_MS / 1_000 - 90, usegmt=True), 0),
        ("soon", None),
        ("-5", None),
        ("Tue, 99 Foo 2099 00:00:00 GMT", None),
    ],
)
async def test_retry_after_in_every_form(text: str, seconds: int | None) -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answer = lambda sent: (429, {"Retry-After": text}, b"")
        assert (await sender.send(receiver.url, {}, b"{}")).retry_after_s == seconds


async def test_redirects_are_not_followed() -> None:
    async with receiving() as trap, receiving() as receiver, sending() as sender:
        receiver.answer = lambda sent: (307, {"Location": trap.url}, b"")
        outcome = await sender.send(receiver.url, {}, b"{}")
        assert outcome.code == 307 and not outcome.is_delivered
        assert trap.sent == []


async def test_no_more_of_an_answer_is_read_than_is_shown() -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answer = lambda sent: (200, {}, "ö".encode() * 10_000_000)
        outcome = await sender.send(receiver.url, {}, b"{}")
        assert outcome.is_delivered
        assert outcome.excerpt == "ö" * (ANSWER_READ_MAX_BYTES // 2)


async def test_a_receiver_that_hangs_is_given_up() -> None:
    async with receiving() as receiver, sending(timeout_s=0.05) as sender:
        receiver.answer = lambda sent: None
        outcome = await sender.send(receiver.url, {}, b"{}")
        assert (outcome.code, outcome.error) == (None, "no answer within 0.05 s")


async def test_a_name_server_that_hangs_is_given_up() -> None:
    async def look_up(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with sending(timeout_s=0.05, look_up=look_up) as sender:
        assert (await sender.send("http://example.org/", {}, b"{}")).error == "no answer within 0.05 s"


@asynccontextmanager
async def _speaking(said: bytes) -> AsyncIterator[str]:
    """A server that says the same to everybody, HTTP or not."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 nonsense\r\n\r\n",
    ],
)
async def test_what_does_not_speak_http_is_a_failure_in_few_words(said: bytes) -> None:
    async with _speaking(said) as url, sending() as sender:
        outcome = await sender.send(url, {}, b"{}")
        assert outcome.code is None and outcome.error in (
            "the receiver closed the connection",
            "the receiver's answer was not understood",
        )


async def test_an_answer_that_breaks_off_has_been_given() -> None:
    async with _speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as url, sending() as sender:
        outcome = await sender.send(url, {}, b"{}")
        assert (outcome.code, outcome.excerpt) == (200, "half")


async def test_a_port_where_nobody_listens() -> None:
    async with receiving() as receiver:
        url = receiver.url
    async with sending() as sender:
        outcome = await sender.send(url, {}, b"{}")
        assert outcome.code is None and str(outcome.error).startswith("cannot connect")


async def test_a_name_that_is_none() -> None:
    async with sending() as sender:
        outcome = await sender.send("http://nothing.invalid/", {}, b"{}")
        assert outcome.error == "the host's name cannot be resolved"


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Any) -> None:
    async with receiving() as receiver, sending() as sender:
        outcome = await sender.send(receiver.url.replace("http://", "https://"), {}, b"{}")
        assert outcome.code is None and outcome.error is not None
        assert receiver.sent == []


# -- forged requests: what only this machine can reach


REFUSED = "the target's address is not one that webhooks go to"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_private_targets_are_not_connected_to(host: str) -> None:
    async with receiving() as receiver, sending(allow_private=False) as sender:
        outcome = await sender.send(_at(receiver, host), {}, b"{}")
        assert outcome.code is None and outcome.error in (REFUSED, "cannot connect: refused")
        assert receiver.sent == []


async def test_a_name_that_resolves_to_this_machine_gains_nothing() -> None:
    async with (
        receiving() as receiver,
        sending(allow_private=False, look_up=_answers(["127.0.0.1"])) as sender,
    ):
        outcome = await sender.send(_at(receiver, "innocent.example"), {}, b"{}")
        assert (outcome.code, outcome.error) == (None, REFUSED)
        assert receiver.sent == []


async def test_a_name_that_is_bound_anew_between_two_looks_gains_nothing() -> None:
    """The first answers are allowed (a loopback address stands for a public one), the next one is not."""
    looked = _answers(["127.0.0.1"], ["127.0.0.2"])
    refused: list[str] = []

    def is_own(host: str, port: int) -> bool:
        refused.append(host)
        return host == "127.0.0.2"

    async with receiving("0.0.0.0") as receiver, sending(look_up=looked, is_own=is_own) as sender:
        url = receiver.url.replace("0.0.0.0", "rebinding.example")
        assert (await sender.send(url, {}, b"{}")).is_delivered
        outcome = await sender.send(url, {}, b"{}")
        assert (outcome.code, outcome.error) == (None, "the target is this node itself")
        assert len(receiver.sent) == 1
        assert refused == ["127.0.0.1", "127.0.0.2"], "every connection is judged by the address it goes to"


async def test_one_public_address_among_private_ones_does_not_open_those() -> None:
    looked = _answers(["127.0.0.1", "127.0.0.3"])
    async with receiving("0.0.0.0") as receiver, sending(allow_private=False, look_up=looked) as sender:
        outcome = await sender.send(receiver.url.replace("0.0.0.0", "mixed.example"), {}, b"{}")
        assert outcome.code is None
        assert receiver.sent == []


async def test_spellings_of_addresses_are_no_way_around() -> None:
    async with receiving() as receiver, sending(allow_private=False) as sender:
        for host in ("2130706433", "0x7f000001", "127.1", "0177.0.0.1"):
            assert (await sender.send(_at(receiver, host), {}, b"{}")).code is None
        assert receiver.sent == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver, sending() as sender:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await sender.send(receiver.url, {}, b"{}")).is_delivered
        assert (proxy.sent, len(receiver.sent)) == ([], 1)


async def test_cookies_are_not_kept() -> None:
    async with receiving() as receiver, sending() as sender:
        receiver.answer = lambda sent: (200, {"Set-Cookie": "a=b"}, b"")
        await sender.send(receiver.url, {}, b"{}")
        await sender.send(receiver.url, {}, b"{}")
        assert all("Cookie" not in sent.headers for sent in receiver.sent)


async def test_names_are_looked_up_by_the_system() -> None:
    assert set(await LookUps()("localhost", 80)) & {"127.0.0.1", "::1"}
    with pytest.raises(OSError):
        await LookUps()("nothing.invalid", 80)
    with pytest.raises(OSError):
        await LookUps()("a" * 300, 80)


async def test_one_target_does_not_wait_for_another() -> None:
    def slow(sent: Sent) -> None:
        return None

    async with receiving() as hanging, receiving() as receiver, sending(timeout_s=5) as sender:
        hanging.answer = slow
        stuck = [asyncio.create_task(sender.send(hanging.url, {}, b"{}")) for _ in range(20)]
        await hanging.heard(20)
        assert (await sender.send(receiver.url, {}, b"{}")).is_delivered
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
