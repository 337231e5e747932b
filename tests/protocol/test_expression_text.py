"""Expressions as text: what is read, what is refused, and that writing and reading are one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ExpressionFault
from protocol.expression_text import (
    DEPTH_MAX,
    NODES_MAX,
    TEXT_SIZE_MAX,
    Binary,
    Literal,
    Name,
    Node,
    names_of,
    parse,
    write,
)
from tests.protocol.expression_strategies import SCRAPS, TREES


@given(TREES)
def test_what_is_written_is_read_back_as_the_same_tree(tree: Node) -> None:
    text = write(tree)
    try:
        assert parse(text) == tree
    except ExpressionFault as fault:
        assert "at most" in fault.what  # a tree beyond the limits
    else:
        assert write(parse(text)) == text


@given(st.text(max_size=60) | SCRAPS)
def test_any_text_is_an_expression_or_a_fault_with_its_place(text: str) -> None:
    try:
        tree = parse(text)
    except ExpressionFault as fault:
        assert 0 <= fault.at <= len(text)
    else:
        assert parse(write(tree)) == tree


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a||b&&c", "a || b && c"),
        ("(a||b)&&c", "(a || b) && c"),
        ("a-b-c", "a - b - c"),
        ("a-(b-c)", "a - (b - c)"),
        ("a ? b : c ? d : e", "a ? b : c ? d : e"),
        ("(a ? b : c) ? d : e", "(a ? b : c) ? d : e"),
        ("!(a == b)", "!(a == b)"),
        ("-(1)", "-(1)"),
        ("- 1 - -a", "-1 - -a"),
        ("'it''s'" + "", None),
        ("record.tags[0].size() > 1.50", "record.tags[0].size() > 1.5"),
        ("tags . all ( t , t in ['x',\"y\"] )", 'tags.all(t, t in ["x", "y"])'),
        ("'\\u00e4\\n'", '"ä\\n"'),
    ],
)
def test_there_is_one_form(text: str, written: str | None) -> None:
    if written is None:
        with pytest.raises(ExpressionFault):
            parse(text)
    else:
        assert write(parse(text)) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at 1: a value is expected, not the end"),
        ("a <", "at 4: a value is expected, not the end"),
        ("1 < 2 < 3", "at 7: the end is expected, not '<'"),
        ("a.b.", "at 5: a name is expected, not the end"),
        ("size(a", "at 7: , is expected, not the end"),
        ("a = 1", "at 3: there is no meaning for '='"),
        ("a && 'x", "at 6: a string has no end on its line"),
        ("9223372036854775808", "at 1: an integer must fit in 64 bits"),
        ("1e999", "at 1: a number must be finite"),
        ("'\\x'", "at 1: there is no escape '\\\\x' in strings"),
        ("'\\ud800'", "at 1: a string must be valid Unicode"),
        ("a in in", "at 6: a value is expected, not 'in'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionFault) as raised:
        parse(text)
    assert str(raised.value) == said


def test_size_depth_and_parts_are_bounded() -> None:
    assert parse("-9223372036854775808") == Literal(-(2**63))
    with pytest.raises(ExpressionFault, match=f"at most {TEXT_SIZE_MAX} characters"):
        parse(" " * (TEXT_SIZE_MAX + 1))
    for deep in ("(" * 2_000, "!" * 2_000, "[" * 2_000, "a[" * 1_000, "-" * 2_000):
        with pytest.raises(ExpressionFault, match=f"nested at most {DEPTH_MAX} deep"):
            parse(deep)
    with pytest.raises(ExpressionFault, match=f"at most {NODES_MAX} parts"):
        parse("+".join("a" * 900))
    with pytest.raises(ExpressionFault, match=f"at most {NODES_MAX} parts"):
        parse("a" + ".a" * 900)


def test_names_that_a_quantifier_binds_are_not_free() -> None:
    assert names_of(parse("tags.all(t, t in wanted) && t")) == ["tags", "wanted", "t"]
    assert names_of(Binary("+", Name("b"), Name("a"))) == ["b", "a"]
