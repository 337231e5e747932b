"""Commands about the devices of a network, through click, against a fake node."""

import json
from typing import Any

import pytest

from cli.commands import invite as invite_command
from cli.commands.invite import seconds
from cli.errors import CliError
from tests.cli.conftest import Run
from tests.cli.fake_node import FakeNode

INVITATIONS, PEERS, JOIN, RECOVER = (
    f"/v1/admin/{name}" for name in ("invitations", "peers", "join", "recover")
)
INVITED: dict[str, Any] = {
    "ticket": "civic1gw0ng83cytj9ftr19paw8kn",
    "role": "member",
    "applications": None,
    "expires_at": "2030-01-01T00:00:00.000Z",
    "addresses": ["192.168.1.20:4490"],
    "recovery_code": None,
}
JOINED: dict[str, Any] = {
    "network_id": "c" * 64,
    "node_id": "a" * 64,
    "role": "member",
    "applications_limited": False,
    "aside": "/data/replaced-1",
    "held_data": False,
}
PEER: dict[str, Any] = {
    "node_id": "d" * 64,
    "name": "phone\x1b[31m",
    "is_self": False,
    "state": "member",
    "role": "member",
    "applications": ["shop"],
    "link": "live",
    "in_sync": True,
    "lag_ms": 0,
    "address": "192.168.1.7:4490",
}


def asked(node: FakeNode) -> list[tuple[str, str, Any]]:
    return [request for request in node.requests if not request[1].endswith("/status")]


def test_the_ticket_stands_alone_on_standard_output(node: FakeNode, run: Run) -> None:
    node.answers["POST", INVITATIONS] = 201, INVITED
    result = run(
        "invite",
        "--role",
        "member",
        "--application",
        "shop",
        "--expires",
        "15m",
        "--address",
        "example.org:1",
    )
    assert result.exit_code == 0
    assert result.stdout == INVITED["ticket"] + "\n"
    assert "may change the data there" in result.stderr and "civicnode join" in result.stderr
    wanted = {"role": "member", "applications": ["shop"], "expires_in_s": 900, "addresses": ["example.org:1"]}
    assert node.requests == [("POST", INVITATIONS, wanted)]


def test_the_recovery_code_is_removed_once_it_has_been_shown(node: FakeNode, run: Run) -> None:
    node.answers["POST", INVITATIONS] = 201, {**INVITED, "recovery_code": "civickey1-abcde"}
    node.answers["DELETE", "/v1/admin/recovery-code"] = 200, {"forgotten": True}
    result = run("invite")
    assert "civickey1-abcde" in result.stderr and "civickey1" not in result.stdout
    assert [request[0] for request in node.requests] == ["POST", "DELETE"]
    document = json.loads(run("invite", "--json").stdout)
    assert document["schema"] == 1 and document["recovery_code"] == "civickey1-abcde"


def test_what_a_reader_and_an_administrator_may_do_is_said_and_where_a_ticket_leads_nowhere(
    node: FakeNode, run: Run
) -> None:
    node.answers["POST", INVITATIONS] = 201, {**INVITED, "role": "reader", "addresses": ["127.0.0.1:4490"]}
    assert "changes nothing" in run("invite", "--role", "reader").stderr
    assert "on this machine alone" in run("invite").stderr
    node.answers["POST", INVITATIONS] = 201, {**INVITED, "role": "admin", "addresses": []}
    assert "may do everything" in run("invite", "--role", "admin").stderr
    assert "names no address" in run("invite").stderr


def test_a_terminal_is_shown_a_code_to_photograph(
    node: FakeNode, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def __init__(self, whole: Any) -> None:
            self._whole = whole

        def isatty(self) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            return getattr(self._whole, name)

    node.answers["POST", INVITATIONS] = 201, INVITED
    whole = invite_command._advise

    def at_a_terminal(answer: dict[str, Any]) -> None:
        import sys

        monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
        whole(answer)

    monkeypatch.setattr(invite_command, "_advise", at_a_terminal)
    result = run("invite")
    assert result.exit_code == 0, result.output
    assert "\u2588" in result.stderr and result.stdout == INVITED["ticket"] + "\n"


def test_an_invitation_needs_a_running_node(run: Run, node: FakeNode) -> None:
    node.die()
    result = run("invite")
    assert result.exit_code == 3 and result.stdout == "" and "civicnode start" in result.stderr


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)])
def test_times_are_written_with_their_unit(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "15", "m", "0m", "-1h", "1.5h", "15 m", "1w"])
def test_other_times_are_refused_by_name(text: str) -> None:
    with pytest.raises(CliError, match="15m"):
        seconds(text)


def come_back(node: FakeNode, **changed: str) -> Any:
    """The node changes its network and is back at once."""

    def answer() -> dict[str, Any]:
        for name, value in changed.items():
            setattr(node, name, value)
        return JOINED

    return answer


def test_joining_waits_until_the_node_is_back(node: FakeNode, run: Run) -> None:
    node.answers["POST", JOIN] = 200, come_back(node, network_id="c" * 64)
    result = run("join", "civic1abc", "def")  # as a mail program has wrapped it
    assert result.exit_code == 0, result.stderr
    assert asked(node) == [("POST", JOIN, {"ticket": "civic1abcdef", "keep": None})]
    assert result.stdout == "joined network cccccccccccc as a member\n"
    document = json.loads(run("join", "-", "--json", stdin="civic1abcdef\n").stdout)
    assert asked(node)[1][2]["ticket"] == "civic1abcdef\n"
    assert document["schema"] == 1 and document["role"] == "member" and document["bringing"] is None


def test_what_was_brought_and_what_was_left_behind_is_listed(node: FakeNode, run: Run) -> None:
    node.answers["POST", JOIN] = 200, lambda: {**come_back(node, network_id="c" * 64)(), "held_data": True}
    left = {"application": "default", "model": "Task\x1b", "id": "x", "reason": "it is there"}
    told = {
        "from": "/x",
        "state": "done",
        "models": 1,
        "accounts": 2,
        "documents": 30,
        "left": 1,
        "left_behind": [left],
    }
    node.answers["GET", JOIN] = 200, {"bringing": told}
    result = run("join", "civic1abc", "--bring")
    assert result.exit_code == 0, result.stderr
    assert "what was here before is in /data/replaced-1" in result.stdout
    assert "brought 1 model, 2 accounts, 30 documents" in result.stdout
    assert "left behind 1 document:\n  default/Task\\x1b/x: it is there" in result.stdout
    assert asked(node)[0][2]["keep"] == "bring"
    run("join", "civic1abc", "--discard")
    assert ("POST", JOIN, {"ticket": "civic1abc", "keep": "discard"}) in node.requests


def test_both_ways_of_dealing_with_data_cannot_be_meant(node: FakeNode, run: Run) -> None:
    result = run("join", "civic1abc", "--bring", "--discard")
    assert result.exit_code == 1 and node.requests == []


def test_a_refusal_is_one_line(node: FakeNode, run: Run) -> None:
    node.refusal = (
        409,
        {"error": "Not joined: this ticket was used already: ask for a new one", "error_code": "CONFLICT"},
    )
    result = run("join", "civic1abc")
    assert result.exit_code == 1
    assert result.stderr == "Error: Not joined: this ticket was used already: ask for a new one\n"


def test_devices_are_listed_and_no_name_of_one_reaches_the_terminal_raw(node: FakeNode, run: Run) -> None:
    peers = [
        {**PEER, "name": "kitchen", "is_self": True, "role": "admin", "applications": None, "link": None},
        PEER,
        {**PEER, "name": None, "state": "revoked", "role": None, "applications": None, "link": None},
        {**PEER, "in_sync": False},
        {**PEER, "link": "waiting"},
        {**PEER, "link": None},
    ]
    node.answers["GET", PEERS] = 200, {"network_id": "b" * 64, "peers": peers}
    result = run("peers")
    lines = result.stdout.splitlines()[2:]
    assert lines[0].split() == ["kitchen", "d" * 12, "admin", "all", "this", "device"]
    assert "\\x1b" in lines[1] and "\x1b" not in result.stdout and lines[1].endswith("in sync")
    assert lines[2].split() == ["d" * 12, "revoked"]
    assert [line.split("  ")[-1] for line in lines[3:]] == ["linked, behind", "waiting", "away"]
    assert json.loads(run("peers", "--json").stdout)["peers"] == peers


def test_a_device_is_granted_a_role_and_another_is_put_out(node: FakeNode, run: Run) -> None:
    node.answers["PUT", f"{PEERS}/my%20phone"] = 200, {**PEER, "name": "my phone", "role": "admin"}
    node.answers["DELETE", f"{PEERS}/dddddddd"] = 200, {"node_id": "d" * 64, "chains": 2}
    result = run("grant", "my phone", "admin", "--application", "shop")
    assert result.stdout == "my phone is an admin now\n"
    assert run("revoke", "dddddddd").stdout.startswith("revoked dddddddddddd")
    assert json.loads(run("revoke", "dddddddd", "--json").stdout)["chains"] == 2
    assert node.requests[0][2] == {"role": "admin", "applications": ["shop"]}
    assert run("grant", "phone", "king").exit_code == 2


def test_recovering_asks_again_when_the_node_has_come_back_under_another_key(
    node: FakeNode, run: Run
) -> None:
    answers = [
        {"recovered": False, "restarting": True, "joined": None},
        {"recovered": True, "restarting": False, "joined": None},
    ]

    def answer() -> dict[str, Any]:
        node.node_id = "e" * 64
        return answers.pop(0)

    node.answers["POST", RECOVER] = 200, answer
    result = run("recover", "-", "--revoke", "thief", stdin="civickey1-abc\n")
    assert result.exit_code == 0, result.stderr
    sent = [body for method, path, body in node.requests if path == RECOVER]
    assert sent == 2 * [{"code": "civickey1-abc\n", "revoke": ["thief"]}]
    assert "(eeeeeeeeeeee) is an administrator" in result.stdout
    assert "under a new key" in result.stdout and "thief is put out" in result.stdout


def test_recovering_on_a_new_device_names_the_network_and_a_peer(node: FakeNode, run: Run) -> None:
    def answer() -> dict[str, Any]:
        node.network_id = "c" * 64
        return {"recovered": True, "restarting": True, "joined": {**JOINED, "role": "admin"}}

    node.answers["POST", RECOVER] = 200, answer
    result = run("recover", "civickey1-abc", "--network", "c" * 64, "--peer", "10.0.0.1:4490", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["joined"]["role"] == "admin"
    (sent,) = [body for method, path, body in node.requests if path == RECOVER]
    assert sent["network"] == "c" * 64 and sent["peers"] == ["10.0.0.1:4490"] and sent["keep"] is None
    assert run("recover", "civickey1-abc", "--network", "c" * 64).exit_code == 1
    assert run("recover", "civickey1-abc", "--peer", "10.0.0.1:4490").exit_code == 1


@pytest.mark.parametrize("name", ["invite", "join", "peers", "grant", "revoke", "recover"])
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0 and f"civicnode {name}" in result.stdout.split("Example")[1]
