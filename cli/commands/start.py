"""`civicnode start`: run a node until it is told to stop."""

from pathlib import Path

import click

from cli import options, place
from cli.errors import CliError


@click.command(
    short_help="Run a node.",
    epilog=options.examples(
        "civicnode start",
        "civicnode start --data-dir ./data --api 127.0.0.1:0 --listen 127.0.0.1:0 --no-mdns",
        "civicnode start --name kitchen --peer 192.168.1.20:4490",
    ),
)
@options.data_dir
@click.option(
    "--api",
    metavar="HOST:PORT",
    help="Where apps connect; port 0 takes a free one. [default: 127.0.0.1:8080]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where peers connect; port 0 takes a free one. [default: 0.0.0.0:4490]",
)
@click.option("--name", metavar="NAME", help="What this node is called. [default: the machine's name]")
@click.option(
    "--peer",
    "peers",
    metavar="HOST:PORT",
    multiple=True,
    help="A peer to stay connected to; may be given again.",
)
@click.option(
    "--no-mdns", is_flag=True, help="Neither announce this node on the local network nor look for others."
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Read settings from this TOML file."
)
@click.option(
    "--plugins-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Load the plugins in this directory.",
)
@click.option("--api-tls", nargs=2, metavar="CERT KEY", help="Serve the API over TLS with these PEM files.")
@click.option("--insecure-http", is_flag=True, help="Allow an API address other than loopback without TLS.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
def start(
    data_dir: Path | None,
    api: str | None,
    listen: str | None,
    name: str | None,
    peers: tuple[str, ...],
    no_mdns: bool,
    config: Path | None,
    plugins_dir: Path | None,
    api_tls: tuple[str, str] | None,
    insecure_http: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run a node in the foreground.

    On an empty data directory the node makes its identity and a network of its own. When it is ready it
    prints one line with the address of its API. Ctrl-C or SIGTERM stops it cleanly.
    """
    from cli.settings import load

    settings = load(
        {
            "data_dir": data_dir,
            "api": api,
            "listen": listen,
            "name": name,
            "peers": peers or None,
            "mdns": False if no_mdns else None,
            "config": config,
            "plugins_dir": plugins_dir,
            "api_tls_cert": api_tls[0] if api_tls else None,
            "api_tls_key": api_tls[1] if api_tls else None,
            "insecure_http": True if insecure_http else None,
            "log_level": log_level,
            "log_format": log_format,
        }
    )
    where = place.locate(Path(settings.data_dir))
    if where.exists() and not where.is_dir():
        raise CliError(f"{where} is a file: name a directory with --data-dir")
    running = place.running(where)
    if running is not None:
        raise CliError(
            f"a node is already running in {where} at {running.api} (pid {running.pid}): use it, "
            f"stop it with kill {running.pid}, or name another directory with --data-dir"
        )
    from node.process import StartFailed, run

    try:
        code = run(settings)
    except StartFailed as fault:
        raise CliError(str(fault)) from None
    click.get_current_context().exit(code)
