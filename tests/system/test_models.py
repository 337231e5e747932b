"""Models as an app may misuse them: names that are ids, definitions that come and go, changes under load."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.system.process import NodeProcess

FIELDS = [{"name": "text", "type": "string"}]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("models") / "node") as node:
        yield node
        assert node.stop() == 0
        assert "Traceback" not in node.errors.read_text()


def _user(node: NodeProcess, name: str, application: str = "default") -> str:
    account = {
        "email": f"{name}@example.com",
        "password": "securepassword123",
        "application_id": application,
    }
    assert node.ask("POST", "/v1/auth/register", {**account, "username": name}, token=None).status == 201
    signed_in = node.ask("POST", "/v1/auth/login", account, token=None)
    assert signed_in.status == 200, signed_in.json
    return str(signed_in.json["token"])


def _define(node: NodeProcess, name: str, token: str | None, **more: object) -> int:
    body = {"name": name, "fields": FIELDS, **more}
    return int(node.ask("POST", "/v1/data-models", body, token=token).status)


def test_the_first_user_of_an_application_can_sign_in_at_once(node: NodeProcess) -> None:
    for number in range(5):
        _user(node, "first", f"application-{number}")


def test_a_model_named_as_the_id_of_another_does_not_get_its_requests(node: NodeProcess) -> None:
    alice, mallory = _user(node, "alice"), _user(node, "mallory")
    assert _define(node, "diary", alice) == 201
    diary = node.ask("GET", "/v1/data-models/diary", token=alice).json["model_id"]
    assert _define(node, diary, mallory) == 201
    assert node.ask("POST", f"/v1/data/{diary}", {"text": "mine"}, token=alice).status == 201
    assert node.ask("GET", "/v1/data/diary", token=alice).json["total"] == 1


def test_deleting_a_model_and_defining_it_again_opens_nobodys_documents(node: NodeProcess) -> None:
    definer, writer = _user(node, "definer"), _user(node, "writer")
    assert _define(node, "letters", definer, permissions={"read": "owner"}) == 201
    assert node.ask("POST", "/v1/data/letters", {"text": "private"}, token=writer).status == 201
    assert node.ask("DELETE", "/v1/data-models/letters", token=definer).status == 204
    assert _define(node, "letters", definer, permissions={"read": "public"}) == 403
    assert _define(node, "letters", node.token, permissions={"read": "owner"}) == 201
    assert node.ask("GET", "/v1/data/letters", token=definer).json["total"] == 0
    assert node.ask("GET", "/v1/data/letters", token=writer).json["total"] == 1


def test_a_model_without_documents_of_others_may_be_defined_again_by_anyone(node: NodeProcess) -> None:
    first, second = _user(node, "one"), _user(node, "two")
    assert _define(node, "draft", first) == 201
    assert node.ask("DELETE", "/v1/data-models/draft", token=first).status == 204
    assert _define(node, "draft", second) == 201


def test_while_a_long_model_is_read_again_the_others_answer(node: NodeProcess) -> None:
    assert _define(node, "long", node.token) == 201
    assert _define(node, "short", node.token) == 201
    operations = [{"method": "POST", "path": "/data/long", "body": {"text": "x"}}] * 5_000
    assert node.ask("POST", "/v1/batch", {"operations": operations}).status == 200
    done = threading.Event()
    seen: Counter[int] = Counter()

    def query() -> None:
        while not done.is_set():
            seen[node.ask("GET", "/v1/data/short").status] += 1

    reader = threading.Thread(target=query)
    reader.start()
    try:
        for number in range(3):
            fields = [*FIELDS, *({"name": f"more{n}", "type": "string"} for n in range(number + 1))]
            assert node.ask("PUT", "/v1/data-models/long", {"fields": fields}).status == 200
            assert node.ask("GET", "/v1/data/short").status == 200
    finally:
        done.set()
        reader.join()
    assert set(seen) == {200}


def test_what_one_user_deleted_no_other_creates_again_in_its_name(node: NodeProcess) -> None:
    before, after = _user(node, "before"), _user(node, "after")
    assert _define(node, "notes", before, permissions={"read": "owner"}) == 201
    document = {"id": "n1", "text": "x"}
    assert node.ask("POST", "/v1/data/notes", document, token=before).status == 201
    assert node.ask("DELETE", "/v1/data/notes/n1", token=before).status == 204
    operation = {"method": "POST", "path": "/data/notes", "body": document}
    assert node.ask("POST", "/v1/data/notes", document, token=after).status == 409
    assert node.ask("POST", "/v1/batch", {"operations": [operation]}, token=after).status != 200
    assert node.ask("POST", "/v1/data/notes", document, token=before).status == 201
    assert node.ask("GET", "/v1/data/notes/n1", token=before).status == 200
