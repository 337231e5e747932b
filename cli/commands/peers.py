"""`civicnode peers`, `grant` and `revoke`: the devices of the network."""

from pathlib import Path
from typing import Any

import click

from cli import options

PATH = "/v1/admin/peers"


@click.command(
    short_help="List the devices of the network.",
    epilog=options.examples("civicnode peers", "civicnode peers --json"),
)
@options.data_dir
@options.as_json
def peers(data_dir: Path | None, as_json: bool) -> None:
    """List the devices of the network: what each is called, what it may do, and whether it is linked.

    NODE in other commands is a name from here, or 8 or more characters of an id.
    """
    from cli.attached import any_node
    from cli.output import print_json, print_table

    with any_node(data_dir) as node:
        answer: dict[str, Any] = node.get(PATH)
    if as_json:
        print_json(answer)
        return
    print_table(
        ["name", "node", "role", "applications", "state"],
        [
            [
                one["name"],
                str(one["node_id"])[:12],
                one["role"],
                "all" if one["applications"] is None and one["role"] else _joined(one["applications"]),
                _state(one),
            ]
            for one in answer["peers"]
        ],
    )


def _joined(names: list[str] | None) -> str:
    return ", ".join(names or [])


def _state(one: dict[str, Any]) -> str:
    if one["is_self"]:
        return "this device" if one["state"] == "member" else f"this device, {one['state']}"
    if one["state"] != "member":
        return str(one["state"])
    if one["link"] == "live":
        return "in sync" if one["in_sync"] else "linked, behind"
    return str(one["link"] or "away")


@click.command(
    short_help="Give a device another role.",
    epilog=options.examples(
        "civicnode grant phone reader", "civicnode grant 5f0c1a2b member --application shop"
    ),
)
@click.argument("node")
@click.argument("role", type=click.Choice(["admin", "member", "reader"]))
@click.option(
    "--application",
    "applications",
    metavar="ID",
    multiple=True,
    help="Limit it to this application; may be given again. [default: all]",
)
@options.data_dir
@options.as_json
def grant(node: str, role: str, applications: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Give the device NODE the role ROLE from now on.

    This is also how one of two devices that used the same ticket is let in after all.
    """
    from cli.attached import any_node
    from cli.client import segment
    from cli.output import print_json, printable

    with any_node(data_dir) as client:
        answer: dict[str, Any] = client.request(
            "PUT", f"{PATH}/{segment(node)}", {"role": role, "applications": list(applications) or None}
        )
    if as_json:
        print_json(answer)
    else:
        name = answer["name"] or str(answer["node_id"])[:12]
        click.echo(printable(f"{name} is {'an' if role == 'admin' else 'a'} {role} now"))


@click.command(
    short_help="Put a device out of the network.",
    epilog=options.examples("civicnode revoke phone", "civicnode revoke 5f0c1a2b"),
)
@click.argument("node")
@options.data_dir
@options.as_json
def revoke(node: str, data_dir: Path | None, as_json: bool) -> None:
    """Put the device NODE out of the network for good: what it writes from now on counts nowhere.

    What this node holds of it stays. Its key never returns; the device can join again with another. What it has
    read, it has read.
    """
    from cli.attached import any_node
    from cli.client import segment
    from cli.output import print_json

    with any_node(data_dir) as client:
        answer: dict[str, Any] = client.delete(f"{PATH}/{segment(node)}")
    if as_json:
        print_json(answer)
    else:
        click.echo(f"revoked {answer['node_id'][:12]}: every node that hears of it drops its link")
