"""`civicnode config`: the settings in force and where each came from."""

from pathlib import Path

import click

from cli import options

SHOWN = ("name", "value", "place", "help")


@click.command(
    short_help="Show the settings in force and where each came from.",
    epilog=options.examples("civicnode config", "CIVICNODE_API=127.0.0.1:9000 civicnode config --json"),
)
@options.data_dir
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read settings from this TOML file.",
)
@options.as_json
def config(data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Show the settings that `civicnode start` would use, and where each value came from.

    Flags outrank the environment (CIVICNODE_…), which outranks the settings file. Secrets are not shown.
    """
    from cli.output import print_json, print_table, printable
    from cli.settings import load

    settings = load({"data_dir": data_dir, "config": config_file})
    described = settings.describe()
    if as_json:
        print_json({"settings": described, "warnings": list(settings.warnings)})
        return
    print_table(["setting", "value", "from", "meaning"], [[d[key] for key in SHOWN] for d in described])
    for warning in settings.warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)
