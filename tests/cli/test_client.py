"""Requests to a node and what its refusals become."""

from pathlib import Path

import pytest

from cli import place
from cli.client import ApiRefused, NodeClient, segment
from cli.errors import CliError, NotRunning
from tests.cli.fake_node import TOKEN, FakeNode


@pytest.fixture
def client(node: FakeNode, data_dir: Path) -> NodeClient:
    return NodeClient(place.require_running(data_dir), TOKEN, timeout_s=60.0)


def test_an_error_answer_keeps_the_nodes_words_and_every_detail(node: FakeNode, client: NodeClient) -> None:
    node.refusal = 400, {"error": "Validation failed", "details": {"a": "Unknown field", "b": "Too long"}}
    with client, pytest.raises(ApiRefused) as caught:
        client.get("/v1/admin/status")
    assert caught.value.message == "Validation failed: a: Unknown field; b: Too long"
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "--data-dir"), (507, "free some space"), (429, "try again in 60 s")]
)
def test_refusals_that_have_a_fix_name_it(node: FakeNode, client: NodeClient, status: int, hint: str) -> None:
    node.refusal = status, {"error": "No", "retry_after": 60}
    with client, pytest.raises(ApiRefused, match=hint):
        client.get("/v1/admin/status")


def test_a_node_that_holds_the_lock_but_does_not_listen_is_told_apart(
    node: FakeNode, client: NodeClient
) -> None:
    node.stop_serving()
    with client, pytest.raises(NotRunning, match="nobody answers at"):
        client.get("/v1/admin/status")


def test_an_answer_that_is_not_json_is_named(node: FakeNode, client: NodeClient) -> None:
    node.broken_answer = b"<html>"
    with client, pytest.raises(CliError, match="not JSON"):
        client.get("/v1/admin/status")


def test_an_error_that_is_not_json_still_has_its_status(node: FakeNode, client: NodeClient) -> None:
    node.refusal, node.broken_answer = (500, {}), b"<html>"
    with client, pytest.raises(ApiRefused, match="status 500"):
        client.get("/v1/admin/status")


def test_a_node_that_listens_everywhere_is_reached_by_loopback(node: FakeNode) -> None:
    port = node.api.rpartition(":")[2]
    with NodeClient(place.Running(1, f"http://0.0.0.0:{port}"), TOKEN) as client:
        assert client.get("/v1/admin/status")["name"] == "kitchen"


def test_a_name_becomes_one_segment_of_a_path() -> None:
    assert segment("a/b ?ü") == "a%2Fb%20%3F%C3%BC"
