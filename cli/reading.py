"""Records out of a file: a JSON array, newline-delimited JSON, or CSV, one record at a time.

Room: bytes become dictionaries, each with the place it came from; memory holds one record and a chunk of
text. What the values mean is in `cli.inference`. A file that is not what it seems raises `Unreadable` with
the place.
"""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from cli.errors import CliError

CHUNK_CHARS = 1 << 16
SNIFF_CHARS = 4096
CELL_MAX_CHARS = 1 << 20  # a node's longest string

Record = dict[str, Any]


class Format(StrEnum):
    """What a file of records can be written in."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


class Unreadable(CliError):
    """The file does not hold what its format promises."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of records that can be read more than once."""

    path: Path
    name: str
    format: Format

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        """Each record and where it stands (`line 7`, `record 7`)."""
        reader = {Format.JSON: _json, Format.NDJSON: _ndjson, Format.CSV: _csv}[self.format]
        # utf-8-sig: spreadsheets open their CSV with a byte order mark.
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            try:
                yield from reader(stream, self)
            except UnicodeDecodeError as fault:
                raise Unreadable(f"{self.name} is not UTF-8 text: {fault.reason}; convert it first") from None

    def fault(self, place: str, what: str) -> Unreadable:
        return Unreadable(f"{self.name}, {place}: {what}")


def open_source(path: Path, *, name: str | None = None, chosen: Format | None = None) -> Source:
    """`path` with its format: the one chosen, else by the extension, else by what the text opens with."""
    by_extension = {
        ".csv": Format.CSV,
        ".tsv": Format.CSV,
        ".ndjson": Format.NDJSON,
        ".jsonl": Format.NDJSON,
    }
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            head = stream.read(SNIFF_CHARS).lstrip()
    except FileNotFoundError:
        raise CliError(f"{path} does not exist: name a file of records") from None
    except IsADirectoryError:
        raise CliError(f"{path} is a directory: name a file of records") from None
    found = chosen or by_extension.get(path.suffix.lower())
    if found is None:
        found = Format.JSON if head.startswith("[") else Format.NDJSON if head.startswith("{") else Format.CSV
    if not head:
        raise Unreadable(f"{name or path} is empty")
    return Source(path, name or str(path), found)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_SPACE = re.compile(r"[ \t\r\n]*")


def _json(stream: TextIO, source: Source) -> Iterator[tuple[str, Record]]:
    text, at, number, ended = "", 0, 0, False
    expected = "["
    while True:
        at = _after_space(text, at)
        while at >= len(text) and not ended:
            text, at = stream.read(CHUNK_CHARS), 0
            ended = not text
            at = _after_space(text, at)
        found = text[at : at + 1]
        if expected == "end":
            if found:
                raise source.fault(f"after record {number}", "there is text after the array")
            return
        if expected == "[":
            if found != "[":
                raise source.fault("at its start", "a JSON array of objects is expected")
            at, expected = at + 1, "first"
        elif found == "]" and expected in ("first", ","):
            at, expected = at + 1, "end"
        elif expected == ",":
            if found != ",":
                raise source.fault(f"after record {number}", "a comma or the end of the array is expected")
            at, expected = at + 1, "next"
        else:
            number += 1
            place = f"record {number}"
            while True:
                try:
                    value, at = _decoder.raw_decode(text, at)
                    break
                except json.JSONDecodeError as fault:
                    # Perhaps the record goes on in the next chunk; ask for twice as much as is at hand.
                    more = "" if ended else stream.read(max(CHUNK_CHARS, len(text) - at))
                    if not more:
                        raise source.fault(place, f"not valid JSON: {fault.msg}") from None
                    text, at = text[at:] + more, 0
                except (ValueError, RecursionError) as fault:
                    raise source.fault(place, _said(fault)) from None
            yield place, _object(value, place, source)
            expected = ","


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _ndjson(stream: TextIO, source: Source) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = _decoder.decode(line)
        except json.JSONDecodeError as fault:
            said = f"not valid JSON: {fault.msg}; one object a line, or one array of objects, is expected"
            raise source.fault(place, said) from None
        except (ValueError, RecursionError) as fault:
            raise source.fault(place, _said(fault)) from None
        yield place, _object(value, place, source)


def _csv(stream: TextIO, source: Source) -> Iterator[tuple[str, Record]]:
    head = stream.read(SNIFF_CHARS).partition("\n")[0]
    stream.seek(0)
    delimiter = max(",;\t", key=head.count)
    csv.field_size_limit(CELL_MAX_CHARS)
    rows = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        columns = next(rows, [])
        double = {column for column in columns if columns.count(column) > 1}
        if double:
            raise source.fault("line 1", f"two columns are called {sorted(double)[0]!r}")
        for row in rows:
            if not row:
                continue
            place = f"line {rows.line_num}"
            if len(row) > len(columns):
                raise source.fault(place, f"{len(row)} cells under {len(columns)} columns")
            # An empty cell is a value that is not there; CSV has no other way to say so.
            yield place, {column: cell for column, cell in zip(columns, row, strict=False) if cell}
    except csv.Error as fault:
        raise source.fault(f"line {rows.line_num}", str(fault)) from None


def _object(value: object, place: str, source: Source) -> Record:
    if not isinstance(value, dict):
        raise source.fault(place, "a record is a JSON object")
    return value


def _said(fault: Exception) -> str:
    return "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
