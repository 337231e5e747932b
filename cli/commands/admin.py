"""`civicnode admin`: administrator accounts."""

from pathlib import Path
from typing import Any

import click

from cli import options


@click.group(epilog=options.examples("civicnode admin create ada@example.org"))
def admin() -> None:
    """Make administrator accounts."""


@admin.command(
    epilog=options.examples(
        "civicnode admin create ada@example.org",
        "printf '%s\\n' \"$PASSWORD\" | civicnode admin create ada@example.org --password-stdin",
    )
)
@click.argument("email")
@options.password_stdin
@options.application
@options.data_dir
@options.as_json
def create(
    email: str, password_stdin: bool, application: str | None, data_dir: Path | None, as_json: bool
) -> None:
    """Make an administrator account for EMAIL.

    The password is asked for twice at the terminal, or read with --password-stdin.
    """
    from cli.attached import any_node
    from cli.output import print_json
    from cli.place import locate, owner_token

    owner_token(locate(data_dir))  # a wrong directory is told before a password is asked for
    password = options.read_password(password_stdin)
    with any_node(data_dir, application=application) as node:
        made: dict[str, Any] = node.post("/v1/admin/admins", {"email": email, "password": password}) or {}
    if as_json:
        print_json({"email": email, **made})
    else:
        click.echo(f"{email} is an administrator now; sign in with POST /v1/auth/login")
