"""`civicnode join`: into the network of a ticket."""

import sys
from pathlib import Path
from typing import Any

import click

from cli import options

PATH = "/v1/admin/join"
JOIN_TIMEOUT_S = 300.0  # up to eight addresses, and the statements of a large network over a slow line
KEEP_HELP = "either way what was here is moved aside first."


@click.command(
    short_help="Join the network of a ticket.",
    epilog=options.examples(
        "civicnode join civic1m04v…",
        "civicnode join civic1m04v… --bring",
        "ssh desk civicnode invite | civicnode join -",
    ),
)
@click.argument("ticket", nargs=-1, required=True)
@click.option("--bring", is_flag=True, help="Issue the data of this node again in the network; " + KEEP_HELP)
@click.option("--discard", is_flag=True, help="Leave the data of this node behind; " + KEEP_HELP)
@options.data_dir
@options.as_json
def join(ticket: tuple[str, ...], bring: bool, discard: bool, data_dir: Path | None, as_json: bool) -> None:
    """Join the network of TICKET, which `civicnode invite` has made on a device of it.

    TICKET `-` is read from standard input, which leaves no trace in the list of processes.

    It works whether the node runs or not; one that runs goes on at the same address. A node that holds data
    asks what to do with it. With --bring models, accounts and documents are issued again with their ids once
    the node has synced; an account whose e-mail address exists in the network is listed, not merged.
    """
    from cli.changing import change_network, keep_of
    from cli.output import print_json

    keep = keep_of(bring, discard)
    text = sys.stdin.read() if ticket == ("-",) else "".join(ticket)
    with change_network(data_dir, JOIN_TIMEOUT_S) as change:
        joined: dict[str, Any] = change.post(PATH, {"ticket": text, "keep": keep})
        change.wait_for(str(joined["network_id"]))
        brought = change.wait_for_bringing() if keep == "bring" and joined["held_data"] else None
    if as_json:
        print_json({**joined, "bringing": brought})
        return
    show_joined(joined, change.where, change.is_brief)
    if brought is not None:
        show_brought(brought)


def show_joined(joined: dict[str, Any], where: Path, is_brief: bool) -> None:
    from cli.place import as_flag

    limited = " in some applications" if joined["applications_limited"] else ""
    role = str(joined["role"])
    article = "an" if role == "admin" else "a"
    click.echo(f"joined network {str(joined['network_id'])[:12]} as {article} {role}{limited}")
    if joined["held_data"]:
        click.echo(f"what was here before is in {joined['aside']}")
    if is_brief:
        click.echo(f"run it with civicnode start{as_flag(where)}")


def show_brought(brought: dict[str, Any]) -> None:
    from cli.output import counted, printable

    if brought["state"] != "done":
        click.echo("the data is brought once the node has synced with a peer: keep it running")
        return
    parts = [counted(int(brought[name]), name[:-1]) for name in ("models", "accounts", "documents")]
    click.echo(f"brought {', '.join(parts)}")
    if brought["left"]:
        click.echo(f"left behind {counted(int(brought['left']), 'document')}:")
    for one in brought["left_behind"]:
        text = f"  {one['application']}/{one['model']}/{one['id']}: {one['reason']}"
        click.echo(printable(text))
