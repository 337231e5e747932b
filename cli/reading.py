"""Files of records as the command line names them: with faults that name the fix.

Room: from a path that a user gave to `node.services.record_files`, which reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.errors import CliError
from node.services import record_files
from node.services.record_files import Format, Record

__all__ = ["Format", "Record", "Source", "Unreadable", "open_source"]


class Unreadable(CliError):
    """The file does not hold what its format promises."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of records that can be read more than once."""

    file: record_files.Source

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def format(self) -> Format:
        return self.file.format

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        """Each record and where it stands (`line 7`, `record 7`)."""
        try:
            for place, record, model in self.file.rows():
                if model is not None:
                    raise self.fault(place, "it names its model; POST /v1/import takes records of several")
                yield place, record
        except record_files.Unreadable as fault:
            raise Unreadable(fault.message) from None

    def fault(self, place: str, what: str) -> Unreadable:
        return Unreadable(self.file.fault(place, what).message)


def open_source(path: Path, *, name: str | None = None, chosen: Format | None = None) -> Source:
    """`path` with its format: the one chosen, else by the extension, else by what the text opens with."""
    try:
        return Source(record_files.open_source(path, name=name or str(path), chosen=chosen))
    except FileNotFoundError:
        raise CliError(f"{path} does not exist: name a file of records") from None
    except IsADirectoryError:
        raise CliError(f"{path} is a directory: name a file of records") from None
    except record_files.Unreadable as fault:
        raise Unreadable(fault.message) from None
