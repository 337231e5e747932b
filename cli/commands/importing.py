"""`civicnode import`: records from a file."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from cli import options
from cli.errors import CliError

if TYPE_CHECKING:
    from cli.importer import Outcome
    from cli.inference import Guess, Names
    from cli.reading import Source

FAULTS_SHOWN = 10
RATE_FROM_S = 0.1
IMPORT_TIMEOUT_S = 120.0  # for one batch, on a slow disk


@click.command(
    "import",
    short_help="Create records from a file.",
    epilog=options.examples(
        "civicnode import airports.csv --model Airport --create-model --index country --id-field icao",
        "civicnode import tasks.ndjson --model Task --dry-run",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--model", required=True, metavar="NAME", help="The model the records are of.")
@click.option(
    "--create-model", is_flag=True, help="Make the model first, with types inferred from the whole file."
)
@click.option(
    "--index",
    "indexed",
    metavar="FIELD",
    multiple=True,
    help="With --create-model: index this field; may be given again.",
)
@click.option(
    "--id-field",
    metavar="FIELD",
    help="The field whose value is the record's id. [default: a field called id]",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "ndjson", "csv"]),
    help="[default: by extension, else by content]",
)
@click.option(
    "--dry-run", is_flag=True, help="Read the whole file and show what would be done; change nothing."
)
@options.application
@options.data_dir
@options.as_json
def import_(
    file: Path,
    model: str,
    create_model: bool,
    indexed: tuple[str, ...],
    id_field: str | None,
    format_: str | None,
    dry_run: bool,
    application: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Create a record from each in FILE: a JSON array, NDJSON (a JSON object a line) or CSV.

    FILE is read once before anything is written, so a damaged file changes nothing. Records are created one
    by one: those the model does not allow are counted and named, the others stay. Fields that the node sets
    itself (created_at, updated_at, created_by, version) are left out. FILE may be - for standard input.
    """
    from cli import models
    from cli.attached import any_node
    from cli.importer import check, send
    from cli.inference import body_of
    from cli.output import print_json
    from cli.progress import progress

    if indexed and not create_model:
        raise click.UsageError("--index works with --create-model only")
    with _source(file, format_) as source:
        guess, names, count = _survey(source, id_field, indexed)
        from_text = guess.from_text
        with any_node(data_dir, application=application, timeout_s=IMPORT_TIMEOUT_S) as node:
            existing = models.find(node, model)
            if existing is not None and create_model:
                raise CliError(f"the model {model} exists already: leave out --create-model to add to it")
            if existing is None and not create_model:
                raise CliError(f"there is no model {model}: add --create-model to make it from the file")
            target = existing or models.Model(guess.definition(model, names, indexed))
            types = target.fields
            bodies = ((at, body_of(record, names, types, from_text=from_text)) for at, record in source)
            if dry_run:
                outcome = check(target.definition, bodies)
                made = None if existing else target.definition
                _show_plan(source, outcome, model, made, names, as_json)
                _end(outcome, "would not be")
                return
            if existing is None:
                node.post("/v1/data-models", target.definition)
            began = perf_counter()
            with progress(f"import {model}", quiet=as_json, total=count) as report:
                outcome = send(node, model, bodies, lambda done: report(done, count))
            took_s = perf_counter() - began
    if as_json:
        print_json(
            {
                "model": model,
                "created": outcome.created,
                "failed": outcome.failed,
                "faults": _faults(outcome),
                "left_out": names.left_out,
                "renamed": names.changed,
                "seconds": round(took_s, 3),
            }
        )
    else:
        _show_names(names)
        _show_outcome(outcome, model, took_s)
    _end(outcome, "were not")


def _end(outcome: "Outcome", what: str) -> None:
    if outcome.failed:
        count = outcome.created + outcome.failed
        raise CliError(
            f"{outcome.failed:,} of {count:,} records {what} created: correct what is named, "
            "and import those alone"
        )


@contextmanager
def _source(file: Path, format_: str | None) -> Iterator["Source"]:
    """The file, or a copy of standard input that can be read twice."""
    from cli.reading import Format, open_source

    chosen = Format(format_) if format_ else None
    if str(file) != "-":
        yield open_source(file, chosen=chosen)
        return
    with tempfile.NamedTemporaryFile(prefix="civicnode-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield open_source(Path(copy.name), name="standard input", chosen=chosen)


def _survey(source: "Source", id_field: str | None, indexed: tuple[str, ...]) -> tuple["Guess", "Names", int]:
    """Read everything once: the fields, their types, how many records."""
    from cli.inference import Guess, Names
    from cli.reading import Format

    guess = Guess(from_text=source.format is Format.CSV)
    count = 0
    for place, record in source:
        count += 1
        guess.learn(record)
        if id_field and record.get(id_field) in (None, ""):
            raise source.fault(place, f"it has no {id_field}, which --id-field names as the id")
    if not count:
        raise CliError(f"{source.name} holds no records")
    for name in indexed:
        if name not in guess.kinds:
            raise CliError(f"--index {name}: no record has that field; there are {', '.join(guess.kinds)}")
    return guess, Names.of(guess.kinds, id_field), count


def _show_plan(
    source: "Source",
    outcome: "Outcome",
    model: str,
    definition: dict[str, Any] | None,
    names: "Names",
    as_json: bool,
) -> None:
    from cli.output import counted, print_json, print_table

    if as_json:
        print_json(
            {
                "dry_run": True,
                "format": source.format,
                "model": model,
                "records": outcome.created,
                "failed": outcome.failed,
                "faults": _faults(outcome),
                "definition": definition,
                "id_field": names.id_field,
                "left_out": names.left_out,
                "renamed": names.changed,
            }
        )
        return
    _show_names(names)
    if definition is not None:
        rows = [[f["name"], f["type"], "indexed" if f.get("indexed") else ""] for f in definition["fields"]]
        print_table(["field", "type", ""], rows)
    _show_faults(outcome)
    made = "would be made, and " if definition is not None else ""
    click.echo(f"the model {model} {made}would get {counted(outcome.created, 'record')}; nothing was changed")


def _faults(outcome: "Outcome") -> list[dict[str, Any]]:
    return [{"at": f.place, "error": f.error, "details": f.details} for f in outcome.faults]


def _show_names(names: "Names") -> None:
    from cli.output import printable

    for original, name in names.changed.items():
        click.echo(f"field {printable(original)!r} is called {name}", err=True)
    if names.left_out:
        click.echo(f"left out: {', '.join(names.left_out)}", err=True)


def _show_outcome(outcome: "Outcome", model: str, took_s: float) -> None:
    from cli.output import counted

    _show_faults(outcome)
    # The time of a handful says nothing about a rate.
    rate = f" in {took_s:.1f} s ({outcome.created / took_s:,.0f}/s)" if took_s >= RATE_FROM_S else ""
    click.echo(f"created {counted(outcome.created, 'record')} of {model}{rate}")


def _show_faults(outcome: "Outcome") -> None:
    from cli.output import printable

    for fault in outcome.faults[:FAULTS_SHOWN]:
        click.echo(printable(str(fault)), err=True)
    if outcome.failed > FAULTS_SHOWN:
        click.echo(f"… and {outcome.failed - FAULTS_SHOWN:,} more", err=True)
