"""Each limit of a document: kept at the limit, told one beyond it, and found in a moment."""

from collections.abc import Callable

import pytest
from graphql import GraphQLError, parse

from node.api.civicbase.graphql import limits
from node.api.civicbase.graphql.limits import check_cost, check_variables, cost, measure


def nested(depth: int) -> str:
    return "{" + "a{" * (depth - 1) + "a" + "}" * depth


def aliased(count: int) -> str:
    return "{" + " ".join(f"a{n}: a" for n in range(count)) + " }"


def many(count: int) -> str:
    parts = [
        " ".join(f"b{n}" for n in range(count // 2 - 1)),
        " ".join(f"c{n}" for n in range(count - count // 2 - 1)),
    ]
    return "{ a { " + parts[0] + " } d { " + parts[1] + " } }"


@pytest.mark.parametrize(
    ("make", "most", "word"),
    [
        (nested, limits.DEPTH_MAX, "levels"),
        (lambda n: "{ a { " + " ".join(f"x{i}: a" for i in range(n)) + " } }", limits.ALIASES_MAX, "aliases"),
        (lambda n: "{" + " ".join(f"a{i}" for i in range(n)) + " }", limits.ROOT_FIELDS_MAX, "root fields"),
        (many, limits.SELECTIONS_MAX, "fields and spreads"),
        (lambda n: "{ a {" + " b" * (n + 1) + " } }", limits.REPEATS_MAX, "repeated fields"),
        (lambda n: "{ a { b" + " ... { b }" * n + " } }", limits.REPEATS_MAX, "repeated fields"),
        (lambda n: "{ a { ... { b { c" + " c" * n + " } } } }", limits.REPEATS_MAX, "repeated fields"),
        (
            lambda n: "{" + " ...F" * n + " } fragment F on A { a }",
            min(limits.SPREADS_MAX, limits.ROOT_FIELDS_MAX),
            "root fields|spreads of fragments",
        ),
        (
            lambda n: "query A { a } " + " ".join(f"query B{i} {{ a }}" for i in range(n - 1)),
            limits.OPERATIONS_MAX,
            "operations",
        ),
    ],
)
def test_a_limit_is_kept(make: Callable[[int], str], most: int, word: str) -> None:
    measure(parse(make(most)))
    with pytest.raises(GraphQLError, match=word):
        measure(parse(make(most + 1)))


def test_depth_and_aliases_count_through_fragments() -> None:
    deep = "{ a { ...F } } fragment F on A " + nested(limits.DEPTH_MAX - 1)
    measure(parse(deep))
    with pytest.raises(GraphQLError, match="levels"):
        measure(parse("{ a { b { ...F } } } fragment F on A " + nested(limits.DEPTH_MAX - 1)))
    with pytest.raises(GraphQLError, match="aliases"):
        measure(parse("{ a { ...F ...F } } fragment F on A " + aliased(limits.ALIASES_MAX // 2 + 1)))


def test_what_fragments_add_up_to_is_found_without_adding_it_up() -> None:
    """Each fragment doubles the one before: a document of some hundred tokens that stands for 2^40 fields."""
    for leaf in ("a", "...Unknown"):
        chain = " ".join(f"fragment F{n} on A {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
        with pytest.raises(GraphQLError, match="fields and spreads"):
            measure(parse(f"{{ ...F0 }} {chain} fragment F40 on A {{ {leaf} }}"))


def test_fragments_may_not_hold_themselves_nor_nest_without_end() -> None:
    with pytest.raises(GraphQLError, match="within itself"):
        measure(parse("{ ...F } fragment F on A { a ...G } fragment G on A { ...F }"))
    chain = " ".join(f"fragment F{n} on A {{ ...F{n + 1} }}" for n in range(400))
    with pytest.raises(GraphQLError, match=r"fields and spreads|nested too deeply"):
        measure(parse(f"{{ ...F0 }} {chain} fragment F400 on A {{ a }}"))


def test_the_schema_may_be_asked_for_more_deeply_and_nothing_beside_it() -> None:
    deep = "{ __schema " + nested(limits.INTROSPECTION_DEPTH_MAX - 1) + " }"
    (operation,) = measure(parse(deep))
    assert operation.introspects
    with pytest.raises(GraphQLError, match="levels"):
        measure(parse("{ __schema { a } " + nested(limits.DEPTH_MAX + 1)[1:]))
    (operation,) = measure(parse("{ __typename a { __typename } }"))
    assert not operation.introspects


def test_cost_multiplies_pages_by_what_is_selected_below() -> None:
    (operation,) = measure(
        parse(
            "query ($n: Int = 7) { a(per_page: 50) { b { c } d { e } } f { g } h(per_page: $n) { i } one { k { l } } }"
        )
    )
    lists = ("a", "f", "h")
    assert cost(operation, lists, {}) == 50 * 3 + 20 + 7 + 2
    assert cost(operation, lists, {"n": 100}) == 50 * 3 + 20 + 100 + 2
    assert cost(operation, lists, {"n": 10**9}) == 50 * 3 + 20 + 100 + 2  # refused, later


def test_what_reads_too_much_is_refused() -> None:
    def asks(count: int) -> str:
        below = "b { " * 4 + "c" + " }" * 4
        return "{" + " ".join(f"a{n}: a(per_page: 100) {{ {below} }}" for n in range(count)) + "}"

    at_most = limits.COST_MAX // (100 * 5)
    (operation,) = measure(parse(asks(at_most)))
    check_cost(operation, ["a"], {})
    (operation,) = measure(parse(asks(at_most + 1)))
    with pytest.raises(GraphQLError, match="records"):
        check_cost(operation, ["a"], {})


def test_variables_hold_so_many_values_at_most() -> None:
    check_variables({"a": [1] * (limits.VALUES_MAX - 1)})
    for beyond in (
        {"a": [1] * limits.VALUES_MAX},
        {"a": [{"b": [0] * 100} for _ in range(limits.VALUES_MAX // 100)]},
    ):
        with pytest.raises(GraphQLError, match="values"):
            check_variables(beyond)
