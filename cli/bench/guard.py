"""Clears up after a measurement that was killed outright.

Room: a child process, `python -m cli.bench.guard DIR`, told by lines on its standard
input which processes to watch (`+PID`) and which have ended (`-PID`). When the input
closes, for whatever reason, it kills those still watched and removes DIR. Nothing else
may be asked of it; `process.Workspace` is its only caller.
"""

import os
import shutil
import signal
import sys


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        if line[0] == "+":
            watched.add(number)
        else:
            watched.discard(number)
    for number in watched:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
