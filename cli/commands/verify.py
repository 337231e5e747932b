"""`civicnode verify`: whether a signed export proves itself, without a node."""

import json
from pathlib import Path

import click

from cli import options
from cli.errors import CliError


@click.command(
    short_help="Check a signed export, without a node.",
    epilog=options.examples(
        "civicnode verify export.signed",
        "civicnode verify export.signed --network 3f2a… --records > records.ndjson",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--network", metavar="ID", help="The network it must be of: `civicnode status` names it.")
@click.option("--records", is_flag=True, help="Print the records that it proves, one JSON object a line.")
@options.as_json
def verify(file: Path, network: str | None, records: bool, as_json: bool) -> None:
    """Replay FILE, made by POST /v1/export with the format `signed`, and say what it proves.

    Every signature and hash is checked, and who may write is decided by the network's own statements in it. Whose
    network that is only its id says: compare it. FILE proves who wrote what is in it, not that nothing was left out.
    All of it is held in memory.
    """
    from cli.output import counted, print_json
    from node.services.builtin import builtin_models
    from protocol.changes import Record
    from storage.ancestry import past_in
    from storage.archive import NotAnArchive, verify_archive
    from storage.catalog import Catalog

    try:
        proved = verify_archive(file)
    except NotAnArchive as fault:
        raise CliError(f"{file} proves nothing: {fault}") from None
    if network is not None and proved.network_id.hex() != network.lower():
        raise CliError(f"{file} is of another network: {proved.network_id.hex()}")
    store, application = proved.store, proved.application
    catalog = Catalog(store)
    for model in builtin_models():
        catalog.add_builtin(model)
    counts: dict[str, int] = {}
    with store.read() as snapshot:
        catalog.load(snapshot)
        space = store.space(application)
        past_of = past_in(snapshot, space)
        for model in catalog.models_of(application):
            counts[model.name] = 0
            for document in snapshot.documents.all_of(space, model.id):
                if not document.exists or document.is_broken:
                    continue
                record = Record.of(model, document, past_of)
                if model.check_record(record.values):
                    continue
                counts[model.name] += 1
                if records:
                    click.echo(json.dumps({"model": model.name, "data": record.facts()}, ensure_ascii=False))
    told = {
        "network": proved.network_id.hex(),
        "application": application,
        "records": counts,
        "commits": {author.hex(): count for author, count in sorted(proved.commits.items())},
        "waiting": proved.waiting,
        "forked": proved.forked,
    }
    if as_json:
        print_json(told)
    elif not records:
        click.echo(f"every signature stands: {counted(sum(proved.commits.values()), 'commit')}")
        click.echo(f"network {told['network']}, application {application}")
        for name, count in counts.items():
            click.echo(f"{name}: {counted(count, 'record')}")
        if proved.waiting or proved.forked:
            click.echo(f"left out: {proved.waiting} commits whose causes are missing, {proved.forked} forked")
