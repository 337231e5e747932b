"""The process in which updates from others are merged for the first time. Whatever happens to it, happens to it alone.

Room: a loop over standard input and output, run as `python -m node.services.canary_worker`. It is told of one
collaborative field at a time, merges, reads and encodes it as a node would, and says when it has done so. It keeps
nothing from one field to the next. What it may spend on one is CPU time, which does not pass while it is stopped,
swapped out or asleep, and the system ends it when that is spent: the library does not let the interpreter look.

    argument  the seconds of CPU time for one field
    asked     size u32, CBOR [is text, field, contents, [update …]]
    answered  one byte: 1 once all of it was done, be it with an error of the library
"""

import contextlib
import resource
import signal
import sys
from typing import BinaryIO

from protocol.encoding import decode
from protocol.errors import ProtocolError, Unmergeable
from protocol.merging import YjsContents

MEMORY_MAX_BYTES = 2 << 30
_DONE = b"\x01"


def serve(asked: BinaryIO, answers: BinaryIO, cpu_max_s: float = 0.0) -> None:
    """Until the other side closes. With 0 seconds there is no limit."""
    while len(head := asked.read(4)) == 4:
        with contextlib.suppress(Unmergeable, ProtocolError):  # a node meets these as well, and lives
            _merge(asked.read(int.from_bytes(head, "big")), cpu_max_s)
        answers.write(_DONE)
        answers.flush()


def limit_cpu(cpu_max_s: float) -> None:
    """From now on this process may spend so much, all its threads together; SIGPROF ends it then. 0 lifts the limit.

    A timer and not RLIMIT_CPU, which counts from the start of the process, in whole seconds.
    """
    signal.setitimer(signal.ITIMER_PROF, cpu_max_s)


def _merge(data: bytes, cpu_max_s: float) -> None:
    is_text, field, contents, updates = decode(data)
    limit_cpu(cpu_max_s if updates else 0.0)  # without any, only the library is to be loaded
    merged = YjsContents(field, contents, is_text=is_text)
    for update in updates:
        merged.merge(update)
        merged.shown()
    YjsContents(field, merged.encode(), is_text=is_text).shown()


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # a limit that is lower already, or a system without
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer, float(sys.argv[1]))


if __name__ == "__main__":
    main()
