"""A node that changes its network while a command watches: asked, waited for until it is back, asked again.

Room: what `join` and `recover` share. The node starts again in place, at the same address; where none runs, one
is started for the command, and ends with it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import place
from cli.client import NodeClient
from cli.errors import CliError

BACK_TIMEOUT_S = 60.0
BRING_TIMEOUT_S = 120.0
LOOK_EVERY_S = 0.1


def keep_of(bring: bool, discard: bool) -> str | None:
    """What the flags say is to become of the data. Raises `CliError` for both."""
    if bring and discard:
        raise CliError("--bring and --discard cannot both be meant: choose one")
    return "bring" if bring else "discard" if discard else None


@dataclass(slots=True)
class Change:
    """The node, before and after. `is_brief`: it was started for this command."""

    node: NodeClient
    where: Path
    is_brief: bool

    def post(self, path: str, body: object) -> Any:
        return self.node.post(path, body)

    def wait_for(self, network_id: str) -> None:
        """Until the node is back in this network. Raises `CliError`."""
        self._until(lambda: self.node.get("/v1/admin/status").get("network_id") == network_id)

    def wait_until_back(self, node_id: str) -> None:
        """Until the node is back under another id than this. Raises `CliError`."""
        self._until(lambda: self.node.get("/v1/admin/status").get("node_id") != node_id)

    def _until(self, is_there: Any) -> None:
        ends_at = time.monotonic() + BACK_TIMEOUT_S
        while True:
            try:
                if is_there():
                    return
            except (CliError, OSError):  # between stop and start
                pass
            if time.monotonic() > ends_at:
                raise CliError(
                    f"the node in {self.where} has changed its network and is not back yet: look at its log"
                )
            time.sleep(LOOK_EVERY_S)

    def wait_for_bringing(self) -> dict[str, Any] | None:
        """Until the data is brought, or the time is over: how far it has come."""
        ends_at = time.monotonic() + BRING_TIMEOUT_S
        while True:
            report: dict[str, Any] | None = self.node.get("/v1/admin/join")["bringing"]
            if report is None or report["state"] == "done" or time.monotonic() > ends_at:
                return report
            time.sleep(LOOK_EVERY_S)


@contextmanager
def change_network(data_dir: Path | None, timeout_s: float) -> Iterator[Change]:
    """The node that runs on `data_dir`, or one started for the block; made, if there is none yet."""
    from cli.attached import any_node

    where = place.locate(data_dir)
    is_brief = place.running(where) is None
    with any_node(where, timeout_s=timeout_s, make=True) as node:
        yield Change(node, where, is_brief)
