"""`civicnode backup` and `civicnode restore`."""

import os
from pathlib import Path

import click

from cli import options, place
from cli.errors import CliError

BACKUP_TIMEOUT_S = 3600.0  # a backup answers when it is written; a disk may be slow and a store large


@click.command(
    short_help="Copy everything to a file.", epilog=options.examples("civicnode backup monday.backup")
)
@click.argument("file", type=click.Path(path_type=Path))
@options.data_dir
@options.as_json
def backup(file: Path, data_dir: Path | None, as_json: bool) -> None:
    """Write a consistent copy of everything the node keeps to FILE, also while it runs.

    FILE holds the node's keys as well: keep it as safe as the data directory.
    """
    from cli.output import print_json, size

    where = place.locate(data_dir)
    place.require_node_data(where)
    target = Path(os.path.abspath(file))
    if target.exists():
        raise CliError(f"{target} exists already: delete it or choose another name")
    if not target.parent.is_dir():
        raise CliError(f"{target.parent} does not exist: make the directory first")
    if place.running(where) is not None:
        from cli.attached import running_node

        with running_node(where, timeout_s=BACKUP_TIMEOUT_S) as node:
            node.post("/v1/admin/backup", {"path": str(target)})
    else:
        from cli.progress import progress
        from storage.backup import backup as write
        from storage.errors import StorageError

        try:
            with progress("backup", quiet=as_json) as report:
                write(where, target, report)
        except StorageError as fault:
            raise CliError(str(fault)) from None
    size_bytes = target.stat().st_size
    if as_json:
        print_json({"file": str(target), "size_bytes": size_bytes})
    else:
        click.echo(f"wrote {target} ({size(size_bytes)})")


@click.command(
    short_help="Make a data directory from a backup.",
    epilog=options.examples("civicnode restore monday.backup --data-dir ./restored"),
)
@click.argument("file", type=click.Path(path_type=Path))
@options.data_dir
@options.as_json
def restore(file: Path, data_dir: Path | None, as_json: bool) -> None:
    """Make a data directory from the backup FILE.

    The directory must be new or empty. The restored node goes on as the same node in a new chain, so nothing
    it wrote after the backup can collide with what it writes now.
    """
    from cli.output import print_json
    from cli.progress import progress
    from storage.backup import restore as read
    from storage.errors import StorageError

    where = place.locate(data_dir)
    source = Path(os.path.abspath(file))
    if not source.is_file():
        raise CliError(f"{source} does not exist: name a file that civicnode backup wrote")
    if where.exists() and not where.is_dir():
        raise CliError(f"{where} is a file: name a directory with --data-dir")
    if place.holds_node(where):
        raise CliError(
            f"{where} holds a node already: name an empty directory with --data-dir, or move it aside"
        )
    try:
        with progress("restore", quiet=as_json) as report:
            read(source, where, report)
    except StorageError as fault:
        raise CliError(str(fault)) from None
    if as_json:
        print_json({"data_dir": str(where), "file": str(source)})
    else:
        click.echo(f"restored to {where}: run it with civicnode start{place.as_flag(where)}")
