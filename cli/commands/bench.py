"""`civicnode bench`: how fast a node is on this machine."""

import sys
from pathlib import Path

import click

from cli import options
from cli.errors import CliError


@click.command(
    short_help="Measure a node on this machine.",
    epilog=options.examples(
        "civicnode bench",
        "civicnode bench --quick --only creates --json",
        "civicnode bench --versus pocketbase --output results.json",
    ),
)
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds; figures are medians."
)
@click.option("--quick", is_flag=True, help="One short round: a hint, not a measurement.")
@click.option("--only", metavar="GROUP", multiple=True, help="Measure this group alone; may be given again.")
@click.option("--versus", metavar="OTHER", help="Measure another server beside it: pocketbase.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON document to FILE too."
)
@click.option("--check", is_flag=True, help="End with code 1 if a figure misses its target.")
@options.as_json
def bench(
    rounds: int,
    quick: bool,
    only: tuple[str, ...],
    versus: str | None,
    output: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Measure a node of its own, in a temporary directory, and the floor under each figure.

    Each figure is shown as a share of what the bare libraries reach in the same round on this machine. It
    takes about a minute a round; nothing else should run meanwhile.
    """
    from rich.console import Console

    from cli.bench import run
    from cli.bench.errors import BenchError
    from cli.output import piped_width

    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = run(
            rounds=rounds,
            quick=quick,
            versus=versus,
            json_path=output,
            only=only or None,
            console=Console(stderr=as_json, width=piped_width(sys.stderr if as_json else sys.stdout)),
        )
    except BenchError as fault:
        raise CliError(str(fault)) from None
    if as_json:
        from cli.output import print_json

        print_json(report.document())
    click.get_current_context().exit(1 if check and not report.passed else 0)
