"""Trees and texts of expressions, for property tests."""

from typing import Any

from hypothesis import strategies as st

from protocol.expression import FUNCTIONS, METHODS
from protocol.expression_text import (
    KEYWORDS,
    QUANTIFIERS,
    Binary,
    Call,
    Choice,
    Index,
    Listed,
    Literal,
    Member,
    Name,
    Node,
    Quantified,
    Unary,
)
from protocol.schema_field import INTEGER_MAX, INTEGER_MIN

NAMES = st.sampled_from(["a", "b", "c", "record", "user", "now", "tags"])
MEMBERS = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda name: name not in KEYWORDS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LITERALS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(INTEGER_MIN, INTEGER_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(["2024-02-29", "2023-12-31T23:59:00.000Z", "", "ä"]),
)
OPERATORS = ["||", "&&", "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    LITERALS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
WORLDS = st.dictionaries(NAMES, VALUES, max_size=6)


def _call(of: Node | None, name: str, arguments: list[Node]) -> Node:
    return Call(name, of, tuple(arguments))


def _deeper(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    methods = st.sampled_from(sorted(METHODS)) | MEMBERS.filter(lambda name: name not in QUANTIFIERS)
    functions = st.sampled_from(sorted(FUNCTIONS)) | MEMBERS
    few = st.lists(inner, max_size=3)
    return st.one_of(
        st.builds(Member, inner, MEMBERS),
        st.builds(Index, inner, inner),
        st.builds(Listed, few.map(tuple)),
        st.builds(Unary, st.sampled_from("!-"), inner),
        st.builds(Binary, st.sampled_from(OPERATORS), inner, inner),
        st.builds(Choice, inner, inner, inner),
        st.builds(_call, st.none(), functions, few),
        st.builds(_call, inner, methods, few),
        st.builds(Quantified, st.sampled_from(sorted(QUANTIFIERS)), inner, NAMES, inner),
    )


TREES: st.SearchStrategy[Node] = st.recursive(LITERALS.map(Literal) | NAMES.map(Name), _deeper, max_leaves=20)
SCRAPS = st.lists(
    st.sampled_from(
        [
            *OPERATORS,
            *"()[].,?:!",
            "a",
            "record",
            "size",
            "all",
            "true",
            "null",
            "1",
            "2.5",
            "1e9",
            '"x"',
            "'",
            "\\",
            " ",
        ]
    ),
    max_size=30,
).map("".join)
