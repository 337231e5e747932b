import subprocess
import sys
from pathlib import Path

from tests.node.fakes import FakeNode

ROOT = Path(__file__).parents[3]
SLOW = ("jwt", "cryptography", "jsonschema_rs", "prometheus_client", "structlog")


def test_what_only_the_first_token_needs_is_not_imported_at_the_start() -> None:
    names = "node.services.identity, node.services.owner, node.api.authenticator"
    code = f"import sys, {names}; print([name for name in {SLOW} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


async def test_sweeping_an_idle_node_changes_nothing(node: FakeNode) -> None:
    await node.identity.accounts.register(
        "default", email="ann@example.org", username="ann", password="securepassword123"
    )
    before = dict(node.records.documents)
    await node.identity.sweep(["default"])
    assert node.records.documents == before
