"""`civicnode token`: the owner token."""

from pathlib import Path

import click

from cli import options


@click.command(
    short_help="Print the owner token.",
    epilog=options.examples(
        "civicnode token",
        # Through a pipe, since a command line can be read by everybody on the machine.
        "printf 'Authorization: Bearer %s' $(civicnode token) | curl -H @- http://127.0.0.1:8080/v1/users/me",
    ),
)
@options.data_dir
@options.as_json
def token(data_dir: Path | None, as_json: bool) -> None:
    """Print the owner token, a bearer token with every right on this node's API.

    It is for this device's own apps and scripts. It is never limited in rate, and it lies in the data
    directory, readable by its owner alone.
    """
    from cli.output import print_json
    from cli.place import locate, owner_token

    secret = owner_token(locate(data_dir))
    if as_json:
        print_json({"token": secret})
    else:
        click.echo(secret)
