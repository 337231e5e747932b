"""A worker for tests of the canary: it does what an update tells it to. Run as a module.

`die` ends the process, `hang` keeps it busy for ever, `die once <file>` dies unless the file exists.
"""

import contextlib
import os
import sys
from pathlib import Path

from protocol.encoding import decode


def main() -> None:
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(4)) == 4:
        _, _, _, updates = decode(asked.read(int.from_bytes(head, "big")))
        for update in updates:
            word, *rest = update.decode().split(" ")
            if word == "hang":
                while True:
                    pass
            if word == "die":
                if rest:
                    with contextlib.suppress(FileExistsError):
                        Path(rest[-1]).touch(exist_ok=False)
                        os.abort()
                else:
                    os.abort()
        answers.write(b"\x01")
        answers.flush()


if __name__ == "__main__":
    main()
