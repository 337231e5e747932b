"""`civicnode user`: accounts, their roles and passwords."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import options
from cli.errors import CliError
from cli.options import Decorated

if TYPE_CHECKING:
    from cli.client import NodeClient


def _application(default: str | None) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--application",
        metavar="ID",
        default=default,
        show_default=default is not None,
        help="The application the account belongs to.",
    )


@click.group(epilog=options.examples("civicnode user list", "civicnode user role ada@example.org editor"))
def user() -> None:
    """List accounts, set roles, reset passwords."""


@user.command(
    "list", epilog=options.examples("civicnode user list", "civicnode user list --application app_1 --json")
)
@_application(None)
@options.data_dir
@options.as_json
def list_(application: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List the accounts, of every application unless one is named."""
    from cli.attached import any_node
    from cli.output import print_json, print_table

    with any_node(data_dir) as node:
        users = [u for u in _users(node) if application in (None, _application_of(u))]
    if as_json:
        print_json({"users": users})
        return
    print_table(
        ["id", "email", "username", "application", "roles", "state"],
        [
            [
                _id(u),
                u.get("email"),
                u.get("username"),
                _application_of(u),
                ", ".join(u.get("roles") or []),
                "disabled" if u.get("disabled") else "administrator" if u.get("is_admin") else "",
            ]
            for u in users
        ],
    )


@user.command(epilog=options.examples("civicnode user role ada@example.org editor"))
@click.argument("email")
@click.argument("role")
@_application("default")
@options.data_dir
@options.as_json
def role(email: str, role: str, application: str, data_dir: Path | None, as_json: bool) -> None:
    """Give the account EMAIL the role ROLE."""
    from cli.attached import any_node
    from cli.output import print_json

    with any_node(data_dir) as node:
        found = _find(node, email, application)
        body = {"role": role, "application_id": application}
        answer = node.post(f"/v1/users/{_segment(_id(found))}/roles", body) or {}
    if as_json:
        print_json({"user_id": _id(found), "email": email, "role": role, **answer})
    else:
        click.echo(f"{email} has the role {role}")


@user.command(
    "reset-password",
    epilog=options.examples(
        "civicnode user reset-password ada@example.org",
        "civicnode user reset-password ada@example.org --generate",
    ),
)
@click.argument("email")
@options.password_stdin
@click.option("--generate", is_flag=True, help="Make a new password up and print it.")
@_application("default")
@options.data_dir
@options.as_json
def reset_password(
    email: str, password_stdin: bool, generate: bool, application: str, data_dir: Path | None, as_json: bool
) -> None:
    """Give the account EMAIL a new password and end its sessions.

    The password is asked for twice at the terminal, read with --password-stdin, or made up with --generate.
    """
    from cli.attached import any_node
    from cli.output import print_json
    from cli.place import locate, owner_token

    if generate and password_stdin:
        raise click.UsageError("--generate and --password-stdin exclude each other")
    owner_token(locate(data_dir))
    if generate:
        import secrets

        password = secrets.token_urlsafe(15)
    else:
        password = options.read_password(password_stdin, f"New password of {email}")
    with any_node(data_dir) as node:
        found = _find(node, email, application)
        node.post(f"/v1/admin/users/{_segment(_id(found))}/password", {"password": password})
    if as_json:
        print_json({"user_id": _id(found), "email": email, **({"password": password} if generate else {})})
    elif generate:
        click.echo(password)
    else:
        click.echo(f"{email} has a new password; its sessions have ended")


def _users(node: "NodeClient") -> list[dict[str, Any]]:
    answer = node.get("/v1/admin/users")
    users = answer.get("users", []) if isinstance(answer, dict) else answer
    return list(users)


def _find(node: "NodeClient", email: str, application: str) -> dict[str, Any]:
    wanted = email.casefold()
    accounts = [u for u in _users(node) if str(u.get("email", "")).casefold() == wanted]
    for account in accounts:
        if _application_of(account) == application:
            return account
    if accounts:
        there = ", ".join(sorted({_application_of(a) for a in accounts}))
        raise CliError(
            f"{email} has no account in application {application}: name its own with --application ({there})"
        )
    raise CliError(f"there is no account {email}: civicnode user list shows those there are")


def _id(account: dict[str, Any]) -> str:
    return str(account.get("user_id") or account.get("id"))


def _application_of(account: dict[str, Any]) -> str:
    return str(account.get("application_id") or "default")


def _segment(text: str) -> str:
    from cli.client import segment

    return segment(text)
