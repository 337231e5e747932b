"""`civicnode origins`: which web origins count as local apps."""

from pathlib import Path
from typing import Any

import click

from cli import options
from cli.errors import CliError

PATH = "/v1/admin/origins"


@click.group(
    short_help="Decide which web origins count as local apps.",
    epilog=options.examples("civicnode origins allow https://app.example.org", "civicnode origins list"),
)
def origins() -> None:
    """Decide which web origins may use the node without a token of their own.

    A page from any other origin needs a valid token, whatever it asks for.
    """


@origins.command(epilog=options.examples("civicnode origins allow https://app.example.org"))
@click.argument("url")
@options.data_dir
@options.as_json
def allow(url: str, data_dir: Path | None, as_json: bool) -> None:
    """Let pages from the origin URL count as local apps."""
    _change(url, data_dir, as_json, allowed=True)


@origins.command(epilog=options.examples("civicnode origins remove https://app.example.org"))
@click.argument("url")
@options.data_dir
@options.as_json
def remove(url: str, data_dir: Path | None, as_json: bool) -> None:
    """Take the permission of the origin URL back."""
    _change(url, data_dir, as_json, allowed=False)


@origins.command("list", epilog=options.examples("civicnode origins list"))
@options.data_dir
@options.as_json
def list_(data_dir: Path | None, as_json: bool) -> None:
    """List the origins that are allowed."""
    from cli.attached import any_node
    from cli.output import print_json, printable

    with any_node(data_dir) as node:
        answer: dict[str, Any] = node.get(PATH)
    if as_json:
        print_json({"origins": answer.get("origins", [])})
        return
    for origin in answer.get("origins", []):
        click.echo(printable(origin))


def _change(url: str, data_dir: Path | None, as_json: bool, *, allowed: bool) -> None:
    from cli.attached import any_node
    from cli.output import print_json
    from node.origins import parse_origin

    try:
        origin = parse_origin(url)
    except ValueError as fault:
        raise CliError(str(fault)) from None
    with any_node(data_dir) as node:
        if allowed:
            node.post(PATH, {"origin": origin})
        else:
            node.delete(PATH, origin=origin)
    if as_json:
        print_json({"origin": origin, "allowed": allowed})
    else:
        click.echo(f"{origin} {'is allowed' if allowed else 'is no longer allowed'}")
