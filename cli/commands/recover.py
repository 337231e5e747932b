"""`civicnode recover`: the network's recovery code makes this device an administrator."""

import sys
from pathlib import Path
from typing import Any

import click

from cli import options
from cli.errors import CliError

PATH = "/v1/admin/recover"
RECOVER_TIMEOUT_S = 300.0


@click.command(
    short_help="Become an administrator by the recovery code.",
    epilog=options.examples(
        "civicnode recover civickey1-…",
        "civicnode recover civickey1-… --revoke stolen-laptop",
        "civicnode recover civickey1-… --network 9c1e… --peer 192.168.1.20:4490",
    ),
)
@click.argument("code")
@click.option(
    "--revoke",
    "putting_out",
    metavar="NODE",
    multiple=True,
    help="Put this device out at the same time, and outrank whatever it has said; may be given again.",
)
@click.option("--network", metavar="ID", help="The network's id, on a device that is not in it.")
@click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    help="With --network: where a device of it can be reached; may be given again.",
)
@click.option("--bring", is_flag=True, help="With --network: issue the data of this node again there.")
@click.option("--discard", is_flag=True, help="With --network: leave the data of this node behind.")
@options.data_dir
@options.as_json
def recover(
    code: str,
    putting_out: tuple[str, ...],
    network: str | None,
    peers: tuple[str, ...],
    bring: bool,
    discard: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Make this device an administrator by the recovery code CODE, which the first invitation has shown.

    CODE `-` is read from standard input, which leaves no trace in the list of processes. On a device that was
    revoked, the node goes on under another key. On a device that is not in the network yet, name the network
    and a device of it; put others out afterwards, once it has synced.
    """
    from cli.changing import change_network, keep_of
    from cli.commands.join import show_joined
    from cli.output import print_json

    if code == "-":
        code = sys.stdin.readline()
    if (network is None) != (not peers):
        raise CliError("--network and --peer go together: the network's id, and where a device of it is")
    keep = keep_of(bring, discard)
    wanted: dict[str, Any] = {"code": code, "revoke": list(putting_out)}
    if network is not None:
        wanted |= {"network": network, "peers": list(peers), "keep": keep}
    with change_network(data_dir, RECOVER_TIMEOUT_S) as change:
        before = str(change.node.get("/v1/admin/status")["node_id"])
        answer: dict[str, Any] = change.post(PATH, wanted)
        if answer.get("joined"):
            change.wait_for(str(answer["joined"]["network_id"]))
        elif answer["restarting"]:
            change.wait_until_back(before)
            answer = change.post(PATH, wanted)
        node_id = str(change.node.get("/v1/admin/status")["node_id"])
    if as_json:
        print_json({**answer, "node_id": node_id})
        return
    if answer.get("joined"):
        show_joined(answer["joined"], change.where, change.is_brief)
    click.echo(f"this device ({node_id[:12]}) is an administrator of the network")
    if node_id != before and not answer.get("joined"):
        click.echo("it goes on under a new key, since the old one was revoked")
    for name in putting_out:
        click.echo(f"{name} is put out")
