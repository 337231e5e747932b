"""The contents of a collaborative field, merged by pycrdt (the Rust library of Yjs).

Room: the only place that knows pycrdt, which is loaded when the first such field
is met. It is handed updates that have passed `walk` and nothing else. What it
does beyond its contract (panics are no `Exception` in Python) stops here.
"""

from typing import Any

from protocol.encoding import decode
from protocol.errors import Unmergeable

_READER_ID = 0  # of a document that only takes in what others wrote


class YjsContents:
    """One field in a Yjs document of its own: an update cannot reach from a field into another."""

    def __init__(self, field: str, state: bytes, *, is_text: bool) -> None:
        """`state` is what `encode` gave, or empty. Raises `Unmergeable`, as every method does."""
        try:
            from pycrdt import Array, Doc, Text

            self._is_text = is_text
            self._doc: Any = Doc(client_id=_READER_ID, allow_multithreading=True)
            self._root: Any = self._doc.get(field, type=Text if is_text else Array)
            if state:
                self._doc.apply_update(state)
        except BaseException as error:
            raise _as_unmergeable(error) from error

    def merge(self, data: bytes) -> None:
        try:
            self._doc.apply_update(data)
        except BaseException as error:
            raise _as_unmergeable(error) from error

    def shown(self) -> Any:
        try:
            return str(self._root) if self._is_text else [decode(bytes(element)) for element in self._root]
        except BaseException as error:
            raise _as_unmergeable(error) from error

    def encode(self) -> bytes:
        try:
            return bytes(self._doc.get_update())
        except BaseException as error:
            raise _as_unmergeable(error) from error


def _as_unmergeable(error: BaseException) -> Unmergeable:
    """What is to be raised in place of a library's error; those that are no affair of its are raised."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    return Unmergeable(f"the contents of a field cannot be merged: {type(error).__name__}")
