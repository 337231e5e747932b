"""`civicnode doctor`: verify everything a node keeps, and repair what is derived."""

from pathlib import Path

import click

from cli import options, place
from cli.errors import CliError


@click.command(
    short_help="Verify everything, repair what is derived.",
    epilog=options.examples("civicnode doctor", "civicnode doctor --no-repair --json"),
)
@click.option(
    "--repair/--no-repair", default=True, show_default=True, help="Rebuild what can be derived from the log."
)
@options.data_dir
@options.as_json
def doctor(repair: bool, data_dir: Path | None, as_json: bool) -> None:
    """Verify every signature, chain, document and index of a node that is not running.

    What is derived from the signed log (documents, indexes) is rebuilt where it is wrong. Ends with code 1 if
    something is left that cannot be repaired.
    """
    from cli.output import print_json, printable
    from cli.progress import progress
    from node.services.builtin import builtin_models
    from storage.doctor import examine
    from storage.errors import StorageError

    where = place.locate(data_dir)
    place.require_node_data(where)
    place.refuse_running(where, "run civicnode doctor")
    try:
        with progress("doctor", quiet=as_json) as step:
            report = examine(where, repair=repair, progress=step, builtins=builtin_models())
    except StorageError as fault:
        raise CliError(str(fault)) from None
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "problems": report.problems,
                "repaired": report.repaired,
                "counts": report.counts,
            }
        )
        click.get_current_context().exit(0 if report.ok else 1)
    for name, count in report.counts.items():
        click.echo(f"checked   {count:,} {printable(name)}")
    for line in report.repaired:
        click.echo(f"repaired  {printable(line)}")
    for line in report.problems:
        click.echo(f"problem   {printable(line)}")
    if not report.ok:
        raise CliError("not everything could be repaired: civicnode restore brings back a backup")
    click.echo("everything is in order")
