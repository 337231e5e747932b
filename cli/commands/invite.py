"""`civicnode invite`: a ticket for one more device."""

import re
import sys
from pathlib import Path
from typing import Any

import click

from cli import options
from cli.errors import CliError

PATH = "/v1/admin/invitations"
CODE_PATH = "/v1/admin/recovery-code"
ADVICE = {
    "member": "A member's device holds a copy of everything in its applications, and may change the data there.",
    "admin": "An administrator's device may do everything: invite, revoke, and give rights to others.",
    "reader": "A reader's device holds a copy of everything in its applications, and changes nothing.",
}
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z")


@click.command(
    short_help="Make a ticket that lets another device in.",
    epilog=options.examples(
        "civicnode invite",
        "civicnode invite --role reader --application shop --expires 15m",
        "civicnode invite | ssh laptop civicnode join -",
    ),
)
@click.option(
    "--role",
    type=click.Choice(["admin", "member", "reader"]),
    default="member",
    show_default=True,
    help="What the device may do.",
)
@click.option(
    "--application",
    "applications",
    metavar="ID",
    multiple=True,
    help="Limit it to this application; may be given again. [default: all]",
)
@click.option("--expires", metavar="TIME", default="1h", show_default=True, help="How long the ticket lasts.")
@click.option(
    "--address",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="Another address at which this node can be reached, such as that of a router; may be given again.",
)
@options.data_dir
@options.as_json
def invite(
    role: str,
    applications: tuple[str, ...],
    expires: str,
    addresses: tuple[str, ...],
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Print a ticket, alone on one line, that lets one device into this network.

    Hand it over on a way that you trust: whoever holds it first is let in, once. On the other device:
    civicnode join TICKET. The node must run, and be reachable from there.

    The first invitation also shows the network's recovery code. Write it down: it is then removed from this
    device, and with civicnode recover it makes you an administrator again whatever happens to your devices.
    """
    from cli.attached import running_node
    from cli.output import print_json

    wanted = {
        "role": role,
        "applications": list(applications) or None,
        "expires_in_s": seconds(expires),
        "addresses": list(addresses),
    }
    with running_node(data_dir) as node:
        answer: dict[str, Any] = node.post(PATH, wanted)
        ticket = str(answer["ticket"])
        if as_json:
            print_json(answer)
        else:
            click.echo(ticket)
            _advise(answer)
        sys.stdout.flush()
        sys.stderr.flush()
        if answer.get("recovery_code"):
            node.delete(CODE_PATH)  # only now: it has been shown


def _advise(answer: dict[str, Any]) -> None:
    """To standard error, so that the ticket stands alone on standard output."""

    def say(line: str = "") -> None:
        click.echo(line, err=True)

    if sys.stderr.isatty():
        import segno

        # Capitals alone go into fewer squares; a ticket is read in either case.
        segno.make(str(answer["ticket"]).upper(), error="l").terminal(out=sys.stderr, compact=True)
    named = answer.get("applications")
    where = "" if named is None else " Applications: " + ", ".join(map(str, named)) + "."
    say(f"{ADVICE[str(answer['role'])]}{where}")
    say(f"The ticket lets one device in, until {answer['expires_at']}: civicnode join TICKET")
    if not answer.get("addresses"):
        say("It names no address, since this node listens nowhere: start it with --listen, and invite again.")
    elif all(str(address).startswith(("127.", "localhost:", "[::1]:")) for address in answer["addresses"]):
        say("It can be used on this machine alone, since the node listens on loopback (--listen).")
    if answer.get("recovery_code"):
        say()
        say(
            "The network's recovery code, shown this once. Write it down and keep it apart from your devices:"
        )
        say()
        say(f"    {answer['recovery_code']}")
        say()
        say("Its key has been removed from this device. `civicnode recover` uses the code.")


def seconds(text: str) -> int:
    """How long `15m`, `2h`, `7d` or `90s` are. Raises `CliError`."""
    found = _DURATION.match(text.strip())
    if found is None:
        raise CliError(f"--expires {text}: write it as 90s, 15m, 2h or 7d")
    return int(found[1]) * _UNITS_S[found[2]]
