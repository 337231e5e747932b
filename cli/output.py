"""How commands print: text for people, JSON with a schema number for programs.

Room: standard output and how data looks there. Text that came from elsewhere never reaches a terminal raw: a
stored name could hold escape sequences.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import click

PIPE_COLUMNS = 120  # the widest of our tables takes 100
SCHEMA = 1
"""Of every `--json`: rises when a key changes its meaning or goes; new keys do not raise it."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print `document` as one JSON object that opens with `schema`."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps({"schema": SCHEMA, **document}, ensure_ascii=False, indent=indent, default=str))


def printable(value: object) -> str:
    """`value` as text for a terminal: control and format characters are shown, not obeyed."""
    text = value if isinstance(value, str) else "" if value is None else _as_text(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "" if not value else json.dumps(value, ensure_ascii=False)
    return str(value)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print `name  value` lines, values aligned."""
    rows = [(name, printable(value)) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their column names; numbers to the right, the rest to the left."""
    rows = list(rows)
    texts = [[printable(value) for value in row] for row in rows]
    heads = [printable(column) for column in columns]
    widths = [max([width(head), *(width(row[i]) for row in texts)]) for i, head in enumerate(heads)]
    right = [
        bool(rows) and all(row[i] is None or _is_number(row[i]) for row in rows) for i in range(len(heads))
    ]

    def line(cells: Sequence[str]) -> str:
        parts: list[str] = []
        for cell, size, to_right in zip(cells, widths, right, strict=True):
            space = " " * (size - width(cell))
            parts.append(space + cell if to_right else cell + space)
        return "  ".join(parts).rstrip()

    click.echo(line(heads))
    click.echo("  ".join("-" * size for size in widths))
    for row in texts:
        click.echo(line(row))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def width(text: str) -> int:
    """How many terminal columns `text` takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def piped_width(stream: TextIO) -> int | None:
    """For a rich console: a width that cuts no figure off where `stream` is no terminal, else its own."""
    return None if stream.isatty() else PIPE_COLUMNS


def counted(count: int, noun: str) -> str:
    """`count` with its noun, which takes an s unless there is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count_bytes: int) -> str:
    """`count_bytes` in a unit a person reads."""
    amount = float(count_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """`seconds` in the two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
