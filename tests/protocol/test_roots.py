"""The hash tree over heads: equal exactly where the heads are, whatever the order they came in."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import Author
from protocol.roots import EMPTY, LEAF_HEADS_MAX, HeadTree, Path, root_over

Heads = dict[int, tuple[int, bytes]]
few_heads = st.dictionaries(
    st.integers(0, 5), st.tuples(st.integers(1, 3), st.sampled_from([b"x" * 32, b"y" * 32]))
)
many_heads = st.dictionaries(
    st.integers(0, 400), st.tuples(st.integers(1, 9), st.just(b"x" * 32)), max_size=200
)


def author(number: int) -> Author:
    return Author(number.to_bytes(40, "big"))


def tree(heads: Heads) -> HeadTree:
    return HeadTree((author(number), seq, digest) for number, (seq, digest) in heads.items())


@given(ours=few_heads, theirs=few_heads)
def test_roots_are_equal_exactly_when_the_heads_are(ours: Heads, theirs: Heads) -> None:
    assert (tree(ours).root == tree(theirs).root) == (ours == theirs)


@given(heads=many_heads, data=st.data())
def test_the_root_does_not_depend_on_the_order_nor_on_what_was_there_before(
    heads: Heads, data: st.DataObject
) -> None:
    changed = HeadTree()
    for number in data.draw(st.permutations(sorted(heads))):
        changed.update(author(number), 1, b"old" * 10 + b"..")
        if data.draw(st.booleans()):
            assert changed.root != EMPTY
    for number in data.draw(st.permutations(sorted(heads))):
        changed.update(author(number), *heads[number])
    assert changed.root == tree(heads).root
    assert len(changed) == len(heads)
    assert {a: (seq, digest) for a, seq, digest in changed.heads()} == {
        author(n): head for n, head in heads.items()
    }


@given(ours=many_heads, changes=many_heads)
def test_a_walk_over_differing_branches_finds_every_difference(ours: Heads, changes: Heads) -> None:
    theirs = {**ours, **dict(list(changes.items())[:3])}
    a, b = tree(ours), tree(theirs)
    differing = {author(n) for n in theirs if ours.get(n) != theirs[n]}
    paths: list[Path] = [()] if a.root != b.root else []
    found: set[Author] = set()
    told = 0
    while paths:
        path = paths.pop()
        left, right = a.branches(path), b.branches(path)
        if left is None or right is None:
            heads = set(a.heads(path)) ^ set(b.heads(path))
            told += 1
            found |= {head[0] for head in heads}
        else:
            paths += [(*path, way) for way in range(16) if left[way] != right[way]]
    assert found == differing
    assert told <= max(1, len(differing)) * 4


def test_an_empty_tree_has_the_empty_root_and_empty_spaces_make_no_difference() -> None:
    assert HeadTree().root == EMPTY
    root = tree({1: (1, b"x" * 32)}).root
    assert root_over({b"a" * 16: root}) == root_over({b"a" * 16: root, b"b" * 16: EMPTY})
    assert root_over({b"a" * 16: root}) != root_over({b"b" * 16: root})


def test_one_change_costs_one_path() -> None:
    held = tree(dict.fromkeys(range(5000), (1, b"x" * 32)))
    before = held.branches()
    held.update(author(77), 2, b"x" * 32)
    after = held.branches()
    assert before is not None and after is not None
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_a_place_splits_when_it_holds_more_than_a_leaf_may() -> None:
    heads = dict.fromkeys(range(LEAF_HEADS_MAX), (1, b"x" * 32))
    assert tree(heads).branches() is None
    assert tree({**heads, LEAF_HEADS_MAX: (1, b"x" * 32)}).branches() is not None
