"""Accounts on two real nodes of one network: what one node is told holds on the other."""

import time
from pathlib import Path
from typing import Any

from node.services.totp import totp_code
from tests.system.process import NodeProcess
from tests.system.test_membership import invite, join, ok, until

LOGIN = {"email": "eve@example.org", "password": "correct horse"}


def sign_in(node: NodeProcess, **more: Any) -> Any:
    return node.ask("POST", "/v1/auth/login", LOGIN | more, token=None)


def seen_by(node: NodeProcess) -> Any:
    """The account as a node's owner sees it. Signing in to find out would count as failing."""
    found = node.ask("GET", f"/v1/admin/users?email={LOGIN['email']}").json["items"]
    return found[0] if found else {}


def next_code(secret: str) -> str:
    """A code of the step to come, which no node has met."""
    return totp_code(secret, int(time.time()) // 30 + 1)


def test_a_second_factor_holds_on_every_node(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "ann", "--name", "ann") as ann:
        join(tmp_path / "bob", invite(ann))
        with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
            account = LOGIN | {"username": "eve"}
            assert ann.ask("POST", "/v1/auth/register", account, token=None).status == 201
            token = sign_in(ann).json["token"]
            shown = ann.ask("POST", "/v1/auth/mfa/enable", token=token).json
            verify = {"code": totp_code(shown["secret"], int(time.time()) // 30)}
            assert ann.ask("POST", "/v1/auth/mfa/verify", verify, token=token).status == 200
            until(lambda: seen_by(bob).get("mfa_enabled"), "the other node knows")
            assert sign_in(bob).json["error_code"] == "AUTH_MFA_REQUIRED"
            granted = sign_in(bob, mfa_code=next_code(shown["secret"]))
            assert granted.status == 200, granted.body
            assert ann.ask("GET", "/v1/users/me", token=granted.json["token"]).json["mfa_enabled"] is True

            spent = shown["recovery_codes"][0]
            assert sign_in(bob, mfa_code=spent).status == 200
            me = "/v1/users/me"
            until(lambda: ann.ask("GET", me, token=token).json["mfa_recovery_codes_left"] == 9, "it is known")
            assert "AUTH_INVALID_MFA_CODE" in str(sign_in(ann, mfa_code=spent).body)

            key_is_good_everywhere(ann, bob, token)

            ok("user", "reset-mfa", LOGIN["email"], "--data-dir", str(ann.data_dir))
            until(lambda: not seen_by(bob)["mfa_enabled"], "the other node knows")
            assert sign_in(bob).status == 200


def key_is_good_everywhere(ann: NodeProcess, bob: NodeProcess, token: str) -> None:
    """An API key made on one node works on the other, within its scopes; revoked there it ends here."""
    me, task = "/v1/users/me", {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
    assert ann.ask("POST", "/v1/data-models", task).status == 201
    body = {"name": "reports", "scopes": ["data:Task:read"]}
    made = ann.ask("POST", "/v1/api-keys", body, token=token).json
    key = made["api_key"]
    until(lambda: bob.ask("GET", "/v1/data/Task", token=key).status == 200, "the key and the model cross")
    assert bob.ask("GET", "/v1/data/Task", token=None, headers={"X-API-Key": key}).status == 200
    refused = bob.ask("POST", "/v1/data/Task", {"title": "x"}, token=key)
    assert refused.status == 403 and b"scopes" in refused.body
    assert bob.ask("GET", me, token=key).status == 403
    assert ann.ask("GET", "/v1/data/Task", token=key).status == 200
    assert bob.ask("DELETE", f"/v1/api-keys/{made['id']}", token=token).status == 204
    assert bob.ask("GET", "/v1/data/Task", token=key).status == 401
    until(lambda: ann.ask("GET", "/v1/data/Task", token=key).status == 401, "the news of its end crosses")
