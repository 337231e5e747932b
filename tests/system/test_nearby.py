"""Nodes on a local network without internet find each other: hosts in network namespaces, joined by a cable.

Skipped where this may not be set up (it takes the rights of root, and iproute2).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.system.neighbours import MODEL, directories, entries, status, until
from tests.system.process import Answer, NodeProcess

# Asks from within a host, for as long as somebody asks it to.
ASKER = """
import http.client, json, sys
for line in sys.stdin:
    method, port, path, token, body = json.loads(line)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.read().decode()]), flush=True)
    connection.close()
"""


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


class Host:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        assert ip("netns", "add", name).returncode == 0
        self.ip("link", "set", "lo", "up")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", ASKER]
        self._asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *said: object) -> Answer:
        """What a node on this host answers: method, port, path, token, body."""
        assert self._asker.stdin is not None and self._asker.stdout is not None
        self._asker.stdin.write(json.dumps(said) + "\n")
        self._asker.stdin.flush()
        status, text = json.loads(self._asker.stdout.readline())
        return Answer(status, {}, text.encode())

    def close(self) -> None:
        self._asker.communicate()
        assert ip("netns", "del", self.name).returncode == 0

    def ip(self, *arguments: str) -> None:
        done = ip("-n", self.name, *arguments)
        assert done.returncode == 0, done.stderr


class HostedNode(NodeProcess):
    """A node on a host of its own, with multicast on, whose API is asked from there."""

    def __init__(self, host: Host, data_dir: Path, *arguments: str) -> None:
        self.host = host
        prefix = ("ip", "netns", "exec", host.name)
        super().__init__(
            data_dir, *arguments, prefix=prefix, ports=("--api", "127.0.0.1:0", "--listen", "0.0.0.0:4490")
        )

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        said = "" if body is None else json.dumps(body)
        return self.host.ask(method, self.port, path, token or self.token, said)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts on one cable, which ends in `eth0` on both, with addresses of their own."""
    mark = f"cn{os.getpid()}"
    names = f"{mark}a", f"{mark}b"
    try:
        probe = ip("netns", "add", names[0])
    except FileNotFoundError:
        pytest.skip("iproute2 is not installed")
    ip("netns", "del", names[0])
    if probe.returncode != 0:
        pytest.skip("network namespaces may not be made here")
    with ExitStack() as hosts:
        one, two = (hosts.enter_context(closing(Host(name))) for name in names)
        one.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two.name)
        for number, host in enumerate((one, two), 1):
            host.ip("addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
        yield one, two


def test_two_hosts_on_a_network_without_internet_find_each_other_and_again_after_it_has_changed(
    tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    one, two = directories(tmp_path, "one", "two")
    (other,) = directories(tmp_path, "other")  # of another network, on the first host
    here, there = hosts
    with HostedNode(here, one) as a, HostedNode(there, two) as b:
        until(lambda: status(a)["in_sync"] and bool(status(a)["peers"]), "the first link", a, b)
        assert {peer["address"].partition(":")[0] for peer in status(b)["peers"]} == {"10.77.0.1"}
        assert a.ask("POST", "/v1/data-models", MODEL).status == 201
        assert a.ask("POST", "/v1/data/Entry", {"text": "by cable"}).status == 201
        until(lambda: bool(entries(b)), "what was written on one", a, b)
        here.ip("link", "set", "eth0", "down")
        here.ip("addr", "flush", "dev", "eth0")
        assert a.ask("POST", "/v1/data/Entry", {"text": "while apart"}).status == 201
        here.ip("addr", "add", "10.77.0.99/24", "dev", "eth0")
        here.ip("link", "set", "eth0", "up")
        until(lambda: len(entries(b) or ()) == 2, "what was written apart", a, b)
        addresses = {peer["address"].partition(":")[0] for peer in status(b)["peers"]}
        assert "10.77.0.99" in addresses
        assert a.stop() == b.stop() == 0
    for node in (a, b):
        assert "Traceback" not in node.errors.read_text()
    with HostedNode(here, other) as a, HostedNode(there, two) as b:
        probe = "import socket; s = socket.create_connection(('10.77.0.99', 4490), 20); s.close()"
        reach = ["ip", "netns", "exec", there.name, sys.executable, "-c", probe]
        assert subprocess.run(reach, check=False).returncode == 0  # it could be dialed
        until(lambda: heard_multicast(there), "an announcement on the cable", a, b)
        known = {peer["source"] for peer in status(b)["peers"]}
        assert "nearby" not in known
        assert "stranger" not in b.ask("GET", "/metrics").body.decode()
        assert a.stop() == b.stop() == 0


def heard_multicast(host: Host) -> bool:
    """Whether a service of ours, of whatever network, can be heard from here."""
    script = (
        "import asyncio\n"
        "from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf\n"
        "async def main():\n"
        "    zeroconf, heard = AsyncZeroconf(), asyncio.Event()\n"
        "    loop = asyncio.get_running_loop()\n"
        "    found = set()\n"
        "    def on_change(zeroconf, service_type, name, state_change):\n"
        "        found.add(name)\n"
        "        if len(found) > 1: loop.call_soon_threadsafe(heard.set)\n"
        "    AsyncServiceBrowser(zeroconf.zeroconf, '_civicnode._tcp.local.', handlers=[on_change])\n"
        "    try:\n"
        "        await asyncio.wait_for(heard.wait(), 5)\n"
        "        print('heard')\n"
        "    except TimeoutError:\n"
        "        pass\n"
        "    await zeroconf.async_close()\n"
        "asyncio.run(main())\n"
    )
    command = ["ip", "netns", "exec", host.name, sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "heard" in done.stdout


def test_a_node_that_listens_on_loopback_alone_says_nothing_to_the_network(
    tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    one, two = directories(tmp_path, "one", "two")
    here, there = hosts
    with HostedNode(here, one, "--listen", "127.0.0.1:4490") as a, HostedNode(there, two) as b:
        assert not heard_multicast(there)  # the other's own alone is one
        assert status(b)["peers"] == []
        assert a.stop() == b.stop() == 0


def test_a_machine_without_any_network_runs_a_node_all_the_same(
    tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    (one,) = directories(tmp_path, "one")
    here, _ = hosts
    here.ip("link", "set", "eth0", "down")
    here.ip("link", "set", "lo", "down")
    here.ip("link", "set", "lo", "up")
    with HostedNode(here, one) as a:
        assert a.ask("POST", "/v1/data-models", MODEL).status == 201
        assert status(a)["in_sync"]
        assert a.stop() == 0
    assert "Traceback" not in a.errors.read_text()
