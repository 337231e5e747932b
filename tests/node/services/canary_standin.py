"""A worker for tests of the canary: it does what an update tells it to. Run as a module, as the worker is.

`die` ends it, `kill` as the system would, `hang` keeps it busy for ever, `stop` has it stopped. `die 2 <file>` does so
twice, for all workers together; the file holds the process id of each of them, a line each.
"""

import os
import signal
import sys
from pathlib import Path

from node.services.canary_worker import limit_cpu
from protocol.encoding import decode


def main() -> None:
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(4)) == 4:
        _, _, _, updates = decode(asked.read(int.from_bytes(head, "big")))
        limit_cpu(float(sys.argv[1]) if updates else 0.0)
        for update in updates:
            word, *rest = update.decode().split(" ", 2)
            if not rest or _is_due(int(rest[0]), Path(rest[1])):
                _do(word)
        answers.write(b"\x01")
        answers.flush()


def _is_due(times: int, done: Path) -> bool:
    with done.open("a+") as file:
        file.seek(0)
        if len(file.readlines()) >= times:
            return False
        file.write(f"{os.getpid()}\n")
    return True


def _do(word: str) -> None:
    match word:
        case "die":
            os.abort()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            while True:
                pass


if __name__ == "__main__":
    main()
