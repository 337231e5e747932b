"""`civicnode export`: the records of a model, to a file or standard output."""

import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from cli import options
from cli.errors import CliError

if TYPE_CHECKING:
    from cli.client import NodeClient

PER_PAGE = 100
META_BEFORE = ("id",)
META_AFTER = ("created_at", "updated_at", "created_by", "version")


@click.command(
    short_help="Write the records of a model to a file.",
    epilog=options.examples(
        "civicnode export airports.ndjson --model Airport",
        "civicnode export --model Airport --format csv --filter country:eq:IS | head",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--model", required=True, metavar="NAME", help="The model whose records are written.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "ndjson", "csv"]),
    help="[default: FILE's extension, else json]",
)
@click.option(
    "--filter", "filter_", metavar="EXPRESSION", help="Only records it matches, as in the API: status:eq:DONE"
)
@options.application
@options.data_dir
@options.as_json
def export(
    file: Path | None,
    model: str,
    format_: str | None,
    filter_: str | None,
    application: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Write the records of a model, oldest first, to FILE or standard output.

    FILE is replaced only when everything has been written. With FILE, --json reports what was done.
    """
    from cli import models
    from cli.attached import any_node
    from cli.output import counted, print_json

    if file is not None and str(file) == "-":
        file = None
    if as_json and file is None:
        raise click.UsageError(
            "--json reports on an export to a FILE; --format json is the format of the records"
        )
    chosen = format_ or _by_extension(file)
    with any_node(data_dir, application=application) as node:
        definition = models.find(node, model)
        if definition is None:
            there = ", ".join(models.names(node)) or "none yet"
            raise CliError(f"there is no model {model}; there are: {there}")
        records = _counted(_records(node, model, filter_))
        with _target(file) as stream:
            if chosen == "csv":
                _write_csv(stream, records, list(definition.fields))
            elif chosen == "ndjson":
                for record in records:
                    stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            else:
                _write_json(stream, records)
    if as_json:
        print_json(
            {"model": model, "exported": records.count, "format": chosen, "file": os.path.abspath(str(file))}
        )
    elif file is not None:
        click.echo(f"wrote {counted(records.count, 'record')} of {model} to {file}")


def _by_extension(file: Path | None) -> str:
    extension = file.suffix.lower() if file is not None else ""
    return {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}.get(extension, "json")


def _records(node: "NodeClient", model: str, filter_: str | None) -> Iterator[dict[str, Any]]:
    """Every record, page by page; those made meanwhile come last."""
    from cli.client import segment

    cursor: str | None = None
    while True:
        page = node.get(
            f"/v1/data/{segment(model)}",
            per_page=PER_PAGE,
            sort="created_at",
            order="asc",
            filter=filter_,
            cursor=cursor,
        )
        yield from page["items"]
        cursor = page.get("next_cursor")
        if not cursor:
            return


class _counted:
    """An iterable that knows how many it has handed out."""

    def __init__(self, inner: Iterable[dict[str, Any]]) -> None:
        self._inner = inner
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self._inner:
            self.count += 1
            yield item


@contextmanager
def _target(file: Path | None) -> Iterator[TextIO]:
    if file is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if not file.parent.is_dir():
        raise CliError(f"{file.parent} does not exist: make the directory first")
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def _write_json(stream: TextIO, records: Iterable[dict[str, Any]]) -> None:
    separator = "[\n"
    for record in records:
        stream.write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(stream: TextIO, records: Iterable[dict[str, Any]], fields: list[str]) -> None:
    from node.services.record_files import cell_of

    columns = [*META_BEFORE, *fields, *META_AFTER]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([cell_of(record.get(column)) for column in columns])
