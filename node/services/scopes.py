"""What an API key may be used for: a list of words, each of which opens something.

Room: pure checks over words. A scope only narrows: what is left of it is decided by the user's own rights, as
they are at the time. The words:

- `read`: every request that reads (GET, HEAD), and reading the data of every model.
- `write`: every request that changes something, and changing the data of every model.
- `data:MODEL:read`, `data:MODEL:write`: the data of one model, or of all with `*`, and nothing else.
- `admin`: all of these, and what only administrators may do.

No scope opens what belongs to a person who is signed in: passwords, MFA, sessions, API keys.
"""

import re
from collections.abc import Iterable

from node.services.account_rules import REQUIRED, Checked

READ, WRITE, ADMIN = "read", "write", "admin"
SCOPES_MAX = 64
PATTERN = r"^(read|write|admin|data:(\*|[A-Za-z][A-Za-z0-9_-]{0,62}):(read|write))$"

_SCOPE = re.compile(PATTERN, re.ASCII)


class Scopes:
    """Scopes taken apart. Words that are none open nothing: a key may come from a newer peer."""

    __slots__ = ("_data", "is_admin", "reads", "words", "writes")

    def __init__(self, words: Iterable[object]) -> None:
        known = {word for word in words if isinstance(word, str) and _SCOPE.fullmatch(word)}
        self.words = tuple(sorted(known))
        self.is_admin = ADMIN in known
        self.reads = self.is_admin or READ in known
        self.writes = self.is_admin or WRITE in known
        self._data = frozenset(word for word in known if word.startswith("data:"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scopes) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def allow(self, model: str, action: str) -> bool:
        """Whether the data of a model, by its name, may be read (`read`), or changed (any other action)."""
        word = READ if action == READ else WRITE
        if self.reads if word is READ else self.writes:
            return True
        return f"data:{model}:{word}" in self._data or f"data:*:{word}" in self._data

    def allow_method(self, method: str) -> bool:
        """Whether a request that has nothing to do with the data of models may be made."""
        return self.reads if method in ("GET", "HEAD") else self.writes


def check_scopes(value: object) -> Checked:
    """A list of scopes, sorted, without repetitions. (None, what is wrong) for anything else."""
    if value is None or value == []:
        return None, REQUIRED
    if not isinstance(value, list) or len(value) > SCOPES_MAX:
        return None, f"Must be a list of at most {SCOPES_MAX} scopes"
    unknown = [word for word in value if not isinstance(word, str) or not _SCOPE.fullmatch(word)]
    if unknown:
        return None, "Must be among: read, write, admin, data:MODEL:read, data:MODEL:write (MODEL may be *)"
    return sorted(set(value)), None
