"""Commands that ask a running node, through click, against a fake one."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_node import STATUS, TOKEN, FakeNode


def test_status_shows_the_node_in_words(node: FakeNode, run: Run) -> None:
    result = run("status")
    assert result.exit_code == 0
    assert "kitchen" in result.stdout
    assert "1 h 6 min" in result.stdout
    assert "28,298 in 114 commits" in result.stdout
    assert "12.3 MB" in result.stdout


def test_status_as_json_holds_what_the_contract_names(node: FakeNode, run: Run) -> None:
    document = json.loads(run("status", "--json").stdout)
    assert document["schema"] == 1
    assert {"node_id", "network_id", "peers", "in_sync", "pid"} <= document.keys()


def test_status_of_a_stopped_node_ends_with_3_and_still_prints_json(
    node: FakeNode, run: Run, data_dir: Path
) -> None:
    node.die()
    result = run("status", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout) == {"schema": 1, "running": False, "data_dir": str(data_dir)}
    assert "civicnode start" in result.stderr
    assert result.stderr.count("\n") == 1


def test_token_prints_the_token_alone(node: FakeNode, run: Run) -> None:
    assert run("token").stdout == TOKEN + "\n"
    assert json.loads(run("token", "--json").stdout) == {"schema": 1, "token": TOKEN}


def test_token_works_while_no_node_runs(node: FakeNode, run: Run) -> None:
    node.die()
    assert run("token").stdout == TOKEN + "\n"


def test_token_of_a_directory_without_a_node_names_the_fix(run: Run) -> None:
    result = run("token")
    assert result.exit_code == 1
    assert "civicnode start" in result.stderr


def test_an_administrator_is_made_with_the_password_from_standard_input(node: FakeNode, run: Run) -> None:
    result = run(
        "admin", "create", "ada@example.org", "--password-stdin", stdin="correct horse battery\nrest"
    )
    assert result.exit_code == 0, result.stderr
    body = {"email": "ada@example.org", "password": "correct horse battery"}
    assert node.requests == [("POST", "/v1/admin/admins", body)]


def test_a_password_is_neither_taken_from_a_pipe_unasked_nor_empty(node: FakeNode, run: Run) -> None:
    unasked = run("admin", "create", "ada@example.org", stdin="secret\n")
    assert unasked.exit_code == 1 and "--password-stdin" in unasked.stderr
    empty = run("admin", "create", "ada@example.org", "--password-stdin", stdin="\n")
    assert empty.exit_code == 1 and "empty" in empty.stderr
    assert node.requests == []


def test_what_the_node_refuses_is_the_last_word(node: FakeNode, run: Run) -> None:
    node.refusal = 400, {"error": "Validation failed", "details": {"password": "At least 12 characters"}}
    result = run("admin", "create", "ada@example.org", "--password-stdin", stdin="short\n")
    assert result.exit_code == 1
    assert result.stderr == "Error: Validation failed: password: At least 12 characters\n"


@pytest.fixture
def users(node: FakeNode) -> FakeNode:
    ada = {"user_id": "u/1", "email": "ada@example.org", "username": "ada", "roles": ["editor"]}
    bob = {"user_id": "u2", "email": "bob@example.org", "username": "b\x1b]0;x\x07", "roles": []}
    node.users = [{**ada, "is_admin": True}, {**bob, "disabled": True}]
    return node


def test_users_are_listed_and_their_names_cannot_steer_the_terminal(users: FakeNode, run: Run) -> None:
    shown = run("user", "list").stdout
    assert "ada@example.org" in shown and "editor" in shown and "administrator" in shown
    assert "disabled" in shown
    assert "\x1b" not in shown and "\\x1b" in shown


def test_users_of_every_page_are_listed(users: FakeNode, run: Run) -> None:
    users.users = [{"user_id": f"u{n}", "email": "", "username": "", "roles": []} for n in range(250)]
    listed = json.loads(run("user", "list", "--json").stdout)["users"]
    assert [u["user_id"] for u in listed] == [f"u{n}" for n in range(250)]


def test_commands_act_in_the_application_that_is_named(users: FakeNode, run: Run) -> None:
    assert run("user", "list").exit_code == 0
    assert users.applications == {None}
    assert run("user", "role", "ada@example.org", "author", "--application", "app_1").exit_code == 0
    assert users.applications == {None, "app_1"}


def test_a_role_is_given_and_taken_by_e_mail_address(users: FakeNode, run: Run) -> None:
    assert run("user", "role", "ada@example.org", "author").exit_code == 0
    assert users.requests[-1:] == [("POST", "/v1/users/u%2F1/roles", {"role": "author"})]
    assert run("user", "role", "ada@example.org", "author", "--remove").exit_code == 0
    assert users.requests[-1:] == [("DELETE", "/v1/users/u%2F1/roles/author", None)]


def test_an_account_is_disabled_and_enabled(users: FakeNode, run: Run) -> None:
    assert run("user", "disable", "ada@example.org").exit_code == 0
    assert users.requests[-1] == ("PUT", "/v1/admin/users/u%2F1", {"disabled": True})
    assert run("user", "enable", "ada@example.org").exit_code == 0
    assert users.requests[-1] == ("PUT", "/v1/admin/users/u%2F1", {"disabled": False})


def test_a_second_factor_is_taken_away(users: FakeNode, run: Run) -> None:
    assert "password alone" in run("user", "reset-mfa", "ada@example.org").stdout
    assert users.requests[-1] == ("DELETE", "/v1/admin/users/u%2F1/mfa", None)
    told = json.loads(run("user", "reset-mfa", "ada@example.org", "--json").stdout)
    assert told["mfa_enabled"] is False and told["schema"]


def test_an_account_that_is_missing_or_double_is_told(users: FakeNode, run: Run) -> None:
    assert "civicnode user list" in run("user", "role", "eve@example.org", "author").stderr
    users.users *= 2
    assert "2 accounts have the address" in run("user", "role", "ada@example.org", "author").stderr
    assert {method for method, _, _ in users.requests} == {"GET"}


def test_a_reset_password_is_made_up_and_printed_alone(users: FakeNode, run: Run) -> None:
    result = run("user", "reset-password", "ada@example.org", "--generate")
    method, path, body = users.requests[-1]
    assert (method, path) == ("POST", "/v1/admin/users/u%2F1/password")
    assert result.stdout == body["password"] + "\n"
    assert len(body["password"]) >= 20


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://App.example.org/", "https://app.example.org"),
        ("https://app.example.org:443", "https://app.example.org"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_sent_as_browsers_write_it(node: FakeNode, run: Run, given: str, origin: str) -> None:
    assert run("origins", "allow", given).exit_code == 0
    assert node.origins == [origin]
    assert run("origins", "list").stdout == origin + "\n"
    assert json.loads(run("origins", "list", "--json").stdout)["origins"] == [origin]
    assert run("origins", "remove", given).exit_code == 0
    assert node.origins == []


@pytest.mark.parametrize("given", ["app.example.org", "https://a/path", "https://a:port", "*"])
def test_what_is_no_origin_is_refused_with_the_right_form(node: FakeNode, run: Run, given: str) -> None:
    result = run("origins", "allow", given)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert node.requests == []


def test_a_query_prints_a_table_and_says_when_there_is_more(node: FakeNode, run: Run) -> None:
    result = run("query", "SELECT 1", "--limit", "2")
    assert node.requests == [("POST", "/v1/admin/query", {"sql": "SELECT 1", "limit": 2})]
    assert result.stdout.splitlines()[0].split() == ["name", "n"]
    assert "\x1b" not in result.stdout
    assert "raise --limit" in result.stderr
    document = json.loads(run("query", "SELECT 1", "--json").stdout)
    assert document == {
        "schema": 1,
        "columns": ["name", "n"],
        "rows": [["one", 1], ["two\x1b[31m", 20]],
        "truncated": True,
    }


def test_a_query_waits_for_an_index_that_is_being_filled(
    node: FakeNode, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, pauses = node.answer, list[float]()

    def after_two_pauses(method: str, path: str, query: dict[str, str], body: object) -> tuple[int, object]:
        if len(pauses) < 2:
            return 503, {"error": "The query index is being rebuilt", "error_code": "SERVICE_UNAVAILABLE"}
        return answer(method, path, query, body)

    monkeypatch.setattr(node, "answer", after_two_pauses)
    monkeypatch.setattr("cli.commands.query.time.sleep", pauses.append)
    result = run("query", "SELECT 1", "--json")
    assert json.loads(result.stdout)["rows"][0] == ["one", 1] and len(pauses) == 2
    assert result.stderr.count("being rebuilt") == 1


def test_a_backup_of_a_running_node_is_written_by_the_node(node: FakeNode, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "monday.backup"
    document = json.loads(run("backup", str(target), "--json").stdout)
    assert document == {"schema": 1, "file": str(target), "size_bytes": 6}
    assert node.requests == [("POST", "/v1/admin/backup", {"path": str(target)})]


def test_a_backup_never_replaces_a_file(node: FakeNode, run: Run, tmp_path: Path) -> None:
    (tmp_path / "monday.backup").write_bytes(b"precious")
    result = run("backup", str(tmp_path / "monday.backup"))
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert node.requests == []


def test_status_counts_one_commit_as_one(node: FakeNode, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS, "commits", 1)
    assert "28,298 in 1 commit\n" in run("status").stdout
