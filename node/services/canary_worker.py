"""The process in which updates from others are merged for the first time. Whatever happens to it, happens to it alone.

Room: a loop over standard input and output, run as `python -m node.services.canary_worker`. It is told of one
collaborative field at a time, merges, reads and encodes it as a node would, and says when it has done so; the one
who asks watches the clock. It keeps nothing from one field to the next.

    asked     size u32, CBOR [is text, field, contents, [update …]]
    answered  one byte: 1 once all of it was done, be it with an error of the library
"""

import contextlib
import resource
import sys
from typing import BinaryIO

from protocol.encoding import decode
from protocol.errors import ProtocolError, Unmergeable
from protocol.merging import YjsContents

MEMORY_MAX_BYTES = 2 << 30
_DONE = b"\x01"


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Until the other side closes."""
    while len(head := asked.read(4)) == 4:
        with contextlib.suppress(Unmergeable, ProtocolError):  # a node meets these as well, and lives
            _merge(asked.read(int.from_bytes(head, "big")))
        answers.write(_DONE)
        answers.flush()


def _merge(data: bytes) -> None:
    is_text, field, contents, updates = decode(data)
    merged = YjsContents(field, contents, is_text=is_text)
    for update in updates:
        merged.merge(update)
        merged.shown()
    YjsContents(field, merged.encode(), is_text=is_text).shown()


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # a limit that is lower already, or a system without
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
