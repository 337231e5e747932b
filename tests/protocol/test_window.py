import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import body_hash
from protocol.commit import NO_PREVIOUS, Commit, Dep, Header, header_hash, sign_commit, verify_signature
from protocol.encoding import decode, encode
from protocol.errors import BadSignature, LocalMisuse, Malformed, ProtocolError, TooLarge
from protocol.ids import SpaceId
from protocol.limits import (
    BODIES_PER_COMMIT_MAX,
    COMMIT_SIZE_MAX_BYTES,
    RUN_BODIES_MAX,
    RUN_COMMITS_MAX,
    RUN_SKELETON_MAX_BYTES,
    WINDOW_RUNS_MAX,
    WINDOW_SIZE_MAX_BYTES,
)
from protocol.window import Run, decode_run, decode_window, encode_window
from tests.protocol import strategies
from tests.protocol.world import SPACE, author_number, keys_of, without_bodies

PREFIX = b"sixteen bytes..."
DEP = Dep(False, author_number(9), 3, PREFIX)


def chain(node: int, contents: list[list[bytes]], *, space: SpaceId = SPACE, seq: int = 1) -> list[Commit]:
    """Signed commits with these bodies, one after the other."""
    commits: list[Commit] = []
    previous, hlc = NO_PREVIOUS if seq == 1 else b"\1" * 32, 1_000
    for number, bodies in enumerate(contents):
        deps, hashes = (DEP,) if number % 2 else (), tuple(map(body_hash, bodies))
        header = Header(space, author_number(node), seq + number, previous, hlc, deps, hashes)
        commits.append(sign_commit(keys_of(node), header, bodies))
        previous, hlc = commits[-1].hash, hlc + number + 1
    return commits


def unsigned(commits: list[Commit]) -> list[Commit]:
    """As they come out of a run: only the last is signed."""
    return [replace(commit, signature=None) for commit in commits[:-1]] + commits[-1:]


def run_of(node: int, *contents: list[bytes], **more: Any) -> Run:
    return Run(tuple(chain(node, list(contents), **more)))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes of all kinds after the beginning of a body of some document: any other cannot be dropped."""
    return (
        b"\x86\x50"
        + bytes(16)
        + encode("ann")
        + encode("task")
        + encode("one")
        + draw(st.binary(max_size=30))
    )


@st.composite
def runs(draw: st.DrawFn, node: int = 1) -> Run:
    """Runs in which some bodies were dropped."""
    contents = draw(st.lists(st.lists(bodies(), max_size=3), min_size=1, max_size=4))
    seq = draw(st.sampled_from([1, 2, 700]))
    return Run(
        tuple(
            without_bodies(c, [i for i in range(len(c.bodies)) if draw(st.integers(0, 3)) == 0])
            for c in chain(node, contents, seq=seq)
        )
    )


# -- codec ---------------------------------------------------------------------------------------------------


@given(runs())
def test_a_run_decodes_to_its_commits_and_encodes_to_the_same_bytes(run: Run) -> None:
    data = run.encode()
    decoded = decode_run(data)
    assert list(decoded.commits) == unsigned(list(run.commits))
    assert decoded.encode() == data


@given(runs(1), runs(2))
def test_a_window_decodes_to_its_runs(one: Run, other: Run) -> None:
    data = encode_window([one, other])
    assert [run.encode() for run in decode_window(data)] == [one.encode(), other.encode()]
    assert encode_window(decode_window(data)) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_window_or_a_protocol_error(data: bytes) -> None:
    for decoder in (decode_run, decode_window):
        with pytest.raises(ProtocolError):
            decoder(data)


@given(runs(), st.data())
def test_odd_structures_are_a_run_or_a_protocol_error(run: Run, data: st.DataObject) -> None:
    skeleton, *bodies = decode(run.encode())
    odd_skeleton = encode(data.draw(strategies.mangled(decode(skeleton))))
    odd_run = encode(data.draw(strategies.mangled([skeleton, *bodies])))
    for odd in (encode([odd_skeleton, *bodies]), odd_run):
        try:
            decoded = decode_run(odd)
        except ProtocolError:
            continue
        assert decoded.encode() == odd
        last = decoded.commits[-1]
        assert last.signature is not None
        assert verify_signature(last.header.author, last.hash, last.signature)


@given(runs(), st.data())
def test_a_flipped_byte_anywhere_in_a_run_is_detected(run: Run, data: st.DataObject) -> None:
    flipped = bytearray(run.encode())
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        decode_run(bytes(flipped))


@given(runs())
def test_the_commits_of_a_run_continue_one_another(run: Run) -> None:
    before = None
    for commit in decode_run(run.encode()).commits:
        assert commit.hash == header_hash(commit.header.encode())
        if before is not None:
            assert commit.header.previous == before.hash
            assert commit.header.seq == before.header.seq + 1
        before = commit


# -- rules ---------------------------------------------------------------------------------------------------


def test_a_part_of_a_run_is_a_run_only_with_a_signature_of_its_own() -> None:
    commits = chain(1, [[b"a"], [b"b"], [b"c"]])
    for start, stop in ((0, 1), (1, 3), (2, 3)):
        part = Run(tuple(commits[start:stop]))
        assert list(decode_run(part.encode()).commits) == unsigned(commits[start:stop])
    with pytest.raises(LocalMisuse):
        Run(tuple(unsigned(commits)[:2])).encode()
    with pytest.raises(LocalMisuse):
        Run(()).encode()


def test_a_run_signed_by_another_is_refused() -> None:
    stolen = replace(run_of(1, [b"a"]).commits[0], signature=keys_of(2).sign(b"anything"))
    with pytest.raises(BadSignature):
        decode_run(Run((stolen,)).encode())


def test_a_body_that_no_commit_names_or_that_is_not_there_is_malformed() -> None:
    skeleton, *bodies = decode(run_of(1, [b"a", b"b"]).encode())
    for odd in ([skeleton, *bodies, b"c"], [skeleton, *bodies[:1]], [skeleton]):
        with pytest.raises(Malformed):
            decode_run(encode(odd))


@pytest.mark.parametrize("part", [False, 0.0, 1, -1, None, "", [b"a"]], ids=repr)
def test_parts_of_entries_that_are_malformed(part: Any) -> None:
    skeleton, *bodies = decode(run_of(1, [b"a"]).encode())
    parts = decode(skeleton)
    parts[4][0][2][0] = part
    with pytest.raises(Malformed):
        decode_run(encode([encode(parts), *bodies]))


@pytest.mark.parametrize("step", [0, -1, True, 1.0, 2**64, None], ids=repr)
def test_hlc_steps_that_are_malformed(step: Any) -> None:
    skeleton, *bodies = decode(run_of(1, [b"a"], [b"b"]).encode())
    for entry in (0, 1):
        parts = decode(skeleton)
        parts[4][entry][0] = step
        with pytest.raises(Malformed):
            decode_run(encode([encode(parts), *bodies]))


@pytest.mark.parametrize("space", [b"", SPACE + b"\0"])
def test_a_run_whose_headers_could_not_be_is_malformed(space: bytes) -> None:
    skeleton, *bodies = decode(run_of(1, [b"a"]).encode())
    parts = decode(skeleton)
    for index, odd in ((0, space), (2, 2), (2, 0), (2, True), (3, b"\1" * 32)):
        odd_parts = [*parts[:index], odd, *parts[index + 1 :]]
        with pytest.raises(Malformed):
            decode_run(encode([encode(odd_parts), *bodies]))


def test_a_window_has_one_run_of_each_author_and_space() -> None:
    one, later = run_of(1, [b"a"]), run_of(1, [b"b"], seq=5)
    elsewhere = run_of(1, [b"a"], space=SpaceId(b"another space..."))
    assert len(decode_window(encode_window([one, elsewhere, run_of(2, [b"a"])]))) == 3
    for twice in ([one, one], [one, later]):
        with pytest.raises(Malformed):
            decode_window(encode_window(twice))
    with pytest.raises(Malformed):
        decode_window(encode([]))


# -- limits --------------------------------------------------------------------------------------------------


def test_the_number_of_commits_in_a_run_is_limited() -> None:
    # An author whose commits are all alike but for their place; only the last is looked at for its signature.
    commits, previous = list[Commit](), NO_PREVIOUS
    for seq in range(1, RUN_COMMITS_MAX + 2):
        header = Header(SPACE, author_number(1), seq, previous, seq, (), ())
        commits.append(Commit(header, header.encode(), header_hash(header.encode()), (), None))
        previous = commits[-1].hash
    above = [*commits[:-1], sign_commit(keys_of(1), commits[-1].header, [])]
    at_most = [*commits[:-2], sign_commit(keys_of(1), commits[-2].header, [])]
    assert len(decode_run(Run(tuple(at_most)).encode()).commits) == RUN_COMMITS_MAX
    with pytest.raises(TooLarge):
        Run(tuple(above)).encode()
    skeleton = decode(decode(Run(tuple(at_most)).encode())[0])
    skeleton[4].append([1, [], []])
    with pytest.raises(TooLarge):
        decode_run(encode([encode(skeleton)]))


def test_the_size_of_a_window_is_limited_unless_it_carries_one_commit() -> None:
    half = bytes(WINDOW_SIZE_MAX_BYTES // 2)
    lone = run_of(1, [half, half])
    assert decode_window(encode_window([lone]))[0].commits == lone.commits
    for too_large in ([run_of(1, [half], [half])], [run_of(1, [half]), run_of(2, [half])]):
        with pytest.raises(TooLarge):
            encode_window(too_large)
        with pytest.raises(TooLarge):
            decode_window(encode([run.encode() for run in too_large]))


def test_the_numbers_of_runs_and_bodies_are_limited() -> None:
    empty = [b""] * (RUN_BODIES_MAX // 8)
    at_most = run_of(1, *[empty] * 8)
    assert len(decode_run(at_most.encode()).commits) == 8
    above = run_of(1, *[empty] * 8, [b""])
    with pytest.raises(TooLarge):
        above.encode()
    skeleton, *bodies = decode(at_most.encode())
    with pytest.raises(TooLarge):
        decode_run(encode([skeleton, *bodies, b""]))
    run = run_of(1, [b"a"])
    for window in (lambda: encode_window([run] * (WINDOW_RUNS_MAX + 1)),
                   lambda: decode_window(encode([run.encode()] * (WINDOW_RUNS_MAX + 1)))):  # fmt: skip
        with pytest.raises(TooLarge):
            window()


def test_the_largest_commit_travels_alone() -> None:
    body = bytes(COMMIT_SIZE_MAX_BYTES // 8)
    lone = run_of(1, [body] * 8 + [b""] * (BODIES_PER_COMMIT_MAX - 8))
    assert decode_window(encode_window([lone]))[0].commits == lone.commits
    above = run_of(1, [body] * 8 + [b"x"])
    with pytest.raises(TooLarge):
        decode_run(above.encode())
    for decoder in (decode_run, decode_window):
        with pytest.raises(TooLarge):
            decoder(bytes(COMMIT_SIZE_MAX_BYTES + 2 * RUN_SKELETON_MAX_BYTES + 1))


def test_small_bytes_of_a_stranger_never_become_much_memory() -> None:
    size = 4 << 20
    many = b"\x9a" + size.to_bytes(4, "big")
    hostile = [
        many + b"\x80" * size,
        many + b"\xa0" * size,
        many + b"\x40" * size,
        encode([many + b"\x80" * (size - 20)]),
        encode(
            [
                b"\x9a"
                + (RUN_SKELETON_MAX_BYTES - 5).to_bytes(4, "big")
                + b"\xa0" * (RUN_SKELETON_MAX_BYTES - 5)
            ]
        ),
    ]
    for data in hostile:
        for decoder in (decode_run, decode_window):
            tracemalloc.start()
            with pytest.raises(ProtocolError):
                decoder(data)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 80 << 20
