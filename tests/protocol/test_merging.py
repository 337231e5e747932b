import subprocess
import sys
from typing import Any

import pytest

from protocol.encoding import encode
from protocol.errors import Unmergeable
from protocol.merging import YjsContents
from protocol.yjs_update import Struct, Update, encode_update

HELLO = encode_update(Update(7, (Struct(0, 5, None, None, "hello"),), ()), "f")
LIST = encode_update(Update(7, (Struct(0, 2, None, None, [encode(1), encode([2.0])]),), ()), "f")


def test_contents_are_what_was_merged_and_go_on_from_what_was_encoded() -> None:
    text = YjsContents("f", b"", is_text=True)
    assert text.shown() == ""
    text.merge(HELLO)
    again = YjsContents("f", text.encode(), is_text=True)
    again.merge(encode_update(Update(8, (Struct(0, 1, (7, 4), None, "!"),), ((7, ((0, 1),)),)), "f"))
    assert (text.shown(), again.shown()) == ("hello", "ello!")
    items = YjsContents("f", b"", is_text=False)
    items.merge(LIST)
    shown = YjsContents("f", items.encode(), is_text=False).shown()
    assert shown == [1, [2.0]] and type(shown[0]) is int and type(shown[1][0]) is float


def test_what_the_library_cannot_read_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unmergeable):
        YjsContents("f", b"\xff", is_text=True)
    contents = YjsContents("f", b"", is_text=True)
    with pytest.raises(Unmergeable):
        contents.merge(b"\x01\xff")
    contents.merge(LIST)
    for use in (contents.shown, contents.encode):
        try:
            use()
        except Unmergeable:
            pass


class _Panic(BaseException):
    """What Rust's panics are in Python: no `Exception`."""


@pytest.mark.parametrize("error", [_Panic(), MemoryError(), RuntimeError()])
def test_a_panic_of_the_library_stops_here(error: BaseException) -> None:
    contents = YjsContents("f", HELLO, is_text=True)
    contents._doc = _Raising(error)
    with pytest.raises(Unmergeable):
        contents.merge(HELLO)
    with pytest.raises(Unmergeable):
        contents.encode()


def test_what_ends_the_program_is_let_through() -> None:
    contents = YjsContents("f", HELLO, is_text=True)
    contents._doc = _Raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        contents.merge(HELLO)


class _Raising:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def test_the_library_is_loaded_by_the_first_field_and_not_before() -> None:
    program = (
        "import sys, protocol.document, protocol.planning, protocol.integrate; assert 'pycrdt' not in sys.modules;"
        "protocol.merging.YjsContents('f', b'', is_text=True); assert 'pycrdt' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
