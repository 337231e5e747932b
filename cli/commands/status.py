"""`civicnode status`: what the running node says of itself."""

from pathlib import Path
from typing import Any

import click

from cli import options

STATUS_TIMEOUT_S = 5.0
LINKED = ("live", "syncing", "diverged", "closing")  # states of links, in the words of `GET /v1/sync/status`


@click.command(
    short_help="Show the running node.",
    epilog=options.examples("civicnode status", "civicnode status --json"),
)
@options.data_dir
@options.as_json
def status(data_dir: Path | None, as_json: bool) -> None:
    """Show the running node: identity, address, data, peers.

    Ends with code 3 if no node is running.
    """
    from cli.attached import running_node
    from cli.errors import NotRunning
    from cli.output import print_json
    from cli.place import locate

    try:
        with running_node(data_dir, timeout_s=STATUS_TIMEOUT_S) as node:
            document: dict[str, Any] = node.get("/v1/admin/status")
            pid = node.pid
    except NotRunning:
        if as_json:
            print_json({"running": False, "data_dir": str(locate(data_dir))})
        raise
    if as_json:
        print_json({"running": True, "pid": pid, **document})
    else:
        _show(document, pid)


def _show(document: dict[str, Any], pid: int) -> None:
    from cli.output import counted, duration, print_pairs, print_table, size

    behind = int((document.get("index") or {}).get("behind", 0))
    peers = document.get("peers") or []
    linked = sum(peer.get("state") in LINKED for peer in peers)
    age = duration(float(document.get("uptime_s", 0)))
    print_pairs(
        [
            ("name", document.get("name")),
            ("node", document.get("node_id")),
            ("network", document.get("network_id")),
            ("api", document.get("api")),
            ("peers reach it at", document.get("listen")),
            (
                "running",
                f"{age}, version {document.get('version')}, pid {pid}",
            ),
            ("data", f"{document.get('data_dir')} ({size(int(document.get('disk_bytes', 0)))})"),
            (
                "documents",
                f"{document.get('documents', 0):,} in {counted(int(document.get('commits', 0)), 'commit')}",
            ),
            ("index", "up to date" if behind == 0 else f"{counted(behind, 'change')} behind"),
            ("peers", f"{counted(linked, 'link')}, {_sync(document, peers)}"),
        ]
    )
    if peers:
        print_table(("peer", "address", "state", "behind by", "since", "last fault"), map(_row, peers))
    hooks = document.get("webhooks") or {}
    if hooks.get("webhooks"):
        disabled = f" ({hooks.get('disabled')} disabled)" if hooks.get("disabled") else ""
        waiting = counted(int(hooks.get("pending", 0)), "waiting message")
        print_pairs([("webhooks", f"{hooks.get('webhooks')}{disabled}, {waiting}")])
    for held in document.get("quarantined") or []:
        place = f"{held.get('model')}/{held.get('id')}"
        print_pairs([("quarantined", f"{place} since {held.get('at')}: {held.get('reason')}")])
    for warning in document.get("warnings") or []:
        print_pairs([(str(warning.get("at") or "now"), warning.get("text"))])


def _sync(document: dict[str, Any], peers: list[dict[str, Any]]) -> str:
    if not peers:
        return "alone so far"
    return "in sync" if document.get("in_sync") else "not in sync"


def _row(peer: dict[str, Any]) -> tuple[object, ...]:
    """A peer on one line. How far it is behind counts commits that it has not confirmed."""
    from cli.output import counted

    name = peer.get("name") or str(peer.get("node_id") or "?")[:8]
    lag, lag_ms = peer.get("lag_arrivals"), peer.get("lag_ms") or 0
    behind = "" if lag is None else "nothing" if not lag else f"{counted(lag, 'commit')}, {lag_ms:,} ms"
    return (
        name,
        f"{'to' if peer.get('direction') == 'out' else 'from'} {peer.get('address')}",
        peer.get("state"),
        behind,
        peer.get("since"),
        peer.get("last_fault"),
    )
