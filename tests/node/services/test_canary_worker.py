import io

from node.services import canary_worker
from protocol.encoding import encode
from protocol.yjs_update import Struct, Update, encode_update

HELLO = encode_update(Update(7, (Struct(0, 5, None, None, "hello"),), ()), "f")
LIST = encode_update(Update(7, (Struct(0, 1, None, None, [encode({"a": 1})]),), ()), "f")


def served(*asked: object) -> bytes:
    frames = b"".join(len(data).to_bytes(4, "big") + data for data in map(encode, asked))
    answers = io.BytesIO()
    canary_worker.serve(io.BytesIO(frames), answers)
    return answers.getvalue()


def test_each_question_is_answered_once() -> None:
    assert served() == b""
    assert (
        served([True, "f", b"", [HELLO]], [False, "f", LIST, []], [True, "f", HELLO, [b"\xff"]])
        == b"\x01" * 3
    )


def test_a_question_that_cannot_be_read_is_answered_too() -> None:
    answers = io.BytesIO()
    canary_worker.serve(io.BytesIO(len(b"\xff").to_bytes(4, "big") + b"\xff"), answers)
    assert answers.getvalue() == b"\x01"


def test_a_question_that_is_cut_short_ends_it() -> None:
    answers = io.BytesIO()
    canary_worker.serve(io.BytesIO(b"\0\0"), answers)
    assert answers.getvalue() == b""
