"""The `civicnode` program: its commands by name, and how it ends.

Room: routing only. A command lives in `cli.commands`; this module imports none of them before it is asked
for, and nothing heavier than click.
"""

import errno
import os
import sys
from collections.abc import Sequence

import click

from cli.errors import CliError
from cli.lazy import LazyGroup

COMMANDS = {
    "start": "cli.commands.start:start",
    "status": "cli.commands.status:status",
    "token": "cli.commands.token:token",
    "admin": "cli.commands.admin:admin",
    "user": "cli.commands.user:user",
    "origins": "cli.commands.origins:origins",
    "invite": "cli.commands.invite:invite",
    "join": "cli.commands.join:join",
    "peers": "cli.commands.peers:peers",
    "grant": "cli.commands.peers:grant",
    "revoke": "cli.commands.peers:revoke",
    "recover": "cli.commands.recover:recover",
    "config": "cli.commands.config:config",
    "import": "cli.commands.importing:import_",
    "export": "cli.commands.exporting:export",
    "verify": "cli.commands.verify:verify",
    "query": "cli.commands.query:query",
    "backup": "cli.commands.backup:backup",
    "restore": "cli.commands.backup:restore",
    "doctor": "cli.commands.doctor:doctor",
    "bench": "cli.commands.bench:bench",
}


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib import metadata

        click.echo(f"civicnode {metadata.version('civicnode')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nExamples:\n  civicnode start\n  civicnode status\n  civicnode import --help",
)
@click.option("--traceback", is_flag=True, help="On an unexpected fault, show where in the program it arose.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version.",
)
def civicnode(traceback: bool) -> None:
    """A peer-to-peer backend node: one signed data set, served to every app on this device."""


def explain(fault: BaseException) -> str:
    """One line for a fault that no command foresaw; the system's own faults name their fix."""
    if isinstance(fault, OSError):
        where = f": {fault.filename}" if fault.filename else ""
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk is full{where}: free some space there and run the command again"
        if fault.errno in (errno.EACCES, errno.EPERM):
            return f"permission denied{where}: run the command as the owner of that file"
        if fault.errno == errno.EROFS:
            return f"the file system is read-only{where}: choose another place"
        if fault.strerror:
            return f"{fault.strerror}{where}"
    return f"unexpected {type(fault).__name__}: {fault} (civicnode --traceback shows where)".replace(
        "\n", " "
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Every fault ends as one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = civicnode.main(args=given, prog_name="civicnode", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as help_:
        help_.show()
        return help_.exit_code
    except CliError as fault:
        fault.show()
        return fault.exit_code
    except click.UsageError as fault:
        fault.show()
        return fault.exit_code
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter's last flush must find something to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as fault:
        if "--traceback" in given:
            raise
        click.echo(f"Error: {explain(fault)}", err=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
