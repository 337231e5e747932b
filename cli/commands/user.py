"""`civicnode user`: accounts, their roles and passwords."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import options
from cli.errors import CliError

if TYPE_CHECKING:
    from cli.client import NodeClient

PER_PAGE = 100


@click.group(epilog=options.examples("civicnode user list", "civicnode user role ada@example.org editor"))
def user() -> None:
    """List accounts, set roles, reset passwords and MFA."""


@user.command("list", epilog=options.examples("civicnode user list", "civicnode user list --json"))
@options.application
@options.data_dir
@options.as_json
def list_(application: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List the accounts."""
    from cli.attached import any_node
    from cli.output import print_json, print_table

    with any_node(data_dir, application=application) as node:
        users = list(_users(node))
    if as_json:
        print_json({"users": users})
        return
    print_table(
        ["user_id", "email", "username", "roles", "state"],
        [[u["user_id"], u["email"], u["username"], ", ".join(u["roles"]), _state(u)] for u in users],
    )


@user.command(
    short_help="Give an account a role, or take it back.",
    epilog=options.examples(
        "civicnode user role ada@example.org editor",
        "civicnode user role ada@example.org editor --remove",
    ),
)
@click.argument("email")
@click.argument("role")
@click.option("--remove", is_flag=True, help="Take the role back.")
@options.application
@options.data_dir
@options.as_json
def role(
    email: str, role: str, remove: bool, application: str | None, data_dir: Path | None, as_json: bool
) -> None:
    """Give the account EMAIL the role ROLE; `admin` makes an administrator."""
    from cli.client import segment
    from cli.output import print_json

    with _account(email, application, data_dir) as (node, user_id):
        path = f"/v1/users/{segment(user_id)}/roles"
        if remove:
            node.delete(f"{path}/{segment(role)}")
        else:
            node.post(path, {"role": role})
    if as_json:
        print_json({"user_id": user_id, "email": email, "role": role, "held": not remove})
    else:
        click.echo(f"{email} {'no longer has' if remove else 'has'} the role {role}")


@user.command(
    "reset-password",
    short_help="Give an account a new password.",
    epilog=options.examples(
        "civicnode user reset-password ada@example.org",
        "civicnode user reset-password ada@example.org --generate",
    ),
)
@click.argument("email")
@options.password_stdin
@click.option("--generate", is_flag=True, help="Make a new password up and print it.")
@options.application
@options.data_dir
@options.as_json
def reset_password(
    email: str,
    password_stdin: bool,
    generate: bool,
    application: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Give the account EMAIL a new password and end its sessions.

    What was encrypted for this user cannot be opened any more: nobody but its owner ever had the key.

    The password is asked for twice at the terminal, read with --password-stdin, or made up with --generate.
    """
    from cli.client import segment
    from cli.output import print_json
    from cli.place import locate, owner_token

    if generate and password_stdin:
        raise click.UsageError("--generate and --password-stdin exclude each other")
    owner_token(locate(data_dir))  # a wrong directory is told before a password is asked for
    if generate:
        import secrets

        password = secrets.token_urlsafe(15)
    else:
        password = options.read_password(password_stdin, f"New password of {email}")
    with _account(email, application, data_dir) as (node, user_id):
        node.post(f"/v1/admin/users/{segment(user_id)}/password", {"password": password})
    if as_json:
        print_json({"user_id": user_id, "email": email, **({"password": password} if generate else {})})
    elif generate:
        click.echo(password)
    else:
        click.echo(
            f"{email} has a new password; its sessions have ended, and encrypted fields stay closed to it"
        )


@user.command(
    "reset-mfa",
    short_help="Take an account's second factor away.",
    epilog=options.examples("civicnode user reset-mfa ada@example.org"),
)
@click.argument("email")
@options.application
@options.data_dir
@options.as_json
def reset_mfa(email: str, application: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Let the account EMAIL sign in by its password alone, if its owner has lost app and recovery codes."""
    from cli.client import segment
    from cli.output import print_json

    with _account(email, application, data_dir) as (node, user_id):
        node.delete(f"/v1/admin/users/{segment(user_id)}/mfa")
    if as_json:
        print_json({"user_id": user_id, "email": email, "mfa_enabled": False})
    else:
        click.echo(f"{email} signs in by password alone until it enables MFA again")


@user.command(
    short_help="Keep an account from signing in.",
    epilog=options.examples("civicnode user disable ada@example.org"),
)
@click.argument("email")
@options.application
@options.data_dir
@options.as_json
def disable(email: str, application: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Keep the account EMAIL from signing in and end its sessions."""
    _set_disabled(email, application, data_dir, as_json, disabled=True)


@user.command(
    short_help="Let an account sign in again.",
    epilog=options.examples("civicnode user enable ada@example.org"),
)
@click.argument("email")
@options.application
@options.data_dir
@options.as_json
def enable(email: str, application: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Let the account EMAIL sign in again."""
    _set_disabled(email, application, data_dir, as_json, disabled=False)


def _set_disabled(
    email: str, application: str | None, data_dir: Path | None, as_json: bool, *, disabled: bool
) -> None:
    from cli.client import segment
    from cli.output import print_json

    with _account(email, application, data_dir) as (node, user_id):
        node.request("PUT", f"/v1/admin/users/{segment(user_id)}", {"disabled": disabled})
    if as_json:
        print_json({"user_id": user_id, "email": email, "disabled": disabled})
    else:
        click.echo(f"{email} {'can no longer' if disabled else 'can'} sign in")


@contextmanager
def _account(
    email: str, application: str | None, data_dir: Path | None
) -> Iterator[tuple["NodeClient", str]]:
    """A client in the account's application, and the account's id."""
    from cli.attached import any_node

    with any_node(data_dir, application=application) as node:
        found = node.get("/v1/admin/users", email=email)["items"]
        if not found:
            where = f" in application {application}" if application else ""
            raise CliError(f"there is no account {email}{where}: civicnode user list shows those there are")
        if len(found) > 1:
            # Made on two nodes that were apart; both stay until one changes its address.
            raise CliError(f"{len(found)} accounts have the address {email}: change one's address first")
        yield node, str(found[0]["user_id"])


def _users(node: "NodeClient") -> Iterator[dict[str, Any]]:
    page, seen = 1, 0
    while True:
        answer = node.get("/v1/admin/users", page=page, per_page=PER_PAGE)
        yield from answer["items"]
        seen += len(answer["items"])
        if not answer["items"] or seen >= answer["total"]:
            return
        page += 1


def _state(account: dict[str, Any]) -> str:
    words = {"disabled": "disabled", "is_admin": "administrator", "mfa_enabled": "MFA"}
    state = [word for name, word in words.items() if account.get(name)]
    if "admin" in account["roles"] and not account.get("is_admin"):
        state.append("administrator's rights rest: give the role again")
    return ", ".join(state)
