"""Records in files: JSON, newline-delimited JSON, or CSV, read one record at a time, and written.

Room: bytes become dictionaries, each with the place it came from, and dictionaries bytes; memory holds one record
and a chunk of text. A file that is not what it seems raises `Unreadable` with the place. The command line and the
API read and write the same files.

    json    [record, …], or {"Task": [record, …], …}: records by model
    ndjson  one record a line, or {"model": "Task", "data": record}
    csv     a header of field names, then a record a line; an empty cell is no value, lists and objects are JSON
"""

import csv
import json
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec

CHUNK_CHARS = 1 << 16
SNIFF_CHARS = 4096
CELL_MAX_CHARS = 1 << 20  # a node's longest string
RECORD_MAX_CHARS = 16 << 20  # of JSON: as much as a request may hold

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?\Z")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SPACE = re.compile(r"[ \t\r\n]*")

Record = dict[str, Any]


class Format(StrEnum):
    """What a file of records can be written in."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"


_BY_EXTENSION = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
}


class Unreadable(Exception):
    """The file does not hold what its format promises."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Row(NamedTuple):
    """A record, where it stands (`line 7`, `record 7`), and the model that the file says it is of."""

    place: str
    record: Record
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file of records that can be read more than once."""

    path: Path
    name: str
    format: Format

    def rows(self) -> Generator[Row, None, None]:
        """Each record in its place. Blocks while it reads."""
        reader = {Format.JSON: _json, Format.NDJSON: _ndjson, Format.CSV: _csv}[self.format]
        # utf-8-sig: spreadsheets open their CSV with a byte order mark.
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            try:
                yield from reader(stream, self)
            except UnicodeDecodeError as fault:
                raise Unreadable(f"{self.name} is not UTF-8 text: {fault.reason}; convert it first") from None

    def fault(self, place: str, what: str) -> Unreadable:
        return Unreadable(f"{self.name}, {place}: {what}")


def open_source(
    path: Path, *, name: str, extension: str | None = None, chosen: Format | None = None
) -> Source:
    """`path` with its format: the one chosen, else by the extension (the path's own), else by its first text.

    Raises OSError.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(SNIFF_CHARS).lstrip()
    if not head:
        raise Unreadable(f"{name} is empty")
    found = chosen or _BY_EXTENSION.get((path.suffix if extension is None else extension).lower())
    if found is None:
        is_json = head.startswith("[") or (
            head.startswith("{") and not _is_whole(head.partition("\n")[0], head)
        )
        found = Format.JSON if is_json else Format.NDJSON if head.startswith("{") else Format.CSV
    return Source(path, name, found)


def _is_whole(line: str, head: str) -> bool:
    """Whether the first line is an object by itself; one that is longer than what was read counts as one."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line == head and len(head) > SNIFF_CHARS // 2
    return True


# -- JSON ---------------------------------------------------------------------------------------------------


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON value")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


class _Text:
    """JSON text as it comes, and where we are in it."""

    def __init__(self, stream: TextIO, source: Source) -> None:
        self._stream, self._source = stream, source
        self._text, self._at, self._is_ended = "", 0, False

    def peek(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._is_ended:
                return self._text[self._at : self._at + 1]
            self._text, self._at = self._stream.read(CHUNK_CHARS), 0
            self._is_ended = not self._text

    def takes(self, sign: str) -> bool:
        if self.peek() != sign:
            return False
        self._at += 1
        return True

    def value(self, place: str) -> Any:
        """The value that comes next, whole."""
        self.peek()
        while True:
            try:
                value, self._at = _decoder.raw_decode(self._text, self._at)
                return value
            except json.JSONDecodeError as fault:
                # Perhaps the value goes on in the next chunk; ask for twice as much as is at hand.
                held = len(self._text) - self._at
                if held > RECORD_MAX_CHARS:
                    what = f"a record has at most {RECORD_MAX_CHARS} characters"
                    raise self._source.fault(place, what) from None
                more = "" if self._is_ended else self._stream.read(max(CHUNK_CHARS, held))
                if not more:
                    raise self._source.fault(place, f"not valid JSON: {fault.msg}") from None
                self._text, self._at = self._text[self._at :] + more, 0
            except (ValueError, RecursionError) as fault:
                raise self._source.fault(place, _said(fault)) from None


def _json(stream: TextIO, source: Source) -> Iterator[Row]:
    text = _Text(stream, source)
    count = 0
    if text.takes("["):
        for record in _items(text, source, 0):
            count += 1
            yield Row(f"record {count}", record)
    elif text.takes("{"):
        while not (count == 0 and text.takes("}")):
            place = f"after record {count}" if count else "at its start"
            model = text.value(place)
            if not isinstance(model, str) or not text.takes(":") or not text.takes("["):
                raise source.fault(place, "the name of a model and an array of its records are expected")
            for record in _items(text, source, count):
                count += 1
                yield Row(f"record {count}", record, model)
            if text.takes("}"):
                break
            if not text.takes(","):
                raise source.fault(f"after record {count}", "a comma or the end of the object is expected")
    else:
        raise source.fault("at its start", "a JSON array of objects is expected")
    if text.peek():
        raise source.fault(f"after record {count}", "there is text after the array")


def _items(text: _Text, source: Source, count: int) -> Iterator[Record]:
    """The objects of an array whose bracket is read, up to its end; `count` came before them."""
    if text.takes("]"):
        return
    while True:
        count += 1
        place = f"record {count}"
        yield _object(text.value(place), place, source)
        if text.takes("]"):
            return
        if not text.takes(","):
            raise source.fault(f"after record {count}", "a comma or the end of the array is expected")


def _object(value: object, place: str, source: Source) -> Record:
    if not isinstance(value, dict):
        raise source.fault(place, "a record is a JSON object")
    return value


def _said(fault: Exception) -> str:
    return "nested too deeply" if isinstance(fault, RecursionError) else str(fault)


# -- lines --------------------------------------------------------------------------------------------------


def _ndjson(stream: TextIO, source: Source) -> Iterator[Row]:
    for number, line in enumerate(_lines(stream, source), 1):
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
        record = _object(value, place, source)
        model, data = record.get("model"), record.get("data")
        if record.keys() == {"model", "data"} and isinstance(model, str) and isinstance(data, dict):
            yield Row(place, data, model)
        else:
            yield Row(place, record)


def _lines(stream: TextIO, source: Source) -> Iterator[str]:
    """Lines of a bounded length."""
    number = 0
    while line := stream.readline(RECORD_MAX_CHARS + 1):
        number += 1
        if len(line) > RECORD_MAX_CHARS:
            raise source.fault(f"line {number}", f"a line has at most {RECORD_MAX_CHARS} characters")
        yield line


def _csv(stream: TextIO, source: Source) -> Iterator[Row]:
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
            yield Row(place, {column: cell for column, cell in zip(columns, row, strict=False) if cell})
    except csv.Error as fault:
        raise source.fault(f"line {rows.line_num}", str(fault)) from None


# -- cells and writing ----------------------------------------------------------------------------------------


def value_of(cell: str, kind: str) -> Any:
    """A CSV cell as a value of that type; text that is none is left for the model to name as a fault."""
    try:
        match kind:
            case "integer" | "counter" if _INTEGER.match(cell):
                return int(cell)
            case "number" if _NUMBER.match(cell):
                return int(cell) if _INTEGER.match(cell) else float(cell)
            case "boolean":
                return _WORDS.get(cell.lower(), cell)
            case "json" | "set" | "array":
                return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    return cell


def cell_of(value: Any) -> object:
    """What `value_of` reads back, as `csv.writer` takes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def csv_line(cells: Iterable[object]) -> bytes:
    """One line of CSV."""
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def json_text(record: object) -> bytes:
    """A value as JSON on one line."""
    return msgspec.json.encode(record)
