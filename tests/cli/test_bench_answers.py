import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.bench.answers import Answer, AnswerReader
from cli.bench.errors import BadAnswer

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"a": "\r\n"}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nVary: a\r\n\r\n"
    b"4;name=value\r\nWiki\r\n5\r\npe\r\na\r\n00\r\nTrailer: x\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSING = b"HTTP/1.0 201 Created\r\nCONTENT-LENGTH:2\r\nConnection: close\r\n\r\nok"

STREAMS = [
    (PLAIN, Answer(200, b'{"a": "\r\n"}', True)),
    (CHUNKED, Answer(200, b"Wikipe\r\na", True)),
    (EMPTY, Answer(204, b"", True)),
    (INTERIM + INTERIM + PLAIN, Answer(200, b'{"a": "\r\n"}', True)),
    (CLOSING, Answer(201, b"ok", False)),
]


def feed_all(reader: AnswerReader, pieces: list[bytes]) -> Answer | None:
    answers = [reader.feed(piece) for piece in pieces if piece]
    assert all(answer is None for answer in answers[:-1])
    return answers[-1]


@given(stream=st.sampled_from(STREAMS), cuts=st.sets(st.integers(1, 150), max_size=8))
def test_answers_do_not_depend_on_how_the_bytes_were_cut(
    stream: tuple[bytes, Answer], cuts: set[int]
) -> None:
    data, expected = stream
    ends = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert feed_all(AnswerReader(), pieces) == expected


def test_one_byte_at_a_time_is_enough() -> None:
    for data, expected in STREAMS:
        assert feed_all(AnswerReader(), [data[at : at + 1] for at in range(len(data))]) == expected


def test_a_reader_reads_one_answer_after_another() -> None:
    reader = AnswerReader()
    for _ in range(3):
        for data, expected in STREAMS:
            assert feed_all(reader, [data[:30], data[30:]]) == expected


def test_many_interim_answers_are_passed_over_without_recursion() -> None:
    assert AnswerReader().feed(INTERIM * 5_000 + PLAIN) == STREAMS[0][1]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: neither length nor chunks\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        PLAIN + b"x",
        PLAIN + PLAIN,
        b"x" * 70_000,
        b"",
    ],
)
def test_what_is_no_answer_is_named_as_such(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(data)


@given(start=st.sampled_from([PLAIN[:40], CHUNKED[:60], b"HTTP/1.1 ", b""]), noise=st.binary(max_size=200))
def test_noise_raises_nothing_but_bad_answer(start: bytes, noise: bytes) -> None:
    reader = AnswerReader()
    try:
        for piece in (start, noise):
            reader.feed(piece)
    except BadAnswer:
        pass
