"""`civicnode verify`: whether a signed export proves itself, without a node."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import options
from cli.errors import CliError

if TYPE_CHECKING:
    from protocol.changes import Record
    from storage.archive import Verified


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
    It is replayed in a temporary directory, whatever its size.
    """
    from cli.output import counted, print_json
    from storage.archive import NotAnArchive, verified_archive

    try:
        with verified_archive(file) as proved:
            if network is not None and proved.network_id.hex() != network.lower():
                raise CliError(f"{file} is of another network: {proved.network_id.hex()}")
            counts: dict[str, int] = {}
            for name, record in _records(proved):
                counts.setdefault(name, 0)
                counts[name] += record is not None
                if record is not None and records:
                    click.echo(json.dumps({"model": name, "data": record.facts()}, ensure_ascii=False))
    except NotAnArchive as fault:
        raise CliError(f"{file} proves nothing: {fault}") from None
    application = proved.application
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


def _records(proved: "Verified") -> "Iterator[tuple[str, Record | None]]":
    """The name of each model with None, then with each record that it shows."""
    from node.services.builtin import builtin_models
    from protocol.changes import Record
    from storage.ancestry import past_in
    from storage.catalog import Catalog

    catalog = Catalog(proved.store)
    for model in builtin_models():
        catalog.add_builtin(model)
    with proved.store.read() as snapshot:
        catalog.load(snapshot)
        space = proved.store.space(proved.application)
        past_of = past_in(snapshot, space)
        for model in catalog.models_of(proved.application):
            yield model.name, None
            for document in snapshot.documents.all_of(space, model.id):
                if document.exists and not document.is_broken:
                    record = Record.of(model, document, past_of)
                    if not model.check_record(record.values):
                        yield model.name, record
