from hypothesis import given
from hypothesis import strategies as st

from protocol.vector import VersionVector

vectors = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 3)).map(VersionVector)


@given(vectors, vectors)
def test_comparing_is_comparing_author_by_author(one: VersionVector[str], other: VersionVector[str]) -> None:
    sides = {(one[a] > other[a]) - (one[a] < other[a]) for a in "abc"} - {0}
    assert one.compare(other) == (None if len(sides) == 2 else next(iter(sides), 0))
    assert (one.compare(other) == 0) == (one == other)
    reverse = other.compare(one)
    assert one.compare(other) == (None if reverse is None else -reverse)


@given(vectors, vectors, vectors)
def test_merging_is_the_least_upper_bound(
    one: VersionVector[str], other: VersionVector[str], third: VersionVector[str]
) -> None:
    merged = one.merged(other)
    assert merged == other.merged(one)
    assert merged.merged(third) == one.merged(other.merged(third))
    assert merged.compare(one) in (0, 1) and merged.compare(other) in (0, 1)
    assert one.merged(one) == one
    if third.compare(one) in (0, 1) and third.compare(other) in (0, 1):
        assert third.compare(merged) in (0, 1)


@given(vectors, vectors)
def test_what_is_missing_makes_up_the_difference(one: VersionVector[str], other: VersionVector[str]) -> None:
    missing = one.missing_from(other)
    assert all(after == other[a] < until == one[a] for a, (after, until) in missing.items())
    assert other.merged(VersionVector({a: until for a, (_, until) in missing.items()})) == one.merged(other)
    assert (not missing) == (one.compare(other) in (0, -1))


@given(vectors, st.sampled_from(["a", "b"]), st.integers(0, 5))
def test_advancing_never_goes_back(vector: VersionVector[str], author: str, seq: int) -> None:
    advanced = vector.advanced(author, seq)
    assert advanced[author] == max(seq, vector[author])
    assert advanced.compare(vector) in (0, 1)


def test_an_author_of_whom_nothing_is_known_is_not_in_a_vector() -> None:
    vector = VersionVector({"b": 2, "a": 1, "c": 0})
    assert list(vector) == [("a", 1), ("b", 2)]
    assert (len(vector), vector["c"], vector["nobody"]) == (2, 0, 0)
    assert vector == VersionVector([("a", 1), ("b", 2)])
    assert hash(vector) == hash(VersionVector({"a": 1, "b": 2}))
    assert vector != {"a": 1, "b": 2}
