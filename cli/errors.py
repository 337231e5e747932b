"""What can go wrong in a command, each as one line that names the fix.

Room: every fault a user may meet ends as a `CliError`, whose text is printed after `Error: ` on standard
error. What went wrong inside a node is said by the node; `cli.client` turns its answers into these.
"""

import click

EXIT_FAULT = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_NOT_RUNNING = (
    3  # apart from 1, so that a script can tell "no node" from "the node refused"; 2 is click's
)


class CliError(click.ClickException):
    """A fault in one line. `exit_code` is what the process ends with."""

    exit_code = EXIT_FAULT


class Interrupted(CliError):
    """Ctrl-C in the middle of something whose first part stays."""

    exit_code = EXIT_INTERRUPTED


class NotRunning(CliError):
    """The command needs a running node, and none runs on that data directory."""

    exit_code = EXIT_NOT_RUNNING
