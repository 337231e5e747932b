"""The authors that this record was before: a node goes on as another one when its record went back in time.

local "life"  author, hex  -> {}: this record has written as this author
"""

from protocol.ids import Author
from storage.local import LocalReader, LocalWriter

_LIFE = "life"


def note_life(local: LocalWriter, author: Author) -> None:
    """This record goes on as another author than this one."""
    local.put(_LIFE, author.hex(), {})


def lives(local: LocalReader) -> frozenset[Author]:
    """The authors that this record was before."""
    return frozenset(Author(bytes.fromhex(key)) for key, _ in local.scan(_LIFE))


def is_life(local: LocalReader, author: Author) -> bool:
    """Whether this record was this author before."""
    return local.get(_LIFE, author.hex()) is not None
