"""GraphQL over HTTP as its own audits have it, against a real node."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from tests.system.process import NodeProcess

AUDIT = Path(__file__).parent / "graphql_audit"
AUDITS = 61  # of graphql-http 1.23.1: fewer would not be all
INSTALL_TIMEOUT_S = 120


def _installed() -> Path:
    """Where the audits are installed, outside the repository: once for each lockfile."""
    files = [AUDIT / name for name in ("package.json", "package-lock.json", "audit.mjs")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    place = user_cache_path("civicnode-tests", appauthor=False) / f"graphql-audit-{digest}"
    if not (place / "done").exists():
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, place)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            install, cwd=place, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (place / "done").touch()
    return place


@pytest.mark.skipif(not shutil.which("node") or not shutil.which("npm"), reason="needs node and npm")
def test_every_audit_of_graphql_over_http_is_passed(tmp_path: Path) -> None:
    place = _installed()
    with NodeProcess(tmp_path / "data") as node:
        audited = subprocess.run(
            ["node", "audit.mjs", f"{node.url}/v1/graphql"],
            cwd=place,
            input=node.token,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert audited.returncode == 0, audited.stderr
    results = json.loads(audited.stdout)
    assert len(results) == AUDITS
    assert [result for result in results if result["status"] != "ok"] == []
