"""Options that many commands share, and the examples in their help.

Room: how a command line is spelled; what the values lead to is in `cli.place`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def data_dir(command: Decorated) -> Decorated:
    """`--data-dir DIR`: which node."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where the node keeps its data. [default: CIVICNODE_DATA_DIR, the settings file, "
        "or the platform's user data directory]",
    )(command)


def as_json(command: Decorated) -> Decorated:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, with a `schema` number.")(
        command
    )


def application(command: Decorated) -> Decorated:
    """`--application ID`: whose accounts, models and data."""
    return click.option(
        "--application",
        metavar="ID",
        help="The application whose accounts, models and data are meant. [default: default]",
    )(command)


def password_stdin(command: Decorated) -> Decorated:
    """`--password-stdin`: a password without a terminal and without a trace in the process list."""
    return click.option(
        "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
    )(command)


def examples(*lines: str) -> str:
    """The epilog of a command's help."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\b\n" + "\n".join([head, *(f"  {line}" for line in lines)])


def read_password(from_stdin: bool, prompt: str = "Password") -> str:
    """The password, from standard input or asked for twice at the terminal."""
    import sys

    from cli.errors import CliError

    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise CliError("no terminal to ask for the password at: pipe it in and add --password-stdin")
    if not password:
        raise CliError("the password is empty: put it on the first line of standard input")
    return str(password)
